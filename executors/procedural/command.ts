import { spawn } from "node:child_process";
import type { ChildProcessByStdio } from "node:child_process";
import { statSync } from "node:fs";
import type { Readable, Writable } from "node:stream";
import { AgentError } from "../lib/agent/agent-error.ts";
import { Kept, STDERR_MAX_BYTES, STDOUT_MAX_BYTES } from "./output.ts";

/** Between the request to end and the end by force; less than a runner's grace, so that ours is over first. */
const GRACE_MS = 5_000;

/** How long what the command left behind may hold its output open. */
const REST_MS = 2_000;

/** End of stderr that is kept for the message of a run that fails. */
const STDERR_TAIL_BYTES = 2 * 1024;

export interface Command {
  readonly program: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
  readonly stdin: string;
  /** 0: none. */
  readonly timeoutMs: number;
}

export interface CommandEnd {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** Why it was ended from outside, if it was. */
  readonly endedBy: "timeout" | "stop" | undefined;
  readonly stdout: Kept;
  readonly stderr: Kept;
  readonly stderrTail: string;
}

type Child = ChildProcessByStdio<Writable, Readable, Readable>;

/**
 * Runs the command in a process group of its own, so that a timeout ends all of it and not us. A stop is handed on to the
 * group. Its stderr is passed on as it comes.
 * @throws AgentError when it cannot be started.
 */
export async function runCommand(command: Command): Promise<CommandEnd> {
  const { program, args, env, cwd, stdin } = command;
  checkDirectory(cwd);
  const child = spawn(program, args, { cwd, env: { ...env }, stdio: ["pipe", "pipe", "pipe"], detached: true });
  const { pid } = child;
  if (pid === undefined) throw await notStarted(program, child);
  // A command may end without reading all of it.
  child.stdin.on("error", () => undefined);
  child.stdin.end(stdin);
  return ended(child, pid, command.timeoutMs);
}

function ended(child: Child, pid: number, timeoutMs: number): Promise<CommandEnd> {
  const stdout = new Kept(STDOUT_MAX_BYTES);
  const stderr = new Kept(STDERR_MAX_BYTES);
  let tail = Buffer.alloc(0);
  let endedBy: CommandEnd["endedBy"];
  const timers: NodeJS.Timeout[] = [];
  const end = (why: "timeout" | "stop"): void => {
    endedBy ??= why;
    signalGroup(pid, "SIGTERM");
    timers.push(setTimeout(() => signalGroup(pid, "SIGKILL"), GRACE_MS));
  };
  const stop = (): void => end("stop");
  process.on("SIGTERM", stop).on("SIGINT", stop);
  if (timeoutMs > 0) timers.push(setTimeout(() => end("timeout"), timeoutMs));
  child.stdout.on("data", (chunk: Buffer) => stdout.push(chunk));
  child.stderr.on("data", (chunk: Buffer) => {
    stderr.push(chunk);
    tail = Buffer.concat([tail, chunk]).subarray(-STDERR_TAIL_BYTES);
    if (process.stderr.write(chunk)) return;
    child.stderr.pause();
    process.stderr.once("drain", () => child.stderr.resume());
  });
  return new Promise((resolve) => {
    // What it started may hold the pipes open, and is ended with it.
    child.once("exit", () => {
      timers.push(
        setTimeout(() => {
          signalGroup(pid, "SIGKILL");
          child.stdout.destroy();
          child.stderr.destroy();
        }, REST_MS),
      );
    });
    child.once("close", (code, signal) => {
      process.off("SIGTERM", stop).off("SIGINT", stop);
      for (const timer of timers) clearTimeout(timer);
      signalGroup(pid, "SIGKILL");
      resolve({ code, signal, endedBy, stdout, stderr, stderrTail: tail.toString("utf8").trim() });
    });
  });
}

function checkDirectory(cwd: string): void {
  if (statSync(cwd, { throwIfNoEntry: false })?.isDirectory() === true) return;
  throw new AgentError(
    "PROJECT_DIR_GONE",
    `the directory ${cwd} does not exist; create it, or correct "cwd" of config`,
  );
}

async function notStarted(program: string, child: Child): Promise<AgentError> {
  const error = await new Promise<NodeJS.ErrnoException>((resolve) => child.once("error", resolve));
  const why: Readonly<Record<string, string>> = {
    ENOENT: "does not exist, neither as a path nor on PATH",
    EACCES: "is not executable: chmod +x it",
    E2BIG: "was handed more arguments than the system allows: put large parameters into files",
    ENOEXEC: "has no #! line and is no program",
  };
  const reason = error.code === "ENOENT" ? "AGENT_NOT_INSTALLED" : "AGENT_FAILED";
  return new AgentError(
    reason,
    `the command ${program} ${why[error.code ?? ""] ?? `could not be started: ${error.message}`}`,
    {
      cause: error,
    },
  );
}

function signalGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch (error) {
    // ESRCH: all of it has ended. EPERM: on macOS the same, while its leader is not waited for yet.
    const { code } = error as NodeJS.ErrnoException;
    if (code !== "ESRCH" && code !== "EPERM") throw error;
  }
}
