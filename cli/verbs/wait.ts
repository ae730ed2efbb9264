import { durationMs } from "@bufbuild/protobuf/wkt";
import type { Duration } from "@bufbuild/protobuf/wkt";
import { Option } from "commander";
import type { Command } from "commander";
import { retry } from "../../client/retry.ts";
import { hasSettled, treeHasSettled, untilSettled, untilTreeSettled } from "../../client/settled.ts";
import { PATIENCE } from "../../client/watch.ts";
import type { Run } from "../../gen/agentrunner/v1/run_pb.ts";
import { RunSchema } from "../../gen/agentrunner/v1/run_pb.ts";
import { EXIT } from "../../lib/exit-codes.ts";
import { longTimeout } from "../../lib/long-timeout.ts";
import { wrap } from "../../lib/width.ts";
import type { Cli, Outcome, Verbs } from "../cli.ts";
import { CliError, present, usage } from "../errors.ts";
import { EXIT_INTERRUPTED, exitOf } from "../follow/follow.ts";
import { awayTalk } from "../follow/watch.ts";
import { durationOption } from "../options.ts";
import { SESSION_OPERAND, sessionOf } from "../refs.ts";
import { clean } from "../text/format.ts";
import { stateLine } from "../text/runs.ts";

interface WaitOptions {
  readonly timeout?: Duration;
  readonly any?: true;
  readonly tree?: true;
}

/** Sessions that are waited for at once: each has a stream. */
const MAX_SESSIONS = 100;

/** `ao wait SESSION…`. */
export function addWait(ao: Command, verbs: Verbs): void {
  ao.command("wait")
    .argument("<session...>", SESSION_OPERAND)
    .description("wait until sessions have settled: no run is open, and no callback is to come")
    .option("--any", "until the first of them has")
    .option("--tree", "also every session below them")
    .addOption(new Option("--timeout <time>", "longest time to wait, such as 10m").argParser(durationOption))
    .addHelpText(
      "after",
      "\nEnds as the last run of the first session did that did not complete; with 0 when" +
        "\nall of them did, with 6 when the time is over.\n\nExample:\n  ao wait boss --timeout 30m && ao sessions result boss",
    )
    .action(verbs.action(wait));
}

/** A session that is waited for. */
interface Waited {
  /** As it was named on the command line. */
  readonly name: string;
  readonly sessionId: string;
  /** Its last run, once it has settled. */
  run?: Run;
}

async function wait(cli: Cli, names: string[], options: WaitOptions): Outcome {
  if (names.length > MAX_SESSIONS) {
    throw usage(`${names.length} sessions are too many to wait for`, `at most ${MAX_SESSIONS} at once`);
  }
  const sessions: Waited[] = [];
  for (const name of new Set(names)) sessions.push({ name, sessionId: (await sessionOf(cli, name)).sessionId });
  const left = new AbortController();
  const undo = cli.io.onInterrupt(() => left.abort());
  const time = options.timeout && longTimeout(durationMs(options.timeout));
  try {
    const signal = time === undefined ? left.signal : AbortSignal.any([left.signal, time]);
    await untilEnough(cli, sessions, options, { signal, left: left.signal });
  } finally {
    undo();
  }
  const runs = sessions.flatMap(({ run }) => (run === undefined ? [] : [run]));
  if (cli.options.output === "json") cli.printList("runs", RunSchema, runs, () => "");
  const open = sessions.filter(({ run }) => run === undefined);
  if (open.length === 0 || (options.any && runs.length > 0)) {
    return runs.map(exitOf).find((code) => code !== EXIT.ok) ?? EXIT.ok;
  }
  const which = open.map(({ name }) => clean(name)).join(", ");
  if (left.signal.aborted) {
    cli.say(`left ${which}, which ${open.length === 1 ? "goes" : "go"} on`);
    return EXIT_INTERRUPTED;
  }
  const text = `the time is over, and ${open.length} of ${sessions.length} sessions ${open.length === 1 ? "has" : "have"} not settled`;
  throw new CliError(EXIT.timedOut, `${text}: ${which}`, `\`ao get ${open[0]?.name}\` says where it stands`);
}

/** Waits for all of them, or with --any for the first, and tells of each as it settles. */
async function untilEnough(
  cli: Cli,
  sessions: readonly Waited[],
  { any, tree }: WaitOptions,
  { signal, left }: { readonly signal: AbortSignal; readonly left: AbortSignal },
) {
  const enough = new AbortController();
  const options = { signal: AbortSignal.any([signal, enough.signal]), ...onceForAll(awayTalk(cli)) };
  const settled = tree ? untilTreeSettled : untilSettled;
  const isSettled = tree ? treeHasSettled : hasSettled;
  const each = sessions.map(async (session) => {
    const { sessionId } = session;
    // What has settled has done so however short the time is; so it is looked at before the time and once more after it.
    if (!(await isSettled(cli, sessionId, left)) && !(await settled(cli, sessionId, options))) {
      if (left.aborted || enough.signal.aborted || !(await isSettled(cli, sessionId, left))) return;
    }
    const run = await retry(() => lastRun(cli, session.sessionId), { patienceMs: PATIENCE.againMs });
    if (any && enough.signal.aborted) return;
    session.run = run;
    if (any) enough.abort();
    tell(cli, session.name, run);
  });
  try {
    await Promise.all(each);
  } finally {
    enough.abort();
  }
}

type Talk = ReturnType<typeof awayTalk>;

/** Every wait notices that the coordinator is away, and it is said once. */
function onceForAll({ onAway, onBack }: Talk): Talk {
  let away = 0;
  return {
    onAway: (error) => {
      away += 1;
      if (away === 1) onAway(error);
    },
    onBack: () => {
      away -= 1;
      if (away === 0) onBack();
    },
  };
}

async function lastRun(cli: Cli, sessionId: string): Promise<Run> {
  // Not its newest run: somebody may have queued one more since.
  const { runId } = await cli.sessions.getSessionResult({ sessionId });
  return present((await cli.runs.getRun({ runId })).run, "run");
}

function tell(cli: Cli, name: string, run: Run): void {
  if (cli.options.output === "json") return;
  const text = () => wrap(`${clean(name)}  ${run.runId}  ${stateLine(run, Date.now(), cli.paint)}`, cli.columns, "  ");
  cli.printList("runs", RunSchema, [run], text);
}
