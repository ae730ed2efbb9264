import { timestampMs } from "@bufbuild/protobuf/wkt";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { Run } from "../../gen/agentrunner/v1/run_pb.ts";
import { RunState } from "../../gen/agentrunner/v1/run_pb.ts";
import { ChildEnded } from "../children.ts";
import { columnsOf } from "../cli.ts";
import { expect, openContext, Unexpected } from "./context.ts";
import type { DemoContext, RunAo } from "./context.ts";
import { DemoProcesses } from "./processes.ts";
import { showTree } from "./tree.ts";
import type { Paint } from "../text/format.ts";
import { ansi, duration, plain } from "../text/format.ts";
import { table } from "../text/table.ts";
import type { Cell, Column } from "../text/table.ts";
import { pendingText, stateCell } from "../text/runs.ts";

/*
 * `npm run demo`: a coordinator, runners and executors, for real, on a free port and in a temporary directory.
 * Every command is shown as a user would type it and runs through the code of `ao`. Exit 1 when anything is not as
 * expected.
 */

/** The whole demo must be over by then. */
const DEMO_MAX_MS = 25_000;

/** Shows what single runs do. Returns the runs that it made, oldest first. */
async function showRuns(context: DemoContext): Promise<Run[]> {
  const { say, ao, paint } = context;
  const heading = (text: string): void => say(`\n${paint("bold", text)}`);

  heading("A run that completes");
  const profile = ["--profile", "test-executor"];
  const hello = "print Hello from a real process; status thinking; sleep 200ms; result 42";
  const answer = await ao(["start", "hello", ...profile, "--prompt", hello, "--follow"], 0);
  expect(answer.includes("Hello from a real process") && answer.includes("42"), "the output and the result are shown");

  heading("A run that fails");
  await ao(["start", "broken", ...profile, "--prompt", "error disk on fire; exit 3", "--follow"], 1);

  heading("A run that somebody stops");
  const seen: string[] = [];
  const prompt = "print working …; sleep 10m";
  const following = ao(["start", "endless", ...profile, "--prompt", prompt, "--follow"], 5, seen);
  const early = following.then(() => expect(false, "the run goes on until it is stopped"));
  await Promise.race([early, said(seen, /^working …$/m)]);
  const { runs: active } = await context.runs.listRuns({ states: [RunState.RUNNING] });
  await ao(["runs", "stop", active[0]?.runId ?? "", "--grace", "2s", "--reason", "the demo goes on"], 0);
  await following;

  heading("The first session goes on: a resume is a second run in it");
  await ao(["resume", "hello", "--prompt", "print Welcome back; result and again", "--follow"], 0);

  heading("A run that no runner can take, and why");
  const queued = await ao(["start", "picky", "--tag", "gpu", "--prompt", "needs a GPU", "-o", "jsonl"], 0);
  const { run_id: picky } = JSON.parse(queued) as { run_id: string };
  await ao(["runs", "get", picky], 0);
  const { run } = await context.runs.getRun({ runId: picky });
  expect(/lacks tag gpu/.test(pendingText(run?.pendingReasons ?? [])), "the missing tag is named");
  await ao(["runs", "stop", picky], 0);

  heading("What there is");
  await ao(["runs", "ls"], 0);
  await ao(["sessions"], 0);
  const { runs } = await context.runs.listRuns({});
  return runs.reverse();
}

/** Waits until a command has written what is wanted. */
async function said(data: readonly string[], wanted: RegExp): Promise<void> {
  while (!wanted.test(data.join(""))) await delay(20);
}

/** The states that the runs must have ended in, oldest first; and the resume belongs to the first one's session. */
function verify(runs: readonly Run[]): void {
  const { COMPLETED, FAILED, STOPPED } = RunState;
  const wanted = [COMPLETED, FAILED, STOPPED, COMPLETED, STOPPED];
  expect(runs.length === wanted.length, `${wanted.length} runs were made, and ${runs.length} are listed`);
  for (const [i, run] of runs.entries()) expect(run.state === wanted[i], `${run.runId} has state ${run.state}`);
  expect(runs[0]?.sessionId === runs[3]?.sessionId, "the resumed run is in the session of the first one");
  expect(runs[4]?.attempt === 0, "the run that nobody could take was never tried");
}

/** When each run moved on, as times between its states. */
export function timeline(runs: readonly Run[], paint: Paint, columns = Infinity): string {
  const ms = (time: Run["createdAt"]): number | undefined => (time === undefined ? undefined : timestampMs(time));
  const gap = (from: number | undefined, to: number | undefined): string =>
    from === undefined || to === undefined ? "-" : `${to - from} ms`;
  const rows = runs.map((run): Cell[] => {
    const [created, claimed, started, ended] = [run.createdAt, run.claimedAt, run.startedAt, run.endedAt].map(ms);
    const session = run.sessionName || run.sessionId;
    const steps = [gap(created, claimed), gap(claimed, started), gap(started, ended), gap(created, ended)];
    return [run.runId, session, stateCell(run.state), ...steps];
  });
  const steps = ["QUEUED→CLAIMED", "CLAIMED→STARTED", "STARTED→ENDED", "TOTAL"];
  const header: Column[] = [
    { title: "RUN", ids: true, keep: 1 },
    { title: "SESSION", ids: true, min: 8 },
    { title: "STATE", keep: 6 },
    ...steps.map((title, i) => ({ title, keep: i === 3 ? 9 : 7 - i })),
  ];
  return table(header, rows, paint, columns);
}

async function demo(processes: DemoProcesses, paint: Paint, signal: AbortSignal, runAo: RunAo): Promise<void> {
  const start = performance.now();
  const url = await processes.open();
  await processes.runner("runner", "test-executor", []);
  signal.throwIfAborted();
  const context = openContext(url, paint, runAo);
  context.say(`coordinator ${paint("cyan", url)} and a runner with the test executor are up, in ${processes.dir}`);
  try {
    const cut = new Promise<never>((_, reject) => {
      signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
    });
    const runs = await Promise.race([showRuns(context), cut]);
    context.say(`\n${timeline(runs, paint, columnsOf(process, process.stdout))}`);
    verify(runs);
    await Promise.race([showTree(context, (tag) => processes.runner(tag, "script-agent", [tag])), cut]);
    context.say(`\n${paint("green", "All as expected")}, in ${duration(performance.now() - start)}.`);
  } finally {
    context.close();
  }
}

/** Shows runs of every kind end to end, in a temporary folder, and returns the exit code: 0 when all went as expected. */
export async function runDemo(runAo: RunAo): Promise<number> {
  const paint = process.stdout.isTTY && (process.env["NO_COLOR"] ?? "") === "" ? ansi : plain;
  const processes = new DemoProcesses(await mkdtemp(join(tmpdir(), "agent-runner-demo-")));
  const cut = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(signal, () => cut.abort(new Unexpected(`ended by ${signal}`)));
  }
  const timer = setTimeout(() => cut.abort(new Unexpected(`not over within ${duration(DEMO_MAX_MS)}`)), DEMO_MAX_MS);
  try {
    await demo(processes, paint, cut.signal, runAo);
    return 0;
  } catch (error) {
    process.stderr.write(`\ndemo failed: ${error instanceof Error ? error.message : String(error)}\n`);
    if (!(error instanceof Unexpected) && !(error instanceof ChildEnded)) process.stderr.write(`${String(error)}\n`);
    process.stderr.write(`${processes.logTails()}\n`);
    return 1;
  } finally {
    clearTimeout(timer);
    await processes.close();
  }
}
