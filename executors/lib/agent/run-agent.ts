import { emit, print } from "../emit.ts";
import { ExecutorInvocation, InvocationError } from "../invocation.ts";
import { AgentError } from "./agent-error.ts";

/**
 * The main function of an executor that drives an agent: reads the invocation, has the agent do it, and turns what went
 * wrong into the last line of stderr and an exit code.
 * @param name of the executor, which begins each line on stderr.
 * @param drive says events as they happen, and the result. It throws AgentError when the run fails.
 * @returns the exit code: 0, 2 for an invocation or configuration that cannot be used, otherwise that of the AgentError.
 */
export async function runAgent(
  name: string,
  drive: (invocation: ExecutorInvocation) => Promise<void>,
): Promise<number> {
  try {
    const invocation = await ExecutorInvocation.fromStdin();
    checkDirectory();
    await drive(invocation);
    return 0;
  } catch (error) {
    if (error instanceof InvocationError) {
      await print(`${name}: ${error.message}\n`, process.stderr);
      return 2;
    }
    if (!(error instanceof AgentError)) throw error;
    await emit.status(`${error.reason}: ${error.message}`);
    await print(`${name}: ${error.reason}: ${error.message}\n`, process.stderr);
    return error.exitCode;
  }
}

/** The directory can be deleted between two runs, or under our feet; most agents say nothing about it. */
function checkDirectory(): void {
  try {
    process.cwd();
  } catch (error) {
    throw new AgentError("PROJECT_DIR_GONE", "the project directory does not exist any more; create it again", {
      cause: error,
    });
  }
}
