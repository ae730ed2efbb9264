import { resolve } from "node:path";
import { emit } from "../lib/emit.ts";
import type { ExecutorInvocation } from "../lib/invocation.ts";
import { AgentError } from "../lib/agent/agent-error.ts";
import { runAgent } from "../lib/agent/run-agent.ts";
import { argumentsOf } from "./arguments.ts";
import { runCommand } from "./command.ts";
import type { CommandEnd } from "./command.ts";
import { proceduralConfig } from "./config.ts";
import type { ProceduralConfig } from "./config.ts";
import { resultOf } from "./output.ts";

/** Exit code of a command that took too long, as `timeout` has it. */
const TIMED_OUT = 124;

/** Any command as an agent. Returns its exit code. */
export function main(): Promise<number> {
  return runAgent("procedural", drive);
}

async function drive(invocation: ExecutorInvocation): Promise<void> {
  const config = proceduralConfig(invocation.executor_config);
  if (invocation.mode === "resume" && !config.resumable) {
    throw new AgentError(
      "UNKNOWN_SESSION",
      "a procedural agent has no conversation that could be resumed: start a new session, or set resumable: true in its config, which runs the command once more",
    );
  }
  const args = [...config.args, ...argumentsOf(invocation.parameters, config.lists)];
  const cwd = resolve(config.cwd);
  const end = await runCommand({
    program: programOf(config.command, cwd),
    ...{ args, cwd, timeoutMs: config.timeoutMs },
    env: { ...process.env, ...config.env },
    stdin: invocation.prompt,
  });
  const failure = failureOf(end, config);
  // A command that fails has a result as well: what it printed says more than its exit code.
  if (end.code !== null) await emit.result(resultOf(end.code, end.stdout, end.stderr));
  if (failure !== undefined) throw failure;
}

/** A path is relative to the directory in which the command runs, a name is looked for on PATH. */
function programOf(command: string, cwd: string): string {
  return command.includes("/") ? resolve(cwd, command) : command;
}

/** The exit code of the command is that of the run: 75 has it tried again, where the run allows that. */
class CommandFailed extends AgentError {
  readonly #exitCode: number;

  constructor(message: string, exitCode: number) {
    super(exitCode === TIMED_OUT ? "LIMIT_REACHED" : "AGENT_FAILED", message);
    this.#exitCode = exitCode;
  }

  override get exitCode(): number {
    return this.#exitCode;
  }
}

function failureOf(end: CommandEnd, { command, timeoutMs }: ProceduralConfig): AgentError | undefined {
  const { code, signal, endedBy, stderrTail } = end;
  const said = stderrTail === "" ? "it said nothing on stderr" : `the end of its stderr: ${stderrTail}`;
  if (endedBy === "timeout") {
    return new CommandFailed(
      `${command} did not end within timeout_ms ${timeoutMs}, and was ended; ${said}`,
      TIMED_OUT,
    );
  }
  if (endedBy === "stop") return new AgentError("AGENT_FAILED", `${command} was stopped before its end; ${said}`);
  if (signal !== null) return new AgentError("AGENT_FAILED", `${command} was ended by ${signal}; ${said}`);
  return code === 0 ? undefined : new CommandFailed(`${command} exited with code ${code}; ${said}`, code ?? 1);
}
