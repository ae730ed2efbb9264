import { PassThrough } from "node:stream";
import { main } from "../../cli/main.ts";

/** A running `ao` inside this process, with its own streams. */
export interface AoRun {
  readonly exit: Promise<number>;
  stdout(): string;
  stderr(): string;
  /** What Ctrl+C does. */
  interrupt(): void;
}

/** Runs `ao` with its arguments. `env` is its whole environment. */
export function startAo(args: readonly string[], env: Record<string, string> = {}, stdinText = ""): AoRun {
  const out: string[] = [];
  const err: string[] = [];
  const listeners = new Set<() => void>();
  const exit = main(args, {
    stdin: new PassThrough().end(stdinText),
    stdout: { write: (text) => out.push(text) },
    stderr: { write: (text) => err.push(text) },
    env,
    onInterrupt: (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  });
  return {
    exit,
    stdout: () => out.join(""),
    stderr: () => err.join(""),
    interrupt: () => {
      for (const listener of listeners) listener();
    },
  };
}

/** Runs `ao` to its end. */
export async function ao(args: readonly string[], env: Record<string, string> = {}, stdinText = "") {
  const run = startAo(args, env, stdinText);
  const exitCode = await run.exit;
  return { exitCode, stdout: run.stdout(), stderr: run.stderr() };
}
