import { spawn } from "node:child_process";

/** How long a program that has ended may leave its output open, because something that it started holds it. */
const OUTPUT_REST_MS = 500;

export interface ProgramQuestion {
  readonly program: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd?: string;
  readonly timeoutMs: number;
  /** What comes after so many bytes is not kept. */
  readonly maxBytes: number;
}

export type ProgramAnswer =
  /** stdout and stderr in the order in which they came. */
  | { readonly type: "ended"; readonly code: number | null; readonly signal: string | null; readonly output: string }
  | { readonly type: "not-started"; readonly message: string }
  /** It was killed, with everything in its process group. */
  | { readonly type: "too-slow" };

/** Starts a program without stdin and waits for its end, up to a deadline. Never rejects. */
export function programOutput(question: ProgramQuestion): Promise<ProgramAnswer> {
  const { program, args, env, cwd, timeoutMs, maxBytes } = question;
  return new Promise((resolve) => {
    // A group of its own: a wrapper is ended together with what it wraps.
    const child = spawn(program, args, {
      env: { ...env },
      ...(cwd !== undefined && { cwd }),
      stdio: ["ignore", "pipe", "pipe"],
      detached: true,
    });
    const chunks: Buffer[] = [];
    let bytes = 0;
    let rest: NodeJS.Timeout | undefined;
    const settle = (answer: ProgramAnswer): void => {
      clearTimeout(deadline);
      clearTimeout(rest);
      child.stdout.destroy();
      child.stderr.destroy();
      resolve(answer);
    };
    const deadline = setTimeout(() => {
      killGroup(child.pid);
      settle({ type: "too-slow" });
    }, timeoutMs);
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (chunk: Buffer) => {
        if (bytes < maxBytes) chunks.push(chunk.subarray(0, maxBytes - bytes));
        bytes += chunk.length;
      });
    }
    const ended = (code: number | null, signal: string | null): void =>
      settle({ type: "ended", code, signal, output: Buffer.concat(chunks).toString("utf8") });
    child.once("error", (error) => settle({ type: "not-started", message: error.message }));
    child.once("exit", (code, signal) => {
      rest = setTimeout(() => ended(code, signal), OUTPUT_REST_MS);
    });
    child.once("close", ended);
  });
}

function killGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, "SIGKILL");
  } catch (error) {
    // It has ended meanwhile.
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}
