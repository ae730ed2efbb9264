import { closeSync, openSync, readFileSync } from "node:fs";
import { constants } from "node:os";

/**
 * Signals of this time count as one: a terminal, a supervisor and a wrapper may each pass on the one that somebody sent.
 */
export const SIGNAL_WINDOW_MS = 1_000;

/** Set by bin/launch.sh for a program that was started with SIGHUP ignored, as by nohup: Node itself forgets it. */
export const HUP_IGNORED = "AO_HUP_IGNORED";

/** Set for a program whose stdin is a pipe of the program that started it, and ends with that one. */
export const ENDS_WITH_STDIN = "AO_ENDS_WITH_STDIN";

/** Pause between two looks at who the parent is. */
const LOOK_AT_PARENT_MS = 500;

/** Counts signals, those of one second once. */
export class SignalCount {
  #count = 0;
  #countedAtMs = -Infinity;

  /** The number of this signal, from 1; undefined when it belongs to the one before it. */
  next(nowMs: number): number | undefined {
    if (nowMs - this.#countedAtMs < SIGNAL_WINDOW_MS) return undefined;
    this.#countedAtMs = nowMs;
    this.#count += 1;
    return this.#count;
  }
}

/** Hears of each request to end: which it is, counted from 1, what asked, and the exit code of a process that it ends. */
export type OnEnd = (count: number, cause: string, exitCode: number) => void;

export interface SignalOptions {
  /** Hears of SIGHUP in a program that no terminal belongs to: it asks to read files again. */
  readonly onReload?: () => void;
  readonly env?: NodeJS.ProcessEnv;
  /** Whether the program was started from a terminal, of whose end SIGHUP then tells. */
  readonly terminal?: boolean;
}

/**
 * Calls `onEnd` for SIGTERM and SIGINT, for each second once, and when the program is gone that started this one to be ended
 * with it; for SIGHUP as well, unless `onReload` hears of it. SIGHUP does nothing when it was ignored at the start. Returns
 * what undoes it.
 */
export function onEndSignals(
  onEnd: OnEnd,
  { onReload, env = process.env, terminal = hasTerminal() }: SignalOptions = {},
): () => void {
  const count = new SignalCount();
  const end = (cause: string, exitCode: number): void => {
    const number = count.next(performance.now());
    if (number !== undefined) onEnd(number, cause, exitCode);
  };
  const onSignal = (signal: NodeJS.Signals): void => {
    if (signal === "SIGHUP" && env[HUP_IGNORED] !== undefined) return;
    if (signal === "SIGHUP" && onReload !== undefined && !terminal) return onReload();
    end(signal, 128 + constants.signals[signal]);
  };
  const signals = ["SIGTERM", "SIGINT", "SIGHUP"] as const;
  for (const signal of signals) process.on(signal, onSignal);
  const forget = whenParentGone(() => end("the end of what started it", 128 + constants.signals.SIGTERM), env);
  return () => {
    for (const signal of signals) process.off(signal, onSignal);
    forget();
  };
}

/** Whether this process has a terminal that can hang up. Asked at the start: afterwards it is gone. */
function hasTerminal(): boolean {
  try {
    closeSync(openSync("/dev/tty", "r"));
    return true;
  } catch {
    return false;
  }
}

function whenParentGone(onGone: () => void, env: NodeJS.ProcessEnv): () => void {
  if (env[ENDS_WITH_STDIN] !== undefined) return whenStdinEnds(onGone);
  const parent = process.ppid;
  // A shell may end before its jobs do, and they go on; npm is only there for the program that it starts.
  if (!isNpm(parent)) return () => undefined;
  const timer = setInterval(() => {
    if (process.ppid === parent) return;
    clearInterval(timer);
    onGone();
  }, LOOK_AT_PARENT_MS).unref();
  return () => clearInterval(timer);
}

function whenStdinEnds(onGone: () => void): () => void {
  const { stdin } = process;
  // A pipe that breaks has ended as well.
  stdin.on("error", onGone);
  stdin.on("end", onGone);
  stdin.resume();
  stdin.unref();
  return () => {
    stdin.off("error", onGone);
    stdin.off("end", onGone);
    stdin.pause();
  };
}

/** Whether a process is npm or npx. Known on Linux only. */
function isNpm(pid: number): boolean {
  try {
    const [name = "", script = ""] = readFileSync(`/proc/${pid}/cmdline`, "latin1").split("\0");
    return /^(npm|npx)\b/.test(name) || /\b(npm|npx)(-cli\.js)?$/.test(script);
  } catch {
    // No /proc, or the parent is gone already.
    return false;
  }
}
