import { createRouterTransport } from "@connectrpc/connect";
import type { ConnectRouter } from "@connectrpc/connect";
import type { CommitError } from "../lib/sqlite.ts";
import { Rarely } from "../lib/log-rarely.ts";
import type { Log } from "../lib/log.ts";
import { createGate } from "./access/gate.ts";
import { POLICY } from "./access/policy.ts";
import { BlueprintDir } from "./blueprints/blueprint-dir.ts";
import type { CoordinatorConfig } from "./config.ts";
import { Coordinator } from "./coordinator.ts";
import type { Reading } from "./core/grace.ts";
import { storeErrors } from "./services/store-errors.ts";
import { mcpPage } from "./http/mcp-page.ts";
import { pages } from "./http/pages.ts";
import { readTls } from "./http/tls-files.ts";
import type { Tls } from "./http/tls-files.ts";
import { Metrics } from "./telemetry/metrics.ts";
import { checkListen, routerOptions, startServer } from "./http/server.ts";
import { mountBlueprintService } from "./services/blueprint-service.ts";
import { mountFleetService } from "./services/fleet-service.ts";
import { mountRunService } from "./services/run-service.ts";
import { mountRunnerService } from "./services/runner-service.ts";
import { mountSessionService } from "./services/session-service.ts";
import { SchemaJudge } from "./schemas/schema-judge.ts";
import { openSqliteStore } from "./store/sqlite/sqlite-store.ts";

/** Least time between two log lines that say that the store cannot be written. */
const STORE_TROUBLE_LOG_MS = 10_000;

export interface RunningCoordinator {
  /** Where local clients reach it. */
  readonly url: string;
  /** What it listens on, as it was told to. */
  readonly listensOn: string;
  readonly port: number;
  /** File of the store; undefined with --memory. */
  readonly store: string | undefined;
  readonly coordinator: Coordinator;
  /**
   * Reads the certificate and its key again, for connections to come. Returns until when it is valid; undefined without TLS.
   * @throws UsageError; nothing has changed then.
   */
  reloadTls(): string | undefined;
  /** Reads every blueprint: how many can be used, and the names of those that are broken. */
  lookAtBlueprints(): Promise<{ usable: number; broken: string[] }>;
  /** Ends streams and calls, those in flight after `graceMs` at the latest, and closes the store. */
  stop(graceMs: number): Promise<void>;
}

/**
 * Opens the store, then the port.
 * @throws UsageError for a file or folder that cannot be used; DatabaseUnusableError, ListenError.
 */
export async function startCoordinator(
  config: CoordinatorConfig,
  log: Log,
  clock?: () => Reading,
): Promise<RunningCoordinator> {
  const tls = tlsOf(config, log);
  checkListen(config.listen, { tls, insecure: config.insecure });
  const path = config.memory ? undefined : config.store;
  const metrics = new Metrics();
  const trouble = new StoreTrouble(metrics, log);
  const store = openSqliteStore({
    path,
    onCommit: (ms, commands) => trouble.committed(ms, commands),
    onFailure: (error) => trouble.failed(error),
  });
  const judge = new SchemaJudge();
  const clocks = clock === undefined ? {} : { clock };
  const coordinator = new Coordinator({ store, config, log, metrics, judge, ...clocks });
  const blueprints = new BlueprintDir(config.agentsDir, log, judge);
  const interceptors = [
    storeErrors({
      store: path ?? "the store in memory",
      onDamage: (error, message) => log.error({ err: error, store: path }, message),
    }),
  ];
  const gate = createGate({ store, runTokens: coordinator.runTokens, policy: POLICY });
  const router = routerOptions({ log, interceptors, gate });
  const mcp = mcpPage(
    createRouterTransport((router) => mountClientServices(router, coordinator, blueprints), { router }),
    log,
  );
  try {
    await coordinator.start();
    const server = await startServer({
      listen: config.listen,
      tls,
      insecure: config.insecure,
      allowedHosts: config.allowedHosts,
      log,
      interceptors,
      gate,
      pages: pages(coordinator),
      protocols: { "/mcp": (request, response) => mcp.handle(request, response) },
      routes: (router) => {
        mountRunnerService(router, coordinator);
        mountClientServices(router, coordinator, blueprints);
        mountFleetService(router, coordinator);
      },
    });
    return {
      url: server.url,
      listensOn: server.listensOn,
      port: server.port,
      store: path,
      coordinator,
      reloadTls: () => {
        const fresh = tlsOf(config, log);
        if (fresh !== undefined) server.setTls(fresh);
        return fresh?.validTo;
      },
      lookAtBlueprints: () => lookAt(blueprints),
      stop: async (graceMs) => {
        await mcp.close();
        await coordinator.stop();
        await server.stop(graceMs);
        await judge.close();
        metrics.close();
        await store.close();
      },
    };
  } catch (error) {
    await coordinator.stop();
    await judge.close();
    metrics.close();
    await store.close();
    throw error;
  }
}

/** What people and agents call. */
function mountClientServices(router: ConnectRouter, coordinator: Coordinator, blueprints: BlueprintDir): void {
  mountRunService(router, coordinator, blueprints);
  mountSessionService(router, coordinator);
  mountBlueprintService(router, blueprints);
}

async function lookAt(blueprints: BlueprintDir): Promise<{ usable: number; broken: string[] }> {
  const query = { tags: [], includeDisabled: true, pageSize: 1_000 };
  const broken: string[] = [];
  let usable = 0;
  for (let pageToken = "", last = false; !last;) {
    const page = await blueprints.list({ ...query, pageToken });
    usable += page.blueprints.length;
    broken.push(...page.broken.map(({ name }) => name));
    pageToken = page.next;
    last = pageToken === "";
  }
  return { usable, broken };
}

function tlsOf({ tlsCert, tlsKey }: CoordinatorConfig, log: Log): Tls | undefined {
  if (tlsCert === undefined || tlsKey === undefined) return undefined;
  const tls = readTls({ cert: tlsCert, key: tlsKey }, Date.now());
  for (const warning of tls.warnings) log.warn(warning);
  return tls;
}

/** Counts commits, and says when they fail: once, then rarely, because the log is often on the same disk. */
class StoreTrouble {
  readonly #metrics: Metrics;
  readonly #log: Log;
  readonly #rarely = new Rarely(STORE_TROUBLE_LOG_MS);

  constructor(metrics: Metrics, log: Log) {
    this.#metrics = metrics;
    this.#log = log;
  }

  committed(commitMs: number, commands: number): void {
    this.#metrics.committed(commitMs, commands);
  }

  failed(error: CommitError): void {
    this.#metrics.commitFailed();
    const times = this.#rarely.again();
    if (times === undefined) return;
    const text = error.full ? "the disk of the store is full; nothing is lost, and nothing is taken" : error.message;
    this.#log.error(times === 1 ? { err: error } : { reason: error.message, times }, text);
  }
}
