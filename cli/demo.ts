import "../lib/require-node.ts";
import { createClient } from "@connectrpc/connect";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { closeSync, openSync, readFileSync } from "node:fs";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { FleetService } from "../gen/agentrunner/v1/fleet_service_pb.ts";
import type { Run } from "../gen/agentrunner/v1/run_pb.ts";
import { RunState } from "../gen/agentrunner/v1/run_pb.ts";
import { RunService } from "../gen/agentrunner/v1/run_service_pb.ts";
import { Runner_Presence } from "../gen/agentrunner/v1/runner_pb.ts";
import { connectTransport } from "../lib/transport.ts";
import type { Child } from "./children.ts";
import { ChildEnded, claimPort, endChild, startChild, untilHealthy } from "./children.ts";
import type { Io, Sink } from "./cli.ts";
import type { Cell, Paint } from "./format.ts";
import { ansi, duration, plain, table } from "./format.ts";
import { main } from "./main.ts";
import { pendingText, stateCell } from "./pages.ts";

/*
 * `npm run demo`: a coordinator, a runner and the test executor, for real, on a free port and in a temporary directory.
 * Every command is shown as a user would type it and runs through the code of `ao`. Exit 1 when anything is not as
 * expected.
 */

/** The whole demo must be over by then. */
const DEMO_MAX_MS = 25_000;
/** Time that a child gets after each signal at the end. */
const END_GRACE_MS = 2_000;
const HOST = "127.0.0.1";

/** A run did not do what the demo shows it for. */
class Unexpected extends Error {
  override readonly name = "Unexpected";
}

function expect(condition: boolean, what: string): void {
  if (!condition) throw new Unexpected(what);
}

/** What the scenes of the demo work with. */
interface Stage {
  readonly paint: Paint;
  readonly runs: ReturnType<typeof createClient<typeof RunService>>;
  readonly say: (text: string) => void;
  /** Shows a command and runs it; fails unless it exits as expected. Answers what it writes to stdout; `data` has it as it comes. */
  readonly ao: (args: readonly string[], exitCode: number, data?: string[]) => Promise<string>;
}

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
  coordinator: Child | undefined;
  runner: Child | undefined;
  constructor(dir: string, paint: Paint) {
    this.dir = dir;
    this.paint = paint;
  }

  async open(): Promise<string> {
    const listen = `${HOST}:${await claimPort(HOST, 0)}`;
    const url = `http://${listen}`;
    const project = join(this.dir, "project");
    await mkdir(project);
    this.coordinator = this.#start("coordinator", ["--listen", listen, "--store", join(this.dir, "coordinator.db")]);
    await untilHealthy(url, this.coordinator);
    const runner = ["--coordinator-url", url, "--executor", "test-executor", "--project-dir", project];
    this.runner = this.#start("runner", [...runner, "--state-dir", join(this.dir, "state")]);
    return url;
  }

  #start(program: Child["program"], args: string[]): Child {
    const log = openSync(this.logFile(program), "a");
    try {
      return startChild(program, [...args, "--log-format", "json"], {
        cwd: this.dir,
        env: cleanEnv(),
        stdio: ["ignore", log, log],
        detached: true,
      });
    } finally {
      closeSync(log);
    }
  }

  logFile(program: Child["program"]): string {
    return join(this.dir, `${program}.log`);
  }

  /** The last lines of both logs, to explain a failure. */
  logTails(lines = 15): string {
    return ([this.coordinator, this.runner] as const)
      .flatMap((child) => (child === undefined ? [] : [child.program]))
      .map((program) => {
        const tail = readFileSync(this.logFile(program), "utf8").trimEnd().split("\n").slice(-lines);
        return `--- ${program}\n${tail.join("\n")}`;
      })
      .join("\n");
  }

  async close(): Promise<void> {
    if (this.runner !== undefined) await endChild(this.runner, END_GRACE_MS);
    if (this.coordinator !== undefined) await endChild(this.coordinator, END_GRACE_MS);
    await rm(this.dir, { recursive: true, force: true });
  }
}

/** Our environment without what would configure the programs behind the demo's back. */
function cleanEnv(): NodeJS.ProcessEnv {
  const ours = /^(AGENT_|PROJECT_DIR$|RUNNER_TAGS$|POLL_TIMEOUT$|HEARTBEAT_INTERVAL$)/;
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !ours.test(name)));
}

/** Waits until the runner takes runs. */
async function untilOnline(url: string, { runner }: Theatre): Promise<void> {
  const link = connectTransport(url);
  const fleet = createClient(FleetService, link.transport);
  try {
    for (;;) {
      const { runners } = await fleet.listRunners({});
      if (runners.some(({ presence }) => presence === Runner_Presence.ONLINE)) return;
      const code = runner?.exitCode();
      if (code !== undefined) throw new ChildEnded("runner", code);
      await delay(20);
    }
  } finally {
    link.abort();
  }
}

/** Writes what a command prints, indented under the command, and keeps it. */
function indented(kept: string[]): Sink {
  let atStart = true;
  return {
    isTTY: process.stdout.isTTY,
    write: (text: string) => {
      kept.push(text);
      const lines = (atStart ? `    ${text}` : text).replaceAll(/\n(?=[^\n])/g, "\n    ");
      atStart = text.endsWith("\n");
      process.stdout.write(lines);
    },
  };
}

function makeStage(url: string, paint: Paint): Stage & { close(): void } {
  const link = connectTransport(url);
  const env = { ...cleanEnv(), AGENT_ORCHESTRATOR_API_URL: url };
  const say = (text: string): void => void process.stdout.write(`${text}\n`);
  return {
    paint,
    runs: createClient(RunService, link.transport),
    say,
    ao: async (args, exitCode, data = []) => {
      say(`  ${paint("dim", "$")} ${paint("cyan", `ao ${args.map(quoted).join(" ")}`)}`);
      const stdin = new PassThrough().end();
      const io: Io = { stdin, stdout: indented(data), stderr: indented([]), env, onInterrupt: () => () => undefined };
      const code = await main(args, io);
      expect(code === exitCode, `\`ao ${args.join(" ")}\` exits with ${code}, not ${exitCode}`);
      return data.join("");
    },
    close: () => link.abort(),
  };
}

function quoted(argument: string): string {
  return /^[\w./:=-]+$/.test(argument) ? argument : `"${argument}"`;
}

async function demo(theatre: Theatre, signal: AbortSignal): Promise<void> {
  const start = performance.now();
  const { paint } = theatre;
  const url = await theatre.open();
  await untilOnline(url, theatre);
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
