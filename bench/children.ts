import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { inPackage } from "../lib/package-root.ts";
import type { Memory } from "./answer.ts";
import { parseSamples } from "./stats.ts";

const ROOT = inPackage("");
const LOG_LINES_KEPT = 20;
const STOP_MS = 5_000;
const UNTIL_MS = 180_000;

/** What a row works with: a directory on disk, and processes. All of it is gone when this process is. */
export class Workshop {
  /** Beside the installed packages and not under /tmp, which is memory on many machines. */
  readonly dir: string;
  readonly #cpuProfileDir: string | undefined;
  readonly #children = new Set<ChildProcess>();

  /** With `cpuProfileDir` each coordinator and runner leaves a profile of its processor time there. */
  constructor(cpuProfileDir?: string) {
    this.#cpuProfileDir = cpuProfileDir;
    const cache = join(ROOT, "node_modules/.cache");
    mkdirSync(cache, { recursive: true });
    this.dir = mkdtempSync(join(cache, "bench-"));
    process.on("exit", () => this.#clear());
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => process.exit(130));
  }

  #clear(): void {
    for (const child of this.#children) child.kill("SIGKILL");
    rmSync(this.dir, { recursive: true, force: true, maxRetries: 5 });
  }

  /** Where a store can be made. */
  storePath(): string {
    return join(mkdtempSync(join(this.dir, "store-")), "coordinator.db");
  }

  /** A coordinator on a free port, with its store in a file: a new one unless one is named. */
  async coordinator(store = this.storePath(), more: readonly string[] = []): Promise<CoordinatorProcess> {
    const flags = ["--listen", "127.0.0.1:0", "--store", store, "--log-format", "json", ...more];
    const child = this.#start(["--expose-gc", ...this.#profiling(), "coordinator/main.ts"], flags);
    const { url } = await child.logged(/Coordinator listens/);
    return Object.assign(child, { url: String(url), metrics: () => scrape(String(url)) });
  }

  /** A runner that has registered, for executor `command`. */
  async runner(coordinatorUrl: string, command: string, maxRuns: number): Promise<Child> {
    const stateDir = mkdtempSync(join(this.dir, "runner-"));
    const settings = ["--coordinator-url", coordinatorUrl, "--executor-path", command, "--max-runs", String(maxRuns)];
    const places = ["--state-dir", stateDir, "--project-dir", stateDir, "--log-format", "json"];
    const child = this.#start([...this.#profiling(), "runner/main.ts"], [...settings, ...places]);
    await child.logged(/Registered as/);
    return child;
  }

  /** A process that does what helper.ts can. */
  helper(): Child {
    return this.#start(["--expose-gc", "bench/helper.ts"], []);
  }

  #profiling(): string[] {
    return this.#cpuProfileDir === undefined ? [] : ["--cpu-prof", `--cpu-prof-dir=${this.#cpuProfileDir}`];
  }

  #start([...program]: readonly string[], args: readonly string[]): Child {
    const main = join(ROOT, program.pop() ?? "");
    const probe = join(ROOT, "bench/answer.ts");
    const process = spawn(globalThis.process.execPath, [...program, "--import", probe, main, ...args], {
      cwd: this.dir,
      env: plainEnvironment(),
      stdio: ["ignore", "ignore", "pipe", "ipc"],
    });
    this.#children.add(process);
    process.once("exit", () => this.#children.delete(process));
    return new Child(process);
  }
}

/** Without the variables that configure the programs under test, and with the compile cache that their launchers set. */
function plainEnvironment(): NodeJS.ProcessEnv {
  const ours = /^(AGENT_|RUNNER_|PROJECT_DIR$|POLL_TIMEOUT$|HEARTBEAT_INTERVAL$|NODE_)/;
  const rest = Object.entries(process.env).filter(([name]) => !ours.test(name));
  return { ...Object.fromEntries(rest), NODE_COMPILE_CACHE: join(ROOT, "node_modules/.cache/compiled") };
}

export interface CoordinatorProcess extends Child {
  readonly url: string;
  /** Its figures, by name with labels. */
  metrics(): Promise<Map<string, number>>;
}

async function scrape(url: string): Promise<Map<string, number>> {
  return parseSamples(await (await fetch(`${url}/metrics`)).text());
}

/** A process of the bench, and what it can be asked. */
export class Child {
  readonly #process: ChildProcess;
  readonly #log: string[] = [];
  readonly #asked = new Map<number, PromiseWithResolvers<unknown>>();
  readonly #watched: { pattern: RegExp; found: PromiseWithResolvers<Record<string, unknown>> }[] = [];
  #questions = 0;

  constructor(process: ChildProcess) {
    this.#process = process;
    if (process.stderr !== null) createInterface(process.stderr).on("line", (line) => this.#read(line));
    process.on("message", ({ id, answer, error }: { id: number; answer: unknown; error?: string }) => {
      if (error === undefined) this.#asked.get(id)?.resolve(answer);
      else this.#asked.get(id)?.reject(new Error(error));
      this.#asked.delete(id);
    });
    process.once("exit", (code, signal) => this.#fail(`process ended (${code ?? signal})`));
  }

  /** The first line of its log that matches, parsed. Rejects when the process ends. */
  logged(pattern: RegExp): Promise<Record<string, unknown>> {
    const found = Promise.withResolvers<Record<string, unknown>>();
    this.#watched.push({ pattern, found });
    for (const line of this.#log.splice(0)) this.#read(line);
    return found.promise;
  }

  #read(line: string): void {
    this.#log.push(line);
    if (this.#log.length > LOG_LINES_KEPT) this.#log.shift();
    for (const { pattern, found } of this.#watched) if (pattern.test(line)) found.resolve(JSON.parse(line));
  }

  #fail(what: string): void {
    const error = new Error(`${what}; its last words:\n${this.#log.join("\n")}`);
    for (const { reject } of [...this.#asked.values(), ...this.#watched.map(({ found }) => found)]) reject(error);
  }

  /** Asks a question of answer.ts or helper.ts. */
  ask<T>(question: string, input: unknown = {}): Promise<T> {
    const asked = Promise.withResolvers<unknown>();
    const id = this.#questions++;
    this.#asked.set(id, asked);
    this.#process.send({ id, question, input });
    return asked.promise as Promise<T>;
  }

  /** Memory in use, after a garbage collection where the process allows one. */
  memory(): Promise<Memory> {
    return this.ask<Memory>("memory");
  }

  /** Processor time since it started. */
  cpuMs(): Promise<number> {
    return this.ask<number>("cpuMs");
  }

  /** Asks it to end, and ends it when it does not. */
  async stop(): Promise<void> {
    const { exitCode, signalCode } = this.#process;
    if (exitCode !== null || signalCode !== null) return;
    const exit = once(this.#process, "exit");
    this.#process.kill("SIGTERM");
    const kill = setTimeout(() => this.#process.kill("SIGKILL"), STOP_MS);
    await exit;
    clearTimeout(kill);
  }
}

/** Waits until `probe` returns true. @throws Error naming `what` after three minutes. */
export async function until(probe: () => Promise<boolean>, what: string): Promise<void> {
  const deadline = performance.now() + UNTIL_MS;
  while (!(await probe())) {
    if (performance.now() > deadline) throw new Error(`not within ${UNTIL_MS / 1000} s: ${what}`);
    await delay(20);
  }
}
