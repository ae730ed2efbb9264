import "../../lib/require-node.ts";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { closeSync, openSync, readFileSync } from "node:fs";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { Run } from "../../gen/agentrunner/v1/run_pb.ts";
import { RunState } from "../../gen/agentrunner/v1/run_pb.ts";
import { Runner_Presence } from "../../gen/agentrunner/v1/runner_pb.ts";
import { connect } from "../../client/connect.ts";
import type { Child } from "../children.ts";
import { ChildEnded, claimPort, endChild, startChild, untilHealthy } from "../children.ts";
import { cleanEnv, expect, makeStage, Unexpected } from "./stage.ts";
import type { Stage } from "./stage.ts";
import { treeScene } from "./tree-scene.ts";
import type { Cell, Paint } from "../text/format.ts";
import { ansi, duration, plain, table } from "../text/format.ts";
import { pendingText, stateCell } from "../text/tables-and-cards.ts";

/*
 * `npm run demo`: a coordinator, runners and executors, for real, on a free port and in a temporary directory.
 * Every command is shown as a user would type it and runs through the code of `ao`. Exit 1 when anything is not as
 * expected.
 */

/** The whole demo must be over by then. */
const DEMO_MAX_MS = 25_000;
/** Time that a child gets after each signal at the end. */
const END_GRACE_MS = 2_000;
const HOST = "127.0.0.1";

/** The runs that the demo has made, in order. */
async function scenes(stage: Stage): Promise<Run[]> {
  const { say, ao, paint } = stage;
  const scene = (text: string): void => say(`\n${paint("bold", text)}`);

  scene("A run that completes");
  const profile = ["--profile", "test-executor"];
  const hello = "print Hello from a real process; status thinking; sleep 200ms; result 42";
  const answer = await ao(["start", "hello", ...profile, "--prompt", hello, "--follow"], 0);
  expect(answer.includes("Hello from a real process") && answer.includes("42"), "the output and the result are shown");

  scene("A run that fails");
  await ao(["start", "broken", ...profile, "--prompt", "error disk on fire; exit 3", "--follow"], 1);

  scene("A run that somebody stops");
  const seen: string[] = [];
  const prompt = "print working …; sleep 10m";
  const following = ao(["start", "endless", ...profile, "--prompt", prompt, "--follow"], 5, seen);
  const early = following.then(() => expect(false, "the run goes on until it is stopped"));
  await Promise.race([early, said(seen, /^working …$/m)]);
  const { runs: active } = await stage.runs.listRuns({ states: [RunState.RUNNING] });
  await ao(["runs", "stop", active[0]?.runId ?? "", "--grace", "2s", "--reason", "the demo goes on"], 0);
  await following;

  scene("The first session goes on: a resume is a second run in it");
  await ao(["resume", "hello", "--prompt", "print Welcome back; result and again", "--follow"], 0);

  scene("A run that no runner can take, and why");
  const queued = await ao(["start", "picky", "--tag", "gpu", "--prompt", "needs a GPU", "-o", "jsonl"], 0);
  const { run_id: picky } = JSON.parse(queued) as { run_id: string };
  await ao(["runs", "get", picky], 0);
  const { run } = await stage.runs.getRun({ runId: picky });
  expect(/lacks tag gpu/.test(pendingText(run?.pendingReasons ?? [])), "the missing tag is named");
  await ao(["runs", "stop", picky], 0);

  scene("What there is");
  await ao(["runs", "ls"], 0);
  await ao(["sessions"], 0);
  const { runs } = await stage.runs.listRuns({});
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
export function timeline(runs: readonly Run[], paint: Paint): string {
  const ms = (time: Run["createdAt"]): number | undefined => (time === undefined ? undefined : timestampMs(time));
  const gap = (from: number | undefined, to: number | undefined): string =>
    from === undefined || to === undefined ? "-" : `${to - from} ms`;
  const rows = runs.map((run): Cell[] => {
    const [created, claimed, started, ended] = [run.createdAt, run.claimedAt, run.startedAt, run.endedAt].map(ms);
    const session = run.sessionName || run.sessionId;
    const steps = [gap(created, claimed), gap(claimed, started), gap(started, ended), gap(created, ended)];
    return [run.runId, session, stateCell(run.state), ...steps];
  });
  const header = ["RUN", "SESSION", "STATE", "QUEUED→CLAIMED", "CLAIMED→STARTED", "STARTED→ENDED", "TOTAL"];
  return table(header, rows, paint);
}

/** Everything that the demo must clean up. */
class Theatre {
  readonly dir: string;
  readonly paint: Paint;
  /** By the name of their log. */
  readonly #children = new Map<string, Child>();
  #url = "";
  constructor(dir: string, paint: Paint) {
    this.dir = dir;
    this.paint = paint;
  }

  /** Starts the coordinator, and answers its URL. */
  async open(): Promise<string> {
    const listen = `${HOST}:${await claimPort(HOST, 0)}`;
    this.#url = `http://${listen}`;
    await mkdir(this.#project);
    const store = ["--store", join(this.dir, "coordinator.db")];
    await untilHealthy(this.#url, this.#start("coordinator", "coordinator", ["--listen", listen, ...store]));
    return this.#url;
  }

  get #project(): string {
    return join(this.dir, "project");
  }

  /** Starts a runner, and waits until it takes runs. */
  async runner(name: string, executor: string, tags: readonly string[]): Promise<void> {
    const places = ["--project-dir", this.#project, "--state-dir", join(this.dir, "state")];
    const flags = ["--executor", executor, "--name", name, ...tags.flatMap((tag) => ["--tag", tag])];
    const runner = this.#start("runner", name, ["--coordinator-url", this.#url, ...places, ...flags]);
    await untilOnline(this.#url, name, runner);
  }

  #start(program: Child["program"], name: string, args: string[]): Child {
    const log = openSync(this.#logFile(name), "a");
    try {
      const child = startChild(program, [...args, "--log-format", "json"], {
        cwd: this.dir,
        env: cleanEnv(),
        stdio: ["ignore", log, log],
        detached: true,
      });
      this.#children.set(name, child);
      return child;
    } finally {
      closeSync(log);
    }
  }

  #logFile(name: string): string {
    return join(this.dir, `${name}.log`);
  }

  /** The last lines of every log, to explain a failure. */
  logTails(lines = 15): string {
    return [...this.#children.keys()]
      .map((name) => {
        const tail = readFileSync(this.#logFile(name), "utf8").trimEnd().split("\n").slice(-lines);
        return `--- ${name}\n${tail.join("\n")}`;
      })
      .join("\n");
  }

  async close(): Promise<void> {
    const [coordinator, ...runners] = this.#children.values();
    await Promise.all(runners.map((runner) => endChild(runner, END_GRACE_MS)));
    if (coordinator !== undefined) await endChild(coordinator, END_GRACE_MS);
    await rm(this.dir, { recursive: true, force: true });
  }
}

/** Waits until the runner takes runs. */
async function untilOnline(url: string, name: string, runner: Child): Promise<void> {
  const { fleet, close } = connect(url);
  try {
    for (;;) {
      const { runners } = await fleet.listRunners({});
      if (runners.some((one) => one.name === name && one.presence === Runner_Presence.ONLINE)) return;
      const code = runner.exitCode();
      if (code !== undefined) throw new ChildEnded("runner", code);
      await delay(20);
    }
  } finally {
    close();
  }
}

async function demo(theatre: Theatre, signal: AbortSignal): Promise<void> {
  const start = performance.now();
  const { paint } = theatre;
  const url = await theatre.open();
  await theatre.runner("runner", "test-executor", []);
  signal.throwIfAborted();
  const stage = makeStage(url, paint);
  stage.say(`coordinator ${paint("cyan", url)} and a runner with the test executor are up, in ${theatre.dir}`);
  try {
    const cut = new Promise<never>((_, reject) => {
      signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
    });
    const runs = await Promise.race([scenes(stage), cut]);
    stage.say(`\n${timeline(runs, paint)}`);
    verify(runs);
    await Promise.race([treeScene(stage, (tag) => theatre.runner(tag, "script-agent", [tag])), cut]);
    stage.say(`\n${paint("green", "All as expected")}, in ${duration(performance.now() - start)}.`);
  } finally {
    stage.close();
  }
}

async function run(): Promise<number> {
  const paint = process.stdout.isTTY && (process.env["NO_COLOR"] ?? "") === "" ? ansi : plain;
  const theatre = new Theatre(await mkdtemp(join(tmpdir(), "agent-runner-demo-")), paint);
  const cut = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(signal, () => cut.abort(new Unexpected(`ended by ${signal}`)));
  }
  const timer = setTimeout(() => cut.abort(new Unexpected(`not over within ${duration(DEMO_MAX_MS)}`)), DEMO_MAX_MS);
  try {
    await demo(theatre, cut.signal);
    return 0;
  } catch (error) {
    process.stderr.write(`\ndemo failed: ${error instanceof Error ? error.message : String(error)}\n`);
    if (!(error instanceof Unexpected) && !(error instanceof ChildEnded)) process.stderr.write(`${String(error)}\n`);
    process.stderr.write(`${theatre.logTails()}\n`);
    return 1;
  } finally {
    clearTimeout(timer);
    await theatre.close();
  }
}

if (import.meta.main) process.exit(await run());
