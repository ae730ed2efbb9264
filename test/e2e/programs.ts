import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, realpathSync, rmSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { constants, tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { processesMarked } from "../../runner/execution/processes.ts";
import { until } from "../support/until.ts";
import { inRepository } from "../support/paths.ts";

export const ROOT = inRepository("");

const MAIN = {
  ao: "cli/main.ts",
  "agent-runner": "runner/main.ts",
  "agent-coordinator": "coordinator/main.ts",
} as const;
type Program = keyof typeof MAIN;

/** Timings that make what takes minutes in production take seconds in a test. A third of the lease is no whole millisecond. */
const FAST = [
  ...["--lease-ttl", "2s", "--heartbeat", "300ms", "--accept-deadline", "2s", "--restart-grace", "3s"],
  ...["--stream-keepalive", "300ms", "--reconnect-min", "20ms", "--reconnect-max", "200ms", "--stop-grace", "500ms"],
];

/** How a program ended and what it said. */
export interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A program that was started as a user starts it. */
export interface Running {
  readonly pid: number;
  /** Its exit code, or 128 + the number of the signal that ended it. */
  readonly ended: Promise<Ended>;
  stdout(): string;
  stderr(): string;
  /** Sends the signal to the process alone, and waits for its exit code. */
  end(signal: NodeJS.Signals): Promise<number>;
  /** Waits until it has said this, on either stream; throws with all that it said when it ends first. */
  says(words: RegExp): Promise<RegExpExecArray>;
}

export interface RunningCoordinator extends Running {
  readonly url: string;
  readonly port: number;
}

export interface RunningRunner extends Running {
  readonly runnerId: string;
}

interface StartOptions {
  readonly cwd?: string;
  readonly env?: Record<string, string>;
  readonly stdin?: string;
}

/** Skips a test, and prints why: vitest shows no reasons by itself. */
export function skipAloud(skip: (reason: string) => never, reason: string): never {
  process.stderr.write(`skipped: ${reason}\n`);
  return skip(reason);
}

/** The executors beside this file. */
export function executor(name: string): string {
  return join(ROOT, "test/e2e/executors", name);
}

/** Calls one of our services as `curl -d` does. Returns the HTTP status, and the JSON with the names of the .proto files. */
export async function curl(url: string, rpc: string, body: object | string): Promise<{ status: number; answer: any }> {
  const response = await fetch(`${url}/agentrunner.v1.${rpc}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: typeof body === "string" ? body : JSON.stringify(body),
  });
  return { status: response.status, answer: await response.json() };
}

/** As `curl`, for calls that succeed; throws when one does not. */
export async function call(url: string, rpc: string, body: object): Promise<any> {
  const { status, answer } = await curl(url, rpc, body);
  if (status !== 200) throw new Error(`${rpc} answers ${status}: ${JSON.stringify(answer)}`);
  return answer;
}

/** The run, once it is in that state. */
export function runUntil(url: string, runId: string, state: string): Promise<any> {
  return until(async () => {
    const { run } = await call(url, "RunService/GetRun", { run_id: runId });
    return run.state === `RUN_STATE_${state}` && run;
  }, `${runId} is ${state}`);
}

/** A home of its own for programs, which all are gone, and it too, after `close`. */
export class Home {
  readonly dir = realpathSync(mkdtempSync(join(tmpdir(), "agent-runner-e2e-")));
  readonly #children: ChildProcess[] = [];

  /** A path in this home. */
  path(...names: string[]): string {
    return join(this.dir, ...names);
  }

  /** Starts a command with this home, in a process group of its own. Programs find ours through `npx`, as in the README. */
  start([command, ...args]: readonly [string, ...string[]], { cwd, env, stdin }: StartOptions = {}): Running {
    const path = [join(ROOT, "test/e2e/path"), dirname(process.execPath), process.env["PATH"]].join(delimiter);
    const child = spawn(command, args, {
      cwd: cwd ?? this.dir,
      env: { PATH: path, HOME: this.dir, TMPDIR: this.dir, ...env },
      stdio: ["pipe", "pipe", "pipe"],
      detached: true,
    });
    this.#children.push(child);
    child.stdin.on("error", () => undefined).end(stdin ?? "");
    return running(child, [command, ...args].join(" "));
  }

  /** Starts one of our programs. */
  open(program: Program, args: readonly string[], options?: StartOptions): Running {
    return this.start([process.execPath, join(ROOT, MAIN[program]), ...args], options);
  }

  /** Runs one of our programs to its end. */
  run(program: Program, args: readonly string[], options?: StartOptions): Promise<Ended> {
    return this.open(program, args, options).ended;
  }

  /** Starts a coordinator on a free port, or on that of the one before it, with a store in this home. */
  async coordinator(flags: readonly string[] = [], port = 0): Promise<RunningCoordinator> {
    const places = ["--listen", `127.0.0.1:${port}`, "--store", this.path("store.db")];
    const program = this.open("agent-coordinator", [...places, ...FAST, ...flags]);
    const [, url = ""] = await program.says(/Coordinator listens on (http:[^;]+);/);
    return { ...program, url, port: Number(new URL(url).port) };
  }

  /** Starts a runner whose runs work in `project`, and waits until it is registered. */
  async runner(coordinator: { url: string }, flags: readonly string[], options?: StartOptions): Promise<RunningRunner> {
    await mkdir(this.path("project"), { recursive: true });
    const places = ["--coordinator-url", coordinator.url, "--project-dir", this.path("project")];
    const program = this.open("agent-runner", [...places, ...flags], options);
    const [, runnerId = ""] = await program.says(/Registered as (lnch_\w+)/);
    return { ...program, runnerId };
  }

  /** Kills every process that was started here, with its group and with what left its group. */
  async close(): Promise<void> {
    const left = this.#children.splice(0);
    for (const { pid } of left) if (pid !== undefined) kill(-pid);
    for (const pid of processesMarked([`HOME=${this.dir}`])) kill(pid);
    await until(() => left.every(hasEnded), "every program has ended");
    rmSync(this.dir, { recursive: true, force: true });
  }
}

function running(child: ChildProcess, name: string): Running {
  const { pid } = child;
  if (pid === undefined) throw new Error(`${name} cannot be started`);
  let stdout = "";
  let stderr = "";
  child.stdout?.setEncoding("utf8").on("data", (text: string) => (stdout += text));
  child.stderr?.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  const exited = new Promise<number>((resolve) => {
    child.once("exit", (code, signal) => resolve(code ?? 128 + (signal === null ? 0 : constants.signals[signal])));
  });
  const closed = once(child, "close");
  const ended = exited.then(async (code) => {
    await closed;
    return { code, stdout, stderr };
  });
  const said = (words: RegExp): RegExpExecArray | null => {
    const found = words.exec(stdout) ?? words.exec(stderr);
    if (found === null && hasEnded(child)) throw new Error(`${name} ended:\n${stdout}${stderr}`);
    return found;
  };
  return {
    pid,
    ended,
    stdout: () => stdout,
    stderr: () => stderr,
    end: (signal) => {
      child.kill(signal);
      return exited;
    },
    says: (words) => until(() => said(words), `${name} says ${words}`),
  };
}

function hasEnded({ exitCode, signalCode }: ChildProcess): boolean {
  return exitCode !== null || signalCode !== null;
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has ended.
  }
}
