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

/**
 * Runs `ao` with its arguments. `env` is its whole environment. With `terminal` both streams are one terminal, of so many
 * columns, whose text is also in `stdout`.
 */
export function startAo(
  args: readonly string[],
  env: Record<string, string> = {},
  stdinText = "",
  terminal?: number,
): AoRun {
  const out: string[] = [];
  const err: string[] = [];
  const tty = terminal === undefined ? {} : { isTTY: true, columns: terminal };
  const listeners = new Set<() => void>();
  const exit = main(args, {
    stdin: Object.assign(new PassThrough().end(stdinText), tty),
    stdout: { ...tty, write: (text) => out.push(text) },
    stderr: { ...tty, write: (text) => void (terminal !== undefined && out.push(text), err.push(text)) },
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

/** What a terminal of so many columns is shown by `ao`, without its colours. */
export async function onTerminal(columns: number, args: readonly string[]): Promise<string> {
  const run = startAo(["--color", "never", ...args], {}, "", columns);
  await run.exit;
  return run.stdout();
}
