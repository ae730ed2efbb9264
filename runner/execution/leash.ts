import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { Socket } from "node:net";
import { fileURLToPath } from "node:url";
import type { Log } from "../../lib/log.ts";
import { BOOT_VARIABLE } from "../../lib/boot-variable.ts";
import { endMarked } from "./processes.ts";

const SCRIPT = fileURLToPath(new URL("leash.sh", import.meta.url));

/** Pause before a leash that ended is started again; doubles up to the longest while it does not last. */
const RESTART_MS = { shortest: 100, longest: 10_000 };

/** A leash that lasted this long counts as working. */
const STEADY_MS = 10_000;

/** Longest wait for a leash to end: one second for the groups, and time for its last look at the processes. */
const CLOSE_MS = 4_000;

/**
 * The process that ends a runner's executors when the runner itself cannot, because it was killed. It lives in a session
 * of its own, and learns of the runner's death by the end of a pipe.
 *
 * Not covered: a process that has left its group *and* cleared its environment; and, where there is no /proc, every process
 * that has left its group.
 */
export interface Leash {
  /** A process group that is to end with the runner. */
  add(pgid: number): void;
  /** The group is gone. */
  remove(pgid: number): void;
  /** Ends the leash and, with it, everything that is still on it. Resolves when it is gone, after 4 s at most. */
  close(): Promise<void>;
  /** Pid of the leash. Absent while it is started again. */
  readonly pid: number | undefined;
}

export interface LeashOptions {
  log: Pick<Log, "warn">;
  /** The script, for tests of one that fails. */
  script?: string;
}

/** Starts the leash of the runner process `bootId`. A leash that ends is logged, started again and told every group again. */
export function startLeash(bootId: string, { log, script = SCRIPT }: LeashOptions): Leash {
  return new RestartingLeash(`${BOOT_VARIABLE}=${bootId}`, log, script);
}

type State =
  | { type: "running"; child: ChildProcess; since: number }
  | { type: "waiting"; timer: NodeJS.Timeout }
  | { type: "closed" };

class RestartingLeash implements Leash {
  readonly #marker: string;
  readonly #log: LeashOptions["log"];
  readonly #script: string;
  readonly #groups = new Set<number>();
  #pauseMs = RESTART_MS.shortest;
  #state: State;

  constructor(marker: string, log: LeashOptions["log"], script: string) {
    this.#marker = marker;
    this.#log = log;
    this.#script = script;
    this.#state = this.#start();
  }

  get pid(): number | undefined {
    return this.#state.type === "running" ? this.#state.child.pid : undefined;
  }

  add(pgid: number): void {
    this.#groups.add(pgid);
    this.#tell(`+${pgid}\n`);
  }

  remove(pgid: number): void {
    if (this.#groups.delete(pgid)) this.#tell(`-${pgid}\n`);
  }

  async close(): Promise<void> {
    const state = this.#state;
    this.#state = { type: "closed" };
    if (state.type === "waiting") clearTimeout(state.timer);
    if (state.type !== "running") return;
    const { child } = state;
    const gone = Promise.withResolvers<void>();
    child.ref();
    child.once("exit", () => gone.resolve());
    const timer = setTimeout(() => gone.resolve(), CLOSE_MS);
    child.stdin?.end();
    await gone.promise;
    clearTimeout(timer);
    child.unref();
  }

  /** A machine that cannot start it now may be able to later. */
  #start(): State {
    try {
      return this.#spawn();
    } catch (error) {
      return this.#waiting(undefined, error instanceof Error ? error.message : String(error));
    }
  }

  #spawn(): State {
    // A session of its own, so that no Ctrl+C reaches it; and a bare environment, so that no leash is taken for an executor.
    const env = { PATH: process.env["PATH"] ?? "/usr/bin:/bin" };
    const child = spawn("/bin/sh", [this.#script, this.#marker], {
      detached: true,
      stdio: ["pipe", "ignore", "ignore"],
      cwd: "/",
      env,
    });
    child.once("error", (error) => this.#restart(child, error.message));
    child.once("exit", (code, signal) => this.#restart(child, `it ended with ${signal ?? `code ${code}`}`));
    // `exit` reports its end; what could not be written by then is written to its successor.
    child.stdin?.on("error", () => undefined);
    child.stdin?.write([...this.#groups].map((pgid) => `+${pgid}\n`).join(""));
    child.unref();
    if (child.stdin instanceof Socket) child.stdin.unref();
    return { type: "running", child, since: performance.now() };
  }

  #restart(child: ChildProcess, reason: string): void {
    if (this.#state.type !== "running" || this.#state.child !== child) return;
    if (performance.now() - this.#state.since > STEADY_MS) this.#pauseMs = RESTART_MS.shortest;
    this.#state = this.#waiting(child.pid, reason);
  }

  #waiting(pid: number | undefined, reason: string): State {
    const pauseMs = this.#pauseMs;
    this.#pauseMs = Math.min(pauseMs * 2, RESTART_MS.longest);
    this.#log.warn({ leash_pid: pid, reason, pause_ms: pauseMs }, "the leash ended and is started again");
    return { type: "waiting", timer: setTimeout(() => (this.#state = this.#start()), pauseMs).unref() };
  }

  #tell(line: string): void {
    if (this.#state.type === "running") this.#state.child.stdin?.write(line);
  }
}

/**
 * Ends what is left of the runner process `bootId`, for its successor: SIGKILL to every process that carries its marker,
 * until there is none, for at most `timeoutMs`. Linux only; elsewhere nothing is found. Returns the pids that were
 * signalled and those still there.
 */
export async function reapBoot(bootId: string, timeoutMs = 5_000): Promise<{ killed: number[]; left: number[] }> {
  const { ended, left } = await endMarked([`${BOOT_VARIABLE}=${bootId}`], { timeoutMs });
  const pids = [ended, left].map((processes) => processes.map(({ pid }) => pid));
  return { killed: pids.flat(), left: pids[1]! };
}
