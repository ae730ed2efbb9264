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
 * @param after looks only at processes that were started after this pid, which is much cheaper.
 *
 * @throws Error when no file can be opened (EMFILE): who runs is not known then.
 */
export function processesMarked(entries: readonly string[], after?: number): number[] {
  if (!HAS_PROC) return [];
  const wanted = entries.map((entry) => `\0${entry}\0`);
  return (after === undefined ? processIds() : youngerThan(after)).filter((pid) => {
    if (pid === process.pid) return false;
    const environment = `\0${readProc(pid, "environ") ?? ""}`;
    return wanted.every((entry) => environment.includes(entry));
  });
}

/** What to end, and how long to wait. Times in milliseconds. */
export interface MarkedTerms {
  /** Time from SIGTERM to SIGKILL. Absent: SIGKILL at once. */
  readonly graceMs?: number;
  /** Time for all of it. */
  readonly timeoutMs: number;
  /** As for `processesMarked`. */
  readonly after?: number | undefined;
}

export interface MarkedProcess {
  readonly pid: number;
  /** Of its program, as the system knows it. */
  readonly name: string;
}

export interface Ended {
  /** Those that were signalled and are gone. */
  readonly ended: readonly MarkedProcess[];
  /** Those that are still there. */
  readonly left: readonly MarkedProcess[];
}

/** Ends every process that `processesMarked` finds: looks again and again until there is none, or the time is over. */
export async function endMarked(
  entries: readonly string[],
  { graceMs, timeoutMs, after }: MarkedTerms,
): Promise<Ended> {
  if (entries.length === 0) throw new RangeError("no marker given: every process would be meant");
  const signalled = new Map<number, MarkedProcess>();
  const begin = performance.now();
  for (;;) {
    const now = performance.now() - begin;
    const there = ifKnown(() => processesMarked(entries, after));
    if (there?.length === 0 || now > timeoutMs) {
      const left = (there ?? []).map(named);
      const isLeft = ({ pid }: MarkedProcess) => left.some((one) => one.pid === pid);
      return { ended: [...signalled.values()].filter((one) => !isLeft(one)), left };
    }
    const isOver = graceMs === undefined || now >= graceMs;
    for (const pid of there ?? []) {
      const before = signalled.get(pid);
      // SIGTERM once, SIGKILL as often as it takes.
      if (before !== undefined && !isOver) continue;
      signalled.set(pid, before ?? named(pid));
      send(pid, isOver ? "SIGKILL" : "SIGTERM");
    }
    await delay(LOOK_AGAIN_MS);
  }
}

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It ended meanwhile, or is not ours to end; the next look tells which.
  }
}

function named(pid: number): MarkedProcess {
  return { pid, name: ifKnown(() => processStat(pid)?.name) ?? "" };
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

/** So many pids are asked for one by one; the list of all is read for more. */
const FEW_PIDS = 256;

/** Processes that may have been started after this one. Cheap where few were: this is asked at the end of every run. */
function youngerThan(after: number): number[] {
  const last = lastPid();
  // The kernel counts pids up, and begins again at the end: then the younger ones are below, too.
  if (last === undefined || last < after) return processIds();
  if (last - after > FEW_PIDS) return processIds().filter((pid) => pid > after);
  const pids = Array.from({ length: last - after }, (_, i) => after + 1 + i);
  return pids.filter((pid) => existsSync(`/proc/${pid}`) && leaderOf(pid) === pid);
}

/** The process that the number belongs to: a thread has one of its own, under which its process is found too. */
function leaderOf(pid: number): number | undefined {
  const leader = /^Tgid:\s*(\d+)/m.exec(readProc(pid, "status") ?? "")?.[1];
  return leader === undefined ? undefined : Number(leader);
}

/** The pid that was given last; undefined when it cannot be read. */
function lastPid(): number | undefined {
  const last = Number(readFileSync("/proc/loadavg", "latin1").trim().split(" ").at(-1));
  return Number.isInteger(last) ? last : undefined;
}

function processStat(pid: number): { name: string; state: string; pgid: number } | undefined {
  const stat = readProc(pid, "stat");
  if (stat === undefined) return undefined;
  // The name of the program stands in brackets and may hold brackets and spaces itself.
  const end = stat.lastIndexOf(")");
  const [state = "", , pgid] = stat.slice(end + 2).split(" ");
  return { name: stat.slice(stat.indexOf("(") + 1, end), state, pgid: Number(pgid) };
}

function isOver(state: string): boolean {
  return state === "Z" || state === "X";
}

function readProc(pid: number, file: "stat" | "status" | "environ"): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/${file}`, "latin1");
  } catch (error) {
    // Without a free file descriptor nothing is known of the process; it must not be taken for one that ended.
    if (isShortage(error)) throw error;
    // It ended, or belongs to somebody else.
    return undefined;
  }
}
