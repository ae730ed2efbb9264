import { spawn } from "node:child_process";
import type { ChildProcessWithoutNullStreams } from "node:child_process";
import { setTimeout as delay } from "node:timers/promises";
import type { ExecutorEvent, ExecutorResult } from "../../gen/agentrunner/v1/executor_pb.ts";
import { TIMER_MAX_MS } from "../../lib/config/kinds.ts";
import { runMarkers } from "./environment.ts";
import { directoryProblem, shownPath } from "../settings/directory.ts";
import { executableProblem } from "../settings/executable.ts";
import { startFailure } from "./start-failure.ts";
import type { StartFailure } from "./start-failure.ts";
import { OutputParser } from "./executor-output.ts";
import type { OutputStream } from "./executor-output.ts";
import type { Secrets } from "./secret-filter.ts";
import { Intake } from "./intake.ts";
import type { Room } from "./intake.ts";
import { StopLadder } from "./stop-ladder.ts";
import type { Leash } from "./leash.ts";
import { outcomeOf } from "./outcome.ts";
import type { EndedBy, Outcome, ProcessEnd } from "./outcome.ts";
import { endMarked, hasEnded, ProcessGroup } from "./processes.ts";
import type { Ended, Kill } from "./processes.ts";

/** How long output waits for more before it is an event: a watcher sees it at once, and a flood is still batched. */
const FLUSH_MS = 50;

/** Pause between two looks at a process group, whose end nobody announces. */
const LOOK_AGAIN_MS = 50;

/** The pids of the system cannot come round twice within this time, so that what is younger has a higher one. */
const YOUNG_MS = 60_000;

/** What to run, and how long to wait for what. Times are milliseconds, at most 24.8 days. */
export interface ExecutionSpec {
  /** Absolute path of the executor. */
  command: string;
  /** Absent: none, as an executor has none. */
  args?: readonly string[];
  /** Absolute directory that it is started in. */
  cwd: string;
  /** Written once to its stdin, which is then closed. */
  stdin: string;
  /** Its whole environment, of `executorEnv`. */
  env: Readonly<Record<string, string>>;
  /** Longest run. Absent: no limit. */
  timeoutMs?: number | undefined;
  /** Longest silence on stdout and stderr. Absent: no limit. */
  idleTimeoutMs?: number | undefined;
  /** Which limit that is and how it is changed, for the message of a run that exceeds it. */
  idleLimit?: string | undefined;
  /** Time from SIGTERM to SIGKILL where `stop` names no other. */
  stopGraceMs?: number;
  /** Time to exit after a `result` event. */
  resultGraceMs?: number;
  /** Time that what the executor leaves behind has to end by itself. */
  orphanGraceMs?: number;
  /** Time after SIGKILL for the processes to be gone and the pipes to be empty. */
  pipeDrainMs?: number;
  /** Output kept of the run. */
  outputMaxBytes?: number;
  /** What is replaced by `***` in everything that the executor prints. */
  secrets?: Secrets;
}

const DEFAULTS = { stopGraceMs: 10_000, resultGraceMs: 10_000, orphanGraceMs: 2_000, pipeDrainMs: 5_000 };

export interface ExecutionHooks {
  /** The executor runs. Called before any event, and not at all when it cannot be spawned. */
  onStarted(pid: number): void;
  /** In the order of the output. The receiver must take them. */
  onEvent(event: ExecutorEvent): void;
  /** Asked after each event. While there is no room, nothing more is read and the executor waits; absent: always room. */
  room?: Room;
}

export interface SupervisorDeps {
  /** Told of every process group while it lives. */
  leash?: Pick<Leash, "add" | "remove">;
  kill?: Kill;
}

export type StopReason = "requested" | "runner-shutdown";

export interface ExecutorOutcome extends Outcome {
  /** The last result that the executor gave, else its plain stdout. */
  result: ExecutorResult | undefined;
  /** The executor's own name for the conversation; empty when it said none. */
  executorSessionId: string;
  outputBytes: number;
  /** Lines that looked like events and were not, and what was wrong with the first. */
  malformedEvents: number;
  malformedReason: string;
}

export interface Execution {
  /** Pid, and id of the process group. Absent when it could not be spawned. */
  readonly pid: number | undefined;
  /** Resolves when the process group is gone and its output is read. Never rejects. */
  readonly done: Promise<ExecutorOutcome>;
  /** Climbs the stop ladder. A repetition can shorten the grace, never lengthen it; after the end it does nothing. */
  stop(graceMs: number, reason?: StopReason): void;
}

/** Spawns an executor in a process group of its own and watches it to its end, by the table of outcome.ts. */
export function supervise(spec: ExecutionSpec, hooks: ExecutionHooks, deps: SupervisorDeps = {}): Execution {
  const { command, args = [], cwd, env } = spec;
  try {
    const problem = projectProblem(cwd) ?? ofExecutor(executableProblem(command));
    if (problem !== undefined) return notSpawned(problem);
    const child = spawn(command, args, { cwd, env, detached: true, stdio: "pipe" });
    if (child.pid !== undefined) return new Supervision(child, child.pid, spec, hooks, deps);
    return notSpawned(new Promise((resolve) => child.once("error", (error) => resolve(startFailure(command, error)))));
  } catch (error) {
    return notSpawned(startFailure(command, error));
  }
}

function ofExecutor(problem: string | undefined): StartFailure | undefined {
  return problem === undefined ? undefined : { message: problem, shortage: false };
}

function projectProblem(cwd: string): StartFailure | undefined {
  const problem = directoryProblem(cwd);
  if (problem === undefined) return undefined;
  const remedy = problem.missing ? "create it or name another project_dir" : "name another project_dir";
  const message = `project directory ${shownPath(cwd)} ${problem.what}; ${remedy}`;
  return { message, shortage: problem.shortage };
}

/** An execution that has ended before anything was spawned. */
export function notSpawned(failure: StartFailure | Promise<StartFailure>): Execution {
  const done = Promise.resolve(failure).then((facts) => ({
    ...outcomeOf({ end: { type: "not-spawned", ...facts }, outputTruncated: false, stderrTail: "" }),
    ...new OutputParser().summary(),
  }));
  return { pid: undefined, done, stop: () => undefined };
}

class Supervision implements Execution {
  readonly pid: number;
  readonly done: Promise<ExecutorOutcome>;
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #spec: ExecutionSpec & typeof DEFAULTS;
  readonly #hooks: ExecutionHooks;
  readonly #output: OutputParser;
  readonly #intake: Intake;
  readonly #group: ProcessGroup;
  readonly #ladder: StopLadder;
  readonly #timers: {
    timeout?: NodeJS.Timeout;
    idle?: NodeJS.Timeout;
    result?: NodeJS.Timeout;
    flush?: NodeJS.Timeout;
  };
  readonly #leader = Promise.withResolvers<ProcessEnd>();
  readonly #pipes = Promise.withResolvers<void>();
  #leaderRuns = true;
  #pipesOpen = true;
  #endedBy: EndedBy | undefined;
  #behind: Ended | undefined;
  readonly #startedAt = performance.now();

  constructor(
    child: ChildProcessWithoutNullStreams,
    pid: number,
    spec: ExecutionSpec,
    hooks: ExecutionHooks,
    deps: SupervisorDeps,
  ) {
    deps.leash?.add(pid);
    this.pid = pid;
    this.#child = child;
    this.#spec = { ...DEFAULTS, ...spec };
    this.#hooks = hooks;
    this.#output = new OutputParser(spec);
    const room = () => hooks.room?.();
    this.#intake = new Intake([child.stdout, child.stderr], room, () => this.#timers.idle?.refresh());
    this.#group = new ProcessGroup(pid, deps.kill);
    this.#ladder = new StopLadder(this.#group, () => this.#giveUpLater());
    const { timeoutMs, idleTimeoutMs, idleLimit: limit = "its idle timeout" } = spec;
    this.#timers = {};
    if (timeoutMs !== undefined) this.#timers.timeout = this.#watchdog({ type: "timeout", afterMs: timeoutMs });
    if (idleTimeoutMs !== undefined)
      this.#timers.idle = this.#watchdog({ type: "idle", afterMs: idleTimeoutMs, limit });
    this.#listen();
    this.done = this.#run(deps.leash);
  }

  stop(graceMs: number, reason: StopReason = "requested"): void {
    this.#end({ type: reason === "requested" ? "stop" : "shutdown" }, graceMs);
  }

  #listen(): void {
    const child = this.#child;
    child.once("spawn", () => this.#hooks.onStarted(this.pid));
    child.stdout.on("data", (chunk: Buffer) => this.#read("stdout", chunk));
    child.stderr.on("data", (chunk: Buffer) => this.#read("stderr", chunk));
    child.once("exit", (code, signal) =>
      this.#leader.resolve(code === null ? { type: "signal", signal: signal! } : { type: "code", code }),
    );
    child.once("close", () => {
      this.#pipesOpen = false;
      this.#pipes.resolve();
    });
    // An executor that does not read its stdin (EPIPE), or ends first, is judged by its exit and not by this.
    child.stdin.on("error", () => undefined);
    child.stdin.end(this.#spec.stdin);
  }

  async #run(leash: SupervisorDeps["leash"]): Promise<ExecutorOutcome> {
    const end = await this.#leader.promise;
    this.#leaderRuns = false;
    const killedAfterMs = this.#ladder.killed?.graceMs;
    for (const name of ["timeout", "idle", "result"] as const) clearTimeout(this.#timers[name]);
    const outputTruncated = end.type === "stuck" ? this.#closePipes() : await this.#settle();
    this.#ladder.leave();
    clearTimeout(this.#timers.flush);
    for (const event of this.#output.end()) this.#hooks.onEvent(event);
    // A group that cannot be ended stays on the leash.
    if (end.type !== "stuck" && !this.#group.alive()) leash?.remove(this.pid);
    const { stderrTail, ...summary } = this.#output.summary();
    const facts = { end, endedBy: this.#endedBy, killedAfterMs, outputTruncated, stderrTail, behind: this.#behind };
    return { ...outcomeOf(facts), ...summary };
  }

  /**
   * What follows the end of the leader, in three phases: its process group ends, what left the group is ended, the pipes
   * end. True when something had to be cut off.
   */
  async #settle(): Promise<boolean> {
    const stoppedBefore = this.#ladder.begun;
    // Who cannot write has not had that time.
    const heldBefore = this.#intake.heldMs;
    const graceEndsAt = performance.now() + this.#spec.orphanGraceMs;
    const graceOver = () => performance.now() - (this.#intake.heldMs - heldBefore) >= graceEndsAt;
    const groupGone = await this.#untilGroupIsGone(graceOver);
    if (groupGone) this.#behind = await this.#sweep();
    const readToEnd = groupGone && (await this.#untilPipesEnd(graceOver));
    const pipesCut = !readToEnd && this.#closePipes();
    return pipesCut || (!stoppedBefore && this.#ladder.begun);
  }

  /** Stops the group when it outlives the grace of orphans. False when it outlives SIGKILL too. */
  async #untilGroupIsGone(graceOver: () => boolean): Promise<boolean> {
    while (this.#group.alive()) {
      if (this.#drainIsOver()) return false;
      if (!this.#ladder.begun && graceOver()) this.#ladder.climb(this.#spec.stopGraceMs);
      await this.#nextLook();
    }
    return true;
  }

  /** The group is gone, but what left it may hold the pipes. False when it still does at the end of the grace. */
  async #untilPipesEnd(graceOver: () => boolean): Promise<boolean> {
    while (this.#pipesOpen) {
      const overdue = this.#ladder.killed === undefined ? graceOver() : this.#drainIsOver();
      if (overdue) return false;
      await this.#nextLook();
    }
    return true;
  }

  /** True when SIGKILL was sent, and so long ago that what is still there will stay. */
  #drainIsOver(): boolean {
    const { killed } = this.#ladder;
    return killed !== undefined && performance.now() >= killed.at + this.#spec.pipeDrainMs;
  }

  /** Nobody announces the end of a group; that of the pipes is heard, and often comes with it. */
  async #nextLook(): Promise<void> {
    const look = delay(LOOK_AGAIN_MS);
    await (this.#pipesOpen ? Promise.race([this.#pipes.promise, look]) : look);
  }

  /**
   * A run leaves nothing behind: also what left the group, as far as its environment tells. Agents put the processes of their
   * tools into groups of their own. Who was not stopped with the run has the grace of orphans.
   */
  async #sweep(): Promise<Ended | undefined> {
    const markers = runMarkers(this.#spec.env);
    if (markers === undefined) return undefined;
    const { orphanGraceMs, pipeDrainMs } = this.#spec;
    const graceMs = this.#endedBy === undefined ? orphanGraceMs : 0;
    const after = performance.now() - this.#startedAt < YOUNG_MS ? this.pid : undefined;
    return endMarked(markers, { graceMs, timeoutMs: graceMs + pipeDrainMs, after });
  }

  /** Stops reading. True when something could still have come. */
  #closePipes(): boolean {
    const open = this.#pipesOpen;
    this.#child.stdout.destroy();
    this.#child.stderr.destroy();
    return open;
  }

  #read(stream: OutputStream, chunk: Buffer): void {
    const resultsBefore = this.#output.results;
    this.#deliver(this.#output.push(stream, chunk));
    this.#timers.idle?.refresh();
    if (this.#output.results === resultsBefore || !this.#leaderRuns) return;
    clearTimeout(this.#timers.result);
    this.#timers.result = this.#watchdog({ type: "result", afterMs: this.#spec.resultGraceMs });
  }

  #deliver(events: readonly ExecutorEvent[]): void {
    for (const event of events) this.#hooks.onEvent(event);
    this.#intake.check();
    if (!this.#output.pending || this.#timers.flush !== undefined) return;
    this.#timers.flush = setTimeout(() => {
      delete this.#timers.flush;
      this.#deliver(this.#output.flush());
    }, FLUSH_MS);
  }

  #watchdog(cause: Extract<EndedBy, { afterMs: number }>): NodeJS.Timeout {
    const onTime = () => {
      // An executor that is held up is neither silent nor slow to exit.
      if (cause.type !== "timeout" && this.#intake.held) timer.refresh();
      // An executor that is already being stopped keeps the grace of whoever stopped it.
      else if (!this.#ladder.begun) this.#end(cause, this.#spec.stopGraceMs);
    };
    const timer = setTimeout(onTime, Math.min(cause.afterMs, TIMER_MAX_MS));
    return timer;
  }

  /** The first cause counts, and only if the executor had not ended before: then its own end does. */
  #end(cause: EndedBy, graceMs: number): void {
    if (this.#leaderRuns && !this.#ladder.begun && !hasEnded(this.pid)) this.#endedBy = cause;
    this.#ladder.climb(graceMs);
  }

  /**
   * SIGKILL was sent: what the pipes still hold is little, and is read at once. A process that waits inside the kernel
   * does not die of it, and the run must end all the same.
   */
  #giveUpLater(): void {
    this.#intake.readAll();
    if (!this.#leaderRuns) return;
    const giveUp = () => {
      this.#child.unref();
      this.#leader.resolve({ type: "stuck", pid: this.pid });
    };
    const timer = setTimeout(giveUp, this.#spec.pipeDrainMs);
    void this.#leader.promise.then(() => clearTimeout(timer));
  }
}
