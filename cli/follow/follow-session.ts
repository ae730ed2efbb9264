import { Cursors } from "../../client/cursors.ts";
import { afterRun } from "../../client/settled.ts";
import type { AfterRun } from "../../client/settled.ts";
import { isTransient } from "../../client/transient.ts";
import type { Run } from "../../gen/agentrunner/v1/run_pb.ts";
import { RunSchema } from "../../gen/agentrunner/v1/run_pb.ts";
import type { ExitCode } from "../../lib/exit-codes.ts";
import type { Cli } from "../cli.ts";
import { EXIT_INTERRUPTED, exitOf, followRun } from "./follow.ts";
import { awayTalk, watchRun } from "./watch.ts";

type Code = ExitCode | typeof EXIT_INTERRUPTED;

/**
 * Follows a run, and the runs that callbacks of its children make after it, until nothing more is to come of it. Ends as the last of
 * them. With `-o json` only that one is printed.
 */
export async function followSession(cli: Cli, { sessionId, runId: first }: Run): Promise<Code> {
  const quiet = cli.options.output === "json";
  // A session may have lived long before this run: what is waited for comes after the run's end.
  const cursors = new Cursors();
  for (let runId = first; ;) {
    const ended = quiet ? await endOf(cli, runId, cursors) : { code: await followRun(cli, runId, cursors) };
    const next = ended.code === EXIT_INTERRUPTED ? undefined : await following(cli, { sessionId, runId }, cursors);
    if (next?.type === "resumed") {
      ({ runId } = next);
      if (!quiet) cli.say(`${runId} tells the session what its children ended with`);
      continue;
    }
    if ("run" in ended) cli.printMessage(RunSchema, ended.run, () => "");
    if (next !== undefined || ended.code === EXIT_INTERRUPTED) return ended.code;
    cli.say(`left ${sessionId}, which goes on. \`ao wait ${sessionId}\` waits for its end.`);
    return EXIT_INTERRUPTED;
  }
}

/** Waits for the end of a run without a word. */
async function endOf(
  cli: Cli,
  runId: string,
  cursors: Cursors,
): Promise<{ code: Code; run: Run } | { code: typeof EXIT_INTERRUPTED }> {
  const left = new AbortController();
  const undo = cli.io.onInterrupt(() => left.abort());
  try {
    for await (const update of watchRun(cli, runId, left.signal, cursors)) {
      if (update.type === "ended") return { code: exitOf(update.run), run: update.run };
    }
  } finally {
    undo();
  }
  cli.say(`left ${runId}, which goes on. \`ao logs -f ${runId}\` follows it, \`ao stop ${runId}\` stops it.`);
  return { code: EXIT_INTERRUPTED };
}

/** What comes after a run that has ended. Undefined when a person has had enough. */
async function following(
  cli: Cli,
  run: { sessionId: string; runId: string },
  cursors: Cursors,
): Promise<AfterRun | undefined> {
  const left = new AbortController();
  const undo = cli.io.onInterrupt(() => left.abort());
  try {
    return await afterRun(cli, run, { signal: left.signal, cursors, ...awayTalk(cli) });
  } catch (error) {
    if (!isTransient(error)) throw error;
    // How the run ended is known, and is what the caller wants to hear.
    cli.say(`whether callbacks resume ${run.sessionId} is not known: ${error.message}`);
    return { type: "nothing" };
  } finally {
    undo();
  }
}
