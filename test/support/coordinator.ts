import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createClient } from "@connectrpc/connect";
import type { Client } from "@connectrpc/connect";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { servicesOver } from "../../client/connect.ts";
import type { Services } from "../../client/connect.ts";
import { COORDINATOR_TABLE } from "../../coordinator/config.ts";
import type { CoordinatorConfig } from "../../coordinator/config.ts";
import type { Reading } from "../../coordinator/core/grace.ts";
import { startCoordinator } from "../../coordinator/start.ts";
import type { RunningCoordinator } from "../../coordinator/start.ts";
import type { Store } from "../../coordinator/store/store.ts";
import { RunState } from "../../gen/agentrunner/v1/run_pb.ts";
import type { Run } from "../../gen/agentrunner/v1/run_pb.ts";
import type { CreateRunRequestSchema, WatchRunResponse } from "../../gen/agentrunner/v1/run_service_pb.ts";
import { RunnerService } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import { createLogger } from "../../lib/log.ts";
import { connectTransport } from "../../lib/rpc/transport.ts";
import type { CoordinatorLink } from "../../lib/rpc/transport.ts";
import { until } from "./until.ts";

export type StateName = keyof typeof RunState;
export type NewRun = MessageInitShape<typeof CreateRunRequestSchema>;

type Defaults = { [K in keyof CoordinatorConfig]: CoordinatorConfig[K] };

/** Nothing lapses unless a test shortens it: the machine may be busy. No grace after a start. */
const SETTINGS: Partial<CoordinatorConfig> = {
  listen: { host: "127.0.0.1", port: 0 },
  memory: true,
  leaseTtlMs: 60_000,
  heartbeatMs: 10_000,
  acceptDeadlineMs: 60_000,
  restartGraceMs: 0,
  noMatchTimeoutMs: 500_000,
  logLevel: "trace",
  logFormat: "json",
};

function settings(overrides: Partial<CoordinatorConfig>): CoordinatorConfig {
  const defaults = Object.entries(COORDINATOR_TABLE).map(([key, { default: value }]) => [key, value]);
  return { ...(Object.fromEntries(defaults) as Defaults), ...SETTINGS, ...overrides };
}

const running = new Set<TestCoordinator>();
const directories: string[] = [];

/** A directory that is gone after the test. */
export function tempDir(): string {
  const directory = mkdtempSync(join(tmpdir(), "ao-coordinator-"));
  directories.push(directory);
  return directory;
}

/** For afterEach: stops every coordinator and removes every directory. */
export async function stopTestCoordinators(): Promise<void> {
  for (const coordinator of running) await coordinator.stop();
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true, force: true });
}

/** A coordinator on a free port, in memory unless `memory: false` or a store is given. */
export async function startTestCoordinator(
  overrides: Partial<CoordinatorConfig> = {},
  clock?: () => Reading,
): Promise<TestCoordinator> {
  const inFile = overrides.memory === false && overrides.store === undefined;
  const store = inFile ? { store: join(tempDir(), "coordinator.db") } : {};
  const coordinator = new TestCoordinator(settings({ ...overrides, ...store }), clock);
  await coordinator.start();
  return coordinator;
}

/** The real coordinator on a real port, with clients, and what tests ask it again and again. */
export class TestCoordinator {
  readonly config: CoordinatorConfig;
  /** Every line logged, parsed. */
  readonly logged: Record<string, unknown>[] = [];
  readonly #clock: (() => Reading) | undefined;
  #running: RunningCoordinator | undefined;
  #link: CoordinatorLink | undefined;
  #port = 0;

  constructor(config: CoordinatorConfig, clock: (() => Reading) | undefined) {
    this.config = config;
    this.#clock = clock;
  }

  async start(): Promise<void> {
    const destination = { write: (line: string) => this.logged.push(JSON.parse(line)) };
    const log = createLogger({ name: "test", level: "trace", format: "json", destination });
    const listen = { ...this.config.listen, port: this.#port };
    this.#running = await startCoordinator({ ...this.config, listen }, log, this.#clock);
    this.#port = this.#running.port;
    this.#link = connectTransport(this.#running.url);
    running.add(this);
  }

  async stop(graceMs = 0): Promise<void> {
    const stopping = this.#running;
    this.#running = undefined;
    running.delete(this);
    await stopping?.stop(graceMs);
    this.#link?.abort();
  }

  /** Ends and starts again on the same store and port. */
  async restart(): Promise<void> {
    await this.stop();
    await this.start();
  }

  get running(): RunningCoordinator {
    if (this.#running === undefined) throw new Error("the coordinator is not running");
    return this.#running;
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  get store(): Store {
    return this.running.coordinator.store;
  }

  get link(): CoordinatorLink {
    if (this.#link === undefined) throw new Error("the coordinator was never started");
    return this.#link;
  }

  get runs(): Services["runs"] {
    return servicesOver(this.link.transport).runs;
  }

  get sessions(): Services["sessions"] {
    return servicesOver(this.link.transport).sessions;
  }

  get fleet(): Services["fleet"] {
    return servicesOver(this.link.transport).fleet;
  }

  get blueprints(): Services["blueprints"] {
    return servicesOver(this.link.transport).blueprints;
  }

  get runners(): Client<typeof RunnerService> {
    return createClient(RunnerService, this.link.transport);
  }

  async create(request: NewRun = {}): Promise<Run> {
    return present((await this.runs.createRun({ prompt: "say hello", ...request })).run);
  }

  async run(runId: string): Promise<Run> {
    return present((await this.runs.getRun({ runId })).run);
  }

  async state(runId: string): Promise<StateName> {
    return nameOf(RunState, (await this.run(runId)).state);
  }

  /** Waits until the run is in this state, and returns it. */
  async reached(runId: string, state: StateName, timeoutMs?: number): Promise<Run> {
    await until(async () => (await this.state(runId)) === state, `${runId} is ${state}`, timeoutMs);
    return this.run(runId);
  }

  /** Every message of a WatchRun call until it ends. */
  async watched(runId: string, cursor = ""): Promise<WatchRunResponse[]> {
    const messages: WatchRunResponse[] = [];
    for await (const message of this.runs.watchRun({ runId, cursor })) messages.push(message);
    return messages;
  }

  /** States of a run in the order in which its watchers are told of them. */
  async history(runId: string): Promise<StateName[]> {
    const { sessionId } = await this.run(runId);
    const { events } = await this.sessions.listSessionEvents({ sessionId, runId, pageSize: 1000 });
    return events.flatMap(({ event }) => (event.case === "transition" ? [nameOf(RunState, event.value.state)] : []));
  }

  async page(path: string): Promise<{ status: number; text: string }> {
    const answer = await fetch(`${this.url}${path}`);
    return { status: answer.status, text: await answer.text() };
  }

  /** Value of a metric, labels included in its name; 0 when it is not there. */
  async metric(name: string): Promise<number> {
    const { text } = await this.page("/metrics");
    const line = text.split("\n").find((one) => one.startsWith(`${name} `));
    return Number(line?.slice(name.length + 1) ?? 0);
  }
}

/** Name of an enum's value. */
export function nameOf<E extends Record<string, number>>(names: E, value: number): keyof E & string {
  return present(Object.keys(names).find((name) => names[name] === value));
}

export function present<T>(value: T | undefined): T {
  if (value === undefined) throw new Error("the answer lacks what every answer has");
  return value;
}
