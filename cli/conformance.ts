import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { EXIT } from "../lib/exit-codes.ts";
import type { ExitCode } from "../lib/exit-codes.ts";
import { ENDS_WITH_STDIN } from "../lib/signals.ts";
import { CliError } from "./errors.ts";
import { programFile } from "./programs.ts";

/** End of its stderr that is kept, for the error of a check that could not be made. */
const STDERR_MAX_CHARS = 16 * 1024;

/** What was seen at a point of the contract. */
export interface PointReport {
  readonly name: string;
  readonly title: string;
  readonly status: "pass" | "fail" | "skip";
  readonly detail: string;
  /** Why it is known to fail; empty when it is not. */
  readonly known: string;
  readonly duration_ms: number;
}

/** What the program says, a line each. */
export type Said =
  | { readonly type: "target"; readonly name: string; readonly path: string; readonly agent: string }
  | ({ readonly type: "point" } & PointReport)
  | { readonly type: "end"; readonly ok: boolean };

type Env = Readonly<Record<string, string | undefined>>;

/**
 * Checks an executor, and tells of each point as soon as it was looked at. Ends early, and in order, when `signal` aborts.
 *
 * @throws CliError when no check can be made.
 */
export async function* checkExecutor(args: readonly string[], env: Env, signal: AbortSignal): AsyncGenerator<Said> {
  for await (const line of linesOf(args, env, signal)) yield JSON.parse(line) as Said;
}

/** The lines of the program. It ends when we do, however we end: its stdin is a pipe that nobody writes to. */
async function* linesOf(args: readonly string[], env: Env, signal: AbortSignal): AsyncGenerator<string> {
  const child = spawn(process.execPath, [programFile("check"), ...args], {
    stdio: "pipe",
    // A terminal's Ctrl+C reaches us alone: the program has a run to end, and to tidy up after it.
    detached: true,
    env: { ...env, [ENDS_WITH_STDIN]: "1" },
  });
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr = (stderr + text).slice(-STDERR_MAX_CHARS)));
  const exited = new Promise<number | null>((resolve, reject) => {
    child.once("error", reject).once("close", (code) => resolve(code));
  });
  const leave = () => void child.stdin.end();
  signal.addEventListener("abort", leave);
  try {
    yield* createInterface({ input: child.stdout });
    const code = await exited;
    if (signal.aborted || code === EXIT.ok || code === EXIT.failed) return;
    throw new CliError(codeOf(code), stderr.trim().replace(/^error: /, "") || `the check ended with ${code}`);
  } finally {
    signal.removeEventListener("abort", leave);
    leave();
    await exited;
  }
}

function codeOf(code: number | null): ExitCode {
  return Object.values(EXIT).find((known) => known === code) ?? EXIT.bug;
}
