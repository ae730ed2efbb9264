import { setTimeout as delay } from "node:timers/promises";
import type { CallOptions } from "@connectrpc/connect";
import { TIMER_MAX_MS } from "../lib/config/kinds.ts";
import { Backoff } from "../lib/rpc/backoff.ts";
import { EXIT, exitOfFailure } from "../lib/exit-codes.ts";
import type { ExitCode } from "../lib/exit-codes.ts";
import type { Log } from "../lib/log.ts";
import { ReportVerdict_Kind, Report_Kind } from "../gen/agentrunner/v1/runner_service_pb.ts";
import type { Report } from "../gen/agentrunner/v1/runner_service_pb.ts";
import { keepSessions } from "./session-keeper.ts";
import { drainText, FEW, named, runs } from "./drain-text.ts";
import { BulkLink } from "./connection/bulk-link.ts";
import { Connection } from "./connection/connection.ts";
import type { RunnerClient } from "./connection/connection.ts";
import type { ConnectionEnd, ConnectionState } from "./connection/connection-state.ts";
import { EventSender } from "./reports/event-sender.ts";
import type { Execute } from "./execution/execute.ts";
import { Heartbeat } from "./connection/heartbeat.ts";
import { Leases } from "./leases/leases.ts";
import type { Uplink } from "./reports/uplink.ts";
import { Outbox } from "./reports/outbox.ts";
import { ReportSender } from "./reports/report-sender.ts";
import { reloaded } from "./settings/reload.ts";
import type { Profiled } from "./settings/reload.ts";
import type { RunnerSettings } from "./settings/settings.ts";
import { openKnownState } from "./leases/known-state.ts";
import type { openStateDir, StateDir } from "./leases/state-dir.ts";

/** Longest wait for the last reports to be answered when a runner ends. */
const FLUSH_MS = 10_000;

/** Time beyond the stop grace for executors to be gone: pipes, and what supervisor.ts waits for. */
const STOP_SLACK_MS = 8_000;

export interface RunnerDeps {
  readonly log: Log;
  /** Executes accepted runs. Called with the boot_id once, before anything else. */
  readonly executor: (bootId: string) => Execute;
  /** Ends what the process `bootId` left behind. */
  readonly reap?: (bootId: string) => Promise<unknown>;
  /** Opens the state directory; `openStateDir` unless a test wants to break it. */
  readonly openState?: typeof openStateDir;
  /** Numbers from 0 to below 1, for jitter. */
  readonly random?: () => number;
  /** How long to wait while another live process has the identity. Default: lease_ttl + 15 s. */
  readonly twinPatienceMs?: number;
}

/** A runner at work in this process. */
export interface RunningRunner {
  readonly runnerId: string;
  readonly bootId: string;
  /** Takes no more runs, waits for those it has, and ends. */
  drain(reason: string): void;
  /** Drains, and stops the runs it has. */
  stopRuns(reason: string): void;
  /** Goes on with what its profile says now, and tells the coordinator when that is something else. */
  reload(profiled: Profiled): void;
  /** Ends at once, as SIGKILL does: executors are killed, nothing is reported. */
  kill(): void;
  /** Runs that are accepted and have not ended. */
  activeRuns(): number;
  connectionState(): ConnectionState;
  /** Resolves when the runner has ended, with the exit code. Never rejects. */
  readonly done: Promise<ExitCode>;
}

/**
 * Starts a runner: takes over its state directory, settles what the process before it left, and connects.
 *
 * @throws StateRefusedError when another process of this host is this runner, or its state is damaged.
 */
export async function startRunner(settings: RunnerSettings, deps: RunnerDeps): Promise<RunningRunner> {
  const { runnerId, state } = openKnownState(settings, deps.log, deps.openState);
  // What the processes of a copy carry is also what those of the original carry.
  if (state.claim.type === "proven") await deps.reap?.(state.previousBootId);
  const runner = new Runner(runnerId, settings, deps, state);
  runner.start();
  return runner;
}

/** Where the runner is on its way to the end, and the timer that takes the next step at the latest. */
type Ending =
  | { readonly type: "no" }
  /** Takes no more runs, waits for those it has. Without a timer it does so for as long as they take. */
  | { readonly type: "draining"; readonly timer: NodeJS.Timeout | undefined }
  /** Its runs are being stopped. */
  | { readonly type: "stopping"; readonly timer: NodeJS.Timeout }
  /** No executor runs any more: waits for the last answers. */
  | { readonly type: "flushing"; readonly timer: NodeJS.Timeout }
  | { readonly type: "ended" };

class Runner implements RunningRunner {
  readonly runnerId: string;
  readonly bootId: string;
  readonly done: Promise<ExitCode>;
  #settings: RunnerSettings;
  readonly #log: Log;
  readonly #state: StateDir;
  readonly #connection: Connection;
  readonly #bulk: BulkLink;
  readonly #heartbeat: Heartbeat;
  readonly #leases: Leases;
  readonly #done = Promise.withResolvers<ExitCode>();
  #ending: Ending = { type: "no" };
  #exitCode: ExitCode = EXIT.ok;
  /** Runs that a line of the drain has told of, or that have ended since without one. */
  #saidLeft = 0;

  constructor(runnerId: string, settings: RunnerSettings, deps: RunnerDeps, state: StateDir) {
    const { log } = deps;
    this.runnerId = runnerId;
    this.bootId = state.bootId;
    this.done = this.#done.promise;
    this.#settings = settings;
    this.#log = log;
    this.#state = state;
    // The leases listen to the connection and send through it: it is asked for late, because one has to be built first.
    const connection = (): Connection => this.#connection;
    const uplink = uplinkOf(connection, deps.random);
    const events = new EventSender(
      uplink,
      (batches, bytes) =>
        this.#bulk.call((client, runnerId, call) => client.appendEvents({ runnerId, batches }, call), bytes),
      log,
      (leaseId, { kind }) => this.#leases.over(leaseId, kind === ReportVerdict_Kind.STALE),
    );
    const reports = new ReportSender(
      uplink,
      (batch, bytes, large) => {
        const make = (client: RunnerClient, runnerId: string, call: CallOptions) =>
          client.reportStatus({ runnerId, reports: batch }, call);
        return large ? this.#bulk.call(make, bytes) : connection().call(make, { bytes });
      },
      log,
    );
    this.#leases = new Leases({
      projectDir: settings.projectDir,
      maxRuns: this.#maxRuns,
      state,
      outbox: new Outbox(state),
      reports,
      events,
      execute: deps.executor(this.bootId),
      timing: () => this.#connection.timing,
      log,
      onOutcome: (report) => this.#onOutcome(report),
      onChange: () => this.#onChange(),
      onDrain: (reason) => this.drain(reason),
      onSlots: () => this.#heartbeat.beatNow(),
    });
    this.#connection = new Connection(this.#connectionOptions(deps), this.#leases);
    const { coordinatorUrl: url, tlsCaPem, heartbeatIntervalMs: intervalMs } = settings;
    this.#bulk = new BulkLink(this.#connection, { url, tlsCaPem });
    const beat = { url, tlsCaPem, bootId: this.bootId, intervalMs, log };
    this.#heartbeat = new Heartbeat(beat, this.#connection, this.#leases);
  }

  get #maxRuns(): number {
    return this.#settings.once ? 1 : this.#settings.maxRuns;
  }

  #identity() {
    const { hostname, projectDir, executorProfile, executor, tags, requireMatchingTags, name } = this.#settings;
    const { type, command, config, portable } = executor;
    return {
      runnerId: this.runnerId,
      hostname,
      projectDir,
      executorProfile,
      executor: { type, command, config, portable },
      tags: [...tags],
      requireMatchingTags,
      maxConcurrentRuns: this.#maxRuns,
      name,
    };
  }

  #connectionOptions(deps: RunnerDeps) {
    return {
      url: this.#settings.coordinatorUrl,
      tlsCaPem: this.#settings.tlsCaPem,
      bootId: this.bootId,
      ...this.#state.claimed,
      identity: () => this.#identity(),
      pollTimeoutMs: this.#settings.pollTimeoutMs,
      onceOnly: this.#settings.once,
      onAttached: () => this.#heartbeat.beatNow(),
      log: deps.log,
      ...(deps.twinPatienceMs === undefined ? {} : { twinPatienceMs: deps.twinPatienceMs }),
      ...(deps.random === undefined ? {} : { random: deps.random }),
    };
  }

  start(): void {
    this.#leases.inherit();
    void this.#connection.ended.then((end) => this.#onConnectionEnd(end));
    this.#heartbeat.start();
    const hasSession = (sessionId: string) => this.#leases.hasSession(sessionId);
    void keepSessions(this.#settings, this.#connection, this.#heartbeat, hasSession, this.#log);
    this.#connection.open();
  }

  activeRuns(): number {
    return this.#leases.busy;
  }

  connectionState(): ConnectionState {
    return this.#connection.state;
  }

  drain(reason: string): void {
    if (this.#ending.type !== "no") return;
    const { drainTimeoutMs } = this.#settings;
    const onTimeout = () => this.stopRuns("the drain took too long");
    this.#enter({ type: "draining", timer: drainTimeoutMs > 0 ? setTimeout(onTimeout, drainTimeoutMs) : undefined });
    this.#leases.close("the runner is draining");
    this.#saidLeft = this.#leases.busy;
    this.#log.info({ reason, ...named(this.#leases.busyRuns()) }, drainText(this.#saidLeft, drainTimeoutMs));
    this.#heartbeat.beatNow();
    this.#advance();
  }

  stopRuns(reason: string): void {
    this.drain(reason);
    if (this.#ending.type !== "draining") return;
    const patienceMs = Math.min(TIMER_MAX_MS, this.#connection.timing.stopGraceMs + STOP_SLACK_MS);
    this.#enter({ type: "stopping", timer: setTimeout(() => void this.#flush(), patienceMs) });
    this.#log.warn({ reason, ...named(this.#leases.busyRuns()) }, `stopping ${runs(this.#leases.busy)}`);
    this.#leases.withdraw();
    this.#advance();
  }

  reload(profiled: Profiled): void {
    const { settings, told, changed } = reloaded(this.#settings, profiled);
    this.#settings = settings;
    const what = changed ? "the executor profile has changed; runs to come get it as it is now" : "nothing has changed";
    this.#log.info(
      { profile: settings.executorProfile },
      `the executor profiles were read again: ${what}. Flags, variables, files of certificates and the configuration file count from the next start on`,
    );
    if (told) this.#connection.registerAgain("the runner is another now");
  }

  kill(): void {
    if (this.#ending.type === "ended") return;
    this.#enter({ type: "ended" });
    this.#leases.kill();
    this.#connection.close();
    void this.#state.abandon().then(() => this.#done.resolve(EXIT.failed));
  }

  #onOutcome(report: Pick<Report, "kind" | "failure">): void {
    if (!this.#settings.once) return;
    this.#exitCode = exitCodeOf(report);
    this.drain("its one run has ended");
  }

  #onChange(): void {
    const { busy } = this.#leases;
    if (this.#ending.type === "draining" && busy > 0 && busy < this.#saidLeft && busy <= FEW) {
      this.#log.info(named(this.#leases.busyRuns()), `draining, ${runs(busy)} left`);
    }
    this.#saidLeft = busy;
    this.#advance();
  }

  /** Takes the next step towards the end, when it is time for it. */
  #advance(): void {
    if (this.#leases.busy > 0) return;
    switch (this.#ending.type) {
      case "no":
      case "ended":
        return;
      case "draining":
      case "stopping":
        return void this.#flush();
      case "flushing":
        return this.#leases.open === 0 ? void this.#leave() : undefined;
      default:
        this.#ending satisfies never;
    }
  }

  #enter(ending: Ending): void {
    if ("timer" in this.#ending) clearTimeout(this.#ending.timer);
    this.#ending = ending;
  }

  /** Waits a little for the last answers. */
  async #flush(): Promise<void> {
    if (this.#ending.type === "flushing" || this.#ending.type === "ended") return;
    this.#enter({ type: "flushing", timer: setTimeout(() => void this.#leave(), FLUSH_MS) });
    if (this.#leases.open === 0 || this.#connection.state.type === "closed") await this.#leave();
  }

  async #leave(): Promise<void> {
    if (this.#ending.type === "ended") return;
    this.#enter({ type: "ended" });
    const { open } = this.#leases;
    if (open > 0)
      this.#log.warn(`${runs(open)} not settled with the coordinator; the next start of the runner does it`);
    else await this.#connection.leave();
    this.#connection.close();
    await this.#state.close();
    this.#log.info("Runner ended");
    this.#done.resolve(this.#exitCode);
  }

  /** The coordinator wants nothing more from this process: executors are ended, their reports stay on disk. */
  #onConnectionEnd({ exitCode, text }: ConnectionEnd): void {
    if (this.#ending.type === "ended") return;
    this.#log.error(text);
    this.#exitCode = exitCode;
    this.stopRuns(text);
    this.#advance();
  }
}

function uplinkOf(connection: () => Connection, random?: () => number): Uplink {
  return {
    ready: async () => (await connection().registered()).storeId,
    obey: (directives) => connection().obey(directives),
    get closing() {
      return connection().closing;
    },
    pause: async (failures, cut) => {
      const { closing, timing } = connection();
      const waitMs = Backoff.wait(failures, timing.reconnectMinMs, timing.reconnectMaxMs, random);
      // Both signals end the wait, and only one of them ends what waits.
      await delay(waitMs, undefined, { signal: AbortSignal.any([closing, cut]) }).catch(() => undefined);
      closing.throwIfAborted();
    },
  };
}

function exitCodeOf({ kind, failure }: Pick<Report, "kind" | "failure">): ExitCode {
  if (kind === Report_Kind.COMPLETED) return EXIT.ok;
  if (kind === Report_Kind.STOPPED) return EXIT.stopped;
  return exitOfFailure(failure);
}
