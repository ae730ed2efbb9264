import { spawn } from "node:child_process";
import { dirname } from "node:path";
import { text } from "node:stream/consumers";
import { inRepository } from "../support/paths.ts";

export const TEST_EXECUTOR = inRepository("executors/test-executor/ao-test-exec");

export interface Ended {
  code: number | null;
  signal: string | null;
  stdout: string;
  stderr: string;
}

export interface Started {
  /** Also the id of its process group. */
  pid: number;
  /** What it has printed so far. */
  stdout: () => string;
  kill: (signal: NodeJS.Signals) => void;
  /** Stops reading what it prints. */
  hangUp: () => void;
  /** Settles with its streams read to their end. */
  ended: Promise<Ended>;
}

export interface StartOptions {
  env?: Record<string, string>;
  cwd?: string;
}

const started = new Set<number>();

/** Starts a program as a runner does: in a process group of its own, our Node first on PATH, the invocation on stdin. */
export function start([command, ...args]: [string, ...string[]], stdin: string, options: StartOptions = {}): Started {
  const env = {
    PATH: `${dirname(process.execPath)}:${process.env["PATH"]}`,
    HOME: process.env["HOME"],
    ...options.env,
  };
  const child = spawn(command, args, { ...options, env, detached: true });
  const pid = child.pid;
  if (pid === undefined) throw new Error(`${command} cannot be started`);
  started.add(pid);
  let stdout = "";
  child.stdout.setEncoding("utf8").on("data", (chunk: string) => (stdout += chunk));
  const stderr = text(child.stderr);
  child.stdin.on("error", () => {}).end(stdin);
  const ended = new Promise<Ended>((resolve, reject) => {
    child.once("error", reject).once("close", (code, signal) => {
      stderr.then((stderr) => resolve({ code, signal, stdout, stderr }), reject);
    });
  });
  return {
    pid,
    stdout: () => stdout,
    kill: (signal) => child.kill(signal),
    hangUp: () => child.stdout.destroy(),
    ended,
  };
}

/** Kills every process group that start made and that still lives. For afterEach. */
export function killStarted(): void {
  for (const pid of started) if (isAlive(-pid)) process.kill(-pid, "SIGKILL");
  started.clear();
}

/** Whether a process, or the group of a negative id, exists. */
export function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

/** An invocation with this prompt, as a runner writes it. */
export function invocationOf(prompt: string, change: object = {}): string {
  const document = {
    schema_version: "2.0",
    mode: "start",
    session_id: "ses_1",
    prompt,
    project_dir: "/",
    metadata: {},
    ...change,
  };
  return `${JSON.stringify(document)}\n`;
}
