import { spawn } from "node:child_process";
import type { ChildProcess, StdioOptions } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { constants } from "node:os";
import { setTimeout as delay } from "node:timers/promises";
import { EXIT } from "../lib/exit-codes.ts";
import { ENDS_WITH_STDIN } from "../lib/signals.ts";
import { CliError } from "./errors.ts";
import { programFile } from "./programs.ts";
import type { ProgramName } from "./programs.ts";

/** A coordinator or runner that was started as a process of its own. */
export interface Child {
  readonly program: ProgramName;
  readonly process: ChildProcess;
  /** Its exit code, or 128 + the number of the signal that ended it, once it has ended. */
  readonly exited: Promise<number>;
  /** Undefined while it runs. */
  exitCode(): number | undefined;
}

/** How a child is started. */
export interface ChildOptions {
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** stdout and stderr; by default both go to our stderr, and stdout stays ours alone. */
  readonly output?: number;
  /** A child that this one works with, and that is to outlive it. */
  readonly servedBy?: Child;
  /** True for a process group of its own, which a terminal's Ctrl+C does not reach. */
  readonly detached?: boolean;
}

/**
 * Starts a coordinator or a runner under the Node that runs us. It ends when we do, however we end: its stdin is a pipe
 * that nobody writes to, and whose other end is held by us and by the children that it serves.
 *
 * @throws ProgramMissing
 */
export function startChild(program: ProgramName, args: readonly string[], options: ChildOptions = {}): Child {
  const { output = 2, servedBy, env = process.env, ...rest } = options;
  const held = servedBy?.process.stdin;
  const stdio: StdioOptions = ["pipe", output, output, ...(held ? [held] : [])];
  const child = spawn(process.execPath, [programFile(program), ...args], {
    ...rest,
    stdio,
    env: { ...env, [ENDS_WITH_STDIN]: "1" },
  });
  const exited = once(child, "exit").then(([code, signal]) => codeOf(code as number | null, signal as string | null));
  return {
    program,
    process: child,
    exited,
    exitCode: () => {
      const { exitCode, signalCode } = child;
      return exitCode === null && signalCode === null ? undefined : codeOf(exitCode, signalCode);
    },
  };
}

function codeOf(code: number | null, signal: string | null): number {
  if (code !== null) return code;
  return 128 + (constants.signals[signal as NodeJS.Signals] ?? 0);
}

/**
 * Waits until the coordinator answers on its /health page.
 *
 * @throws CliError with the child's exit code when it ends before that; `unreachable` after `timeoutMs`.
 */
export async function untilHealthy(url: string, coordinator: Child, timeoutMs = 15_000): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const code = coordinator.exitCode();
    if (code !== undefined) throw new ChildEnded("coordinator", code);
    if (await answers(url)) return;
    if (performance.now() > deadline) throw new CliError(EXIT.unreachable, `no coordinator answers at ${url}`);
    await delay(20);
  }
}

/** True when a coordinator answers there. */
export async function answers(url: string): Promise<boolean> {
  try {
    const { ok } = await fetch(`${url}/health`, { signal: AbortSignal.timeout(2_000) });
    return ok;
  } catch {
    // Nothing listens there yet, or something that does not speak HTTP.
    return false;
  }
}

/** A child ended by itself while it was needed; it has said why on stderr. */
export class ChildEnded extends Error {
  override readonly name = "ChildEnded";
  readonly exitCode: number;
  constructor(program: Child["program"], exitCode: number) {
    super(`the ${program} ended with code ${exitCode}`);
    this.exitCode = exitCode;
  }
}

/**
 * The port, or a free one when it is 0. Between this look and the start of a server another program can take it, and then
 * that server says so itself.
 *
 * @throws the system's error, such as EADDRINUSE.
 */
export async function claimPort(host: string, port: number): Promise<number> {
  const server = createServer();
  server.listen(port, host);
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  return typeof address === "object" && address !== null ? address.port : port;
}

/** Ends a child: SIGTERM, again after `graceMs` for a program that drains first, and SIGKILL after as long again. */
export async function endChild(child: Child, graceMs: number): Promise<number> {
  for (const signal of ["SIGTERM", "SIGTERM", "SIGKILL"] as const) {
    if (child.exitCode() !== undefined) break;
    child.process.kill(signal);
    const timer = new AbortController();
    await Promise.race([child.exited, delay(graceMs, undefined, { signal: timer.signal }).catch(() => undefined)]);
    timer.abort();
  }
  return child.exited;
}
