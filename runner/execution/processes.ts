import { existsSync, readdirSync, readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { isShortage } from "./shortage.ts";

/** Sends a signal as `process.kill` does; tests pass another. */
export type Kill = (pid: number, signal: NodeJS.Signals | 0) => void;

/** Pause between two looks at processes that are dying. */
const LOOK_AGAIN_MS = 20;

/** Whether processes can be looked at, and not only signalled. */
const HAS_PROC = process.platform === "linux" && existsSync("/proc/self/stat");

/**
 * A process group, named after the pid of its leader.
 *
 * The kernel keeps the number while one member lives and may give it to somebody else afterwards: a group that was once
 * seen gone is never signalled again.
 */
export class ProcessGroup {
  readonly pgid: number;
  readonly #kill: Kill;
  #gone = false;

  constructor(pgid: number, kill: Kill = (pid, signal) => process.kill(pid, signal)) {
    if (!Number.isInteger(pgid) || pgid <= 1) throw new RangeError(`${pgid} is not the id of a group to be ended`);
    this.pgid = pgid;
    this.#kill = kill;
  }

  /** Sends the signal to every member. False when none is left that this process may signal. */
  signal(signal: NodeJS.Signals | 0): boolean {
    if (this.#gone) return false;
    try {
      this.#kill(-this.pgid, signal);
    } catch {
      // ESRCH: no member. EPERM: only members of another user, or on macOS only zombies; neither can be ended from here.
      this.#gone = true;
    }
    return !this.#gone;
  }

  /** True while a member runs; zombies do not count. Call it only after the leader has exited and was waited for. */
  alive(): boolean {
    if (!this.signal(0)) return false;
    if (!HAS_PROC) return true;
    // In a container whose first process does not wait for orphans, a group of zombies would never be gone.
    try {
      this.#gone = !processIds().some((pid) => {
        const stat = processStat(pid);
        return stat?.pgid === this.pgid && !isOver(stat.state);
      });
    } catch {
      // No file can be opened: what the signal said counts, and a later look tells more.
    }
    return !this.#gone;
  }
}

/** True when the process has ended, though its parent may not have waited for it. Known on Linux only; else false. */
export function hasEnded(pid: number): boolean {
  if (!HAS_PROC) return false;
  try {
    const stat = processStat(pid);
    return stat === undefined || isOver(stat.state);
  } catch {
    // No file can be opened: nobody knows.
    return false;
  }
}

/**
 * Pids of the running processes, this one excepted, that were started with every one of `entries` (`NAME=value`) in their
 * environment. Linux only, elsewhere none; other users' processes are seen only by root.
 *
 * @throws Error when no file can be opened (EMFILE): who runs is not known then.
 */
export function processesMarked(entries: readonly string[]): number[] {
  if (!HAS_PROC) return [];
  const wanted = entries.map((entry) => `\0${entry}\0`);
  return processIds().filter((pid) => {
    if (pid === process.pid) return false;
    const environment = `\0${readProc(pid, "environ") ?? ""}`;
    return wanted.every((entry) => environment.includes(entry));
  });
}

/**
 * Sends SIGKILL to every process that `processesMarked` finds, again and again until there is none, for at most
 * `timeoutMs`. Returns the pids that were signalled and those that are still there.
 */
export async function killMarked(
  entries: readonly string[],
  timeoutMs: number,
): Promise<{ killed: number[]; left: number[] }> {
  if (entries.length === 0) throw new RangeError("no marker given: every process would be meant");
  const killed = new Set<number>();
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const left = ifKnown(() => processesMarked(entries));
    if (left === undefined) {
      if (performance.now() > deadline) return { killed: [...killed], left: [] };
      await delay(LOOK_AGAIN_MS);
      continue;
    }
    if (left.length === 0 || performance.now() > deadline) return { killed: [...killed], left };
    for (const pid of left) {
      killed.add(pid);
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // It ended meanwhile, or is not ours to end; the next look tells which.
      }
    }
    await delay(LOOK_AGAIN_MS);
  }
}

function ifKnown<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch {
    // No file can be opened now; the next look may be able to.
    return undefined;
  }
}

function processIds(): number[] {
  return readdirSync("/proc").map(Number).filter(Number.isInteger);
}

function processStat(pid: number): { state: string; pgid: number } | undefined {
  const stat = readProc(pid, "stat");
  if (stat === undefined) return undefined;
  // The name of the program stands in brackets and may hold brackets and spaces itself.
  const [state = "", , pgid] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return { state, pgid: Number(pgid) };
}

function isOver(state: string): boolean {
  return state === "Z" || state === "X";
}

function readProc(pid: number, file: "stat" | "environ"): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/${file}`, "latin1");
  } catch (error) {
    // Without a free file descriptor nothing is known of the process; it must not be taken for one that ended.
    if (isShortage(error)) throw error;
    // It ended, or belongs to somebody else.
    return undefined;
  }
}
