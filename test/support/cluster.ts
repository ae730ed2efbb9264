import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { createWriteStream, mkdirSync } from "node:fs";
import { join } from "node:path";
import { freePort } from "./free-port.ts";
import { until } from "./until.ts";
import { inRepository } from "./paths.ts";

const ROOT = inRepository("");

/** Timings that make what takes minutes in production take seconds in a test. */
const FAST = [
  ...["--lease-ttl", "1500ms", "--heartbeat", "300ms", "--accept-deadline", "1s", "--restart-grace", "2500ms"],
  ...["--stream-keepalive", "300ms", "--reconnect-min", "20ms", "--reconnect-max", "200ms", "--stop-grace", "500ms"],
];

/** One of our programs as a process of its own, in its own group, that can be killed and started again. */
export class Program {
  readonly #file: string;
  readonly #args: readonly string[];
  readonly #logPath: string;
  readonly #env: NodeJS.ProcessEnv;
  readonly #nodeArgs: readonly string[];
  #child: ChildProcess | undefined;

  constructor(
    file: string,
    args: readonly string[],
    logPath: string,
    env: NodeJS.ProcessEnv = process.env,
    nodeArgs: readonly string[] = [],
  ) {
    this.#file = join(ROOT, file);
    this.#args = args;
    this.#logPath = logPath;
    this.#env = env;
    this.#nodeArgs = nodeArgs;
  }

  start(): void {
    const log = createWriteStream(this.#logPath, { flags: "a" });
    const child = spawn(process.execPath, [...this.#nodeArgs, this.#file, ...this.#args], {
      stdio: ["ignore", "pipe", "pipe"],
      detached: true,
      env: this.#env,
    });
    child.stdout.pipe(log, { end: false });
    child.stderr.pipe(log, { end: false });
    this.#child = child;
  }

  get running(): boolean {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  get exitCode(): number | null | undefined {
    return this.#child?.exitCode;
  }

  /** Sends the signal to the process alone. */
  signal(signal: NodeJS.Signals): void {
    if (this.running) this.#child?.kill(signal);
  }

  /** Sends the signal to the process alone, and waits until it has ended. */
  async end(signal: "SIGKILL" | "SIGTERM"): Promise<void> {
    const child = this.#child;
    if (child === undefined || !this.running) return;
    const exited = once(child, "exit");
    child.kill(signal);
    await exited;
  }
}

/** A runner of a cluster. */
export interface RunnerPlan {
  readonly executorPath: string;
  readonly maxRuns: number;
  readonly tags?: readonly string[];
}

/** A coordinator and runners as processes, all of whose files are below one folder. */
export class Cluster {
  readonly url: string;
  readonly coordinator: Program;
  readonly runners: Program[];
  readonly #dir: string;

  private constructor(dir: string, port: number, runners: readonly RunnerPlan[]) {
    this.#dir = dir;
    this.url = `http://127.0.0.1:${port}`;
    const store = ["--store", join(dir, "store.db"), "--listen", `127.0.0.1:${port}`, "--log-format", "json"];
    this.coordinator = new Program("coordinator/main.ts", [...store, ...FAST], join(dir, "coordinator.log"));
    this.runners = runners.map((plan, i) => this.#runner(i, plan));
  }

  #runner(index: number, { executorPath, maxRuns, tags = [] }: RunnerPlan): Program {
    const project = join(this.#dir, "project");
    mkdirSync(project, { recursive: true });
    const args = [
      ...["--coordinator-url", this.url, "--executor-path", executorPath, "--max-runs", String(maxRuns)],
      ...["--name", `r${index}`, "--state-dir", join(this.#dir, "state"), "--project-dir", project],
      ...["--pass-env", "CHAOS_DIR", "--log-format", "json", ...tags.flatMap((tag) => ["--tag", tag])],
    ];
    return new Program("runner/main.ts", args, join(this.#dir, `runner-${index}.log`), {
      ...process.env,
      CHAOS_DIR: this.#dir,
    });
  }

  static async start(dir: string, runners: readonly RunnerPlan[]): Promise<Cluster> {
    const cluster = new Cluster(dir, await freePort(), runners);
    cluster.coordinator.start();
    await cluster.ready();
    for (const runner of cluster.runners) runner.start();
    return cluster;
  }

  async ready(): Promise<void> {
    await until(() => this.#isReady(), `the coordinator at ${this.url} is ready`);
  }

  async #isReady(): Promise<boolean> {
    try {
      return (await fetch(`${this.url}/ready`)).ok;
    } catch {
      return false;
    }
  }

  async stop(): Promise<void> {
    await Promise.all(this.runners.map((runner) => runner.end("SIGKILL")));
    await this.coordinator.end("SIGKILL");
  }
}
