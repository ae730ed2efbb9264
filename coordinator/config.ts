import {
  TIMER_MAX_MS,
  bool,
  duration,
  formatDurationMs,
  hostPort,
  int,
  list,
  oneOf,
  path,
} from "../lib/config/kinds.ts";
import type { HostPort } from "../lib/config/kinds.ts";
import { parseConfig } from "../lib/config/config.ts";
import type { Environment, Parsed, Program, ReadFile, Table } from "../lib/config/config.ts";
import { isLoopback } from "../lib/rpc/host-guard.ts";
import type { LogFormat } from "../lib/log.ts";
import { VERSION } from "../lib/version.ts";

/** Settings of a coordinator. What it sets for its runners goes to them in the response to Register (ADR 3). */
export interface CoordinatorConfig {
  readonly listen: HostPort;
  /** File of the store. */
  readonly store: string;
  /** True for a store that is gone when the process ends; `store` is not used then. */
  readonly memory: boolean;
  /** Directory of the agent blueprints. */
  readonly agentsDir: string;
  readonly leaseTtlMs: number;
  readonly heartbeatMs: number;
  readonly acceptDeadlineMs: number;
  /** Undefined: the longer of `leaseTtlMs` and 60 s. */
  readonly restartGraceMs: number | undefined;
  /** Time after which a run fails that no registered runner can ever take; 0: never. */
  readonly noMatchTimeoutMs: number;
  /** Age at which a finished run is deleted; 0 keeps all. May be longer than a timer can wait. */
  readonly retainMs: number;
  readonly streamKeepaliveMs: number;
  /** Varied by ±10 % for each stream, so that streams opened together do not end together. */
  readonly streamMaxAgeMs: number;
  readonly reconnectMinMs: number;
  readonly reconnectMaxMs: number;
  readonly stopGraceMs: number;
  /** Time without a sign of life after which a runner counts as absent. */
  readonly runnerAwayMs: number;
  /** Largest number of registered runners. */
  readonly maxRunners: number;
  /** Largest number of sessions above a session. */
  readonly maxDepth: number;
  /** Largest number of child sessions of one session that are at work. */
  readonly maxChildren: number;
  readonly tlsCert: string | undefined;
  readonly tlsKey: string | undefined;
  /** Allows a listen address that others can reach, without TLS. */
  readonly insecure: boolean;
  /** Host and Origin names accepted beside the loopback ones. */
  readonly allowedHosts: readonly string[];
  readonly logFormat: LogFormat;
  readonly logLevel: "fatal" | "error" | "warn" | "info" | "debug" | "trace";
}

const AT_LEAST_50_MS = { minMs: 50 };
const YEARS_10_MS = 3_650 * 86_400_000;

/** Every setting of the coordinator: flag, variable, default, help. */
export const COORDINATOR_TABLE: Table<CoordinatorConfig> = {
  listen: {
    kind: hostPort,
    flag: "listen",
    env: "AGENT_COORDINATOR_LISTEN",
    default: { host: "127.0.0.1", port: 8765 },
    defaultText: "127.0.0.1:8765",
    help: "Address of the one port; port 0 takes a free one",
  },
  store: {
    kind: path("FILE"),
    flag: "store",
    env: "AGENT_COORDINATOR_STORE",
    default: ".agent-orchestrator/coordinator.db",
    help: "File that keeps everything",
  },
  memory: { kind: bool, flag: "memory", default: false, help: "Keep everything in memory; nothing survives" },
  agentsDir: {
    kind: path("DIR"),
    flag: "agents-dir",
    env: "AGENT_ORCHESTRATOR_AGENTS_DIR",
    default: ".agent-orchestrator/agents",
    help: "Directory of the agent blueprints, read live",
  },
  leaseTtlMs: {
    kind: duration(AT_LEAST_50_MS),
    flag: "lease-ttl",
    default: 45_000,
    defaultText: "45s",
    help: "Time without word from a runner after which its runs are lost",
  },
  heartbeatMs: {
    kind: duration(AT_LEAST_50_MS),
    flag: "heartbeat",
    default: 10_000,
    defaultText: "10s",
    help: "Time between two heartbeats of a runner",
  },
  acceptDeadlineMs: {
    kind: duration(AT_LEAST_50_MS),
    flag: "accept-deadline",
    default: 15_000,
    defaultText: "15s",
    help: "Time that a runner has to accept an offer",
  },
  restartGraceMs: {
    kind: duration(),
    flag: "restart-grace",
    default: undefined,
    defaultText: "the longer of --lease-ttl and 1m",
    help: "Time after a start in which no lease is lost",
  },
  noMatchTimeoutMs: {
    kind: duration(),
    flag: "no-match-timeout",
    default: 300_000,
    defaultText: "5m",
    help: "Time after which a run fails that no registered runner can ever take; 0 waits",
  },
  retainMs: {
    kind: duration({ maxMs: YEARS_10_MS }),
    flag: "retain",
    default: 30 * 86_400_000,
    defaultText: "30d",
    help: "Age at which finished runs are deleted; 0 keeps them",
  },
  streamKeepaliveMs: {
    kind: duration(AT_LEAST_50_MS),
    flag: "stream-keepalive",
    default: 15_000,
    defaultText: "15s",
    help: "Longest silence on a runner's stream",
  },
  streamMaxAgeMs: {
    // A tenth is added to some streams, and the sum must fit a timer.
    kind: duration({ minMs: 50, maxMs: Math.floor(TIMER_MAX_MS / 1.1) }),
    flag: "stream-max-age",
    default: 1_800_000,
    defaultText: "30m",
    help: "Age at which a runner's stream is replaced, give or take a tenth",
  },
  reconnectMinMs: {
    kind: duration({ minMs: 1 }),
    flag: "reconnect-min",
    default: 100,
    defaultText: "100ms",
    help: "First ceiling of a runner's wait before it reconnects",
  },
  reconnectMaxMs: {
    kind: duration({ minMs: 1 }),
    flag: "reconnect-max",
    default: 10_000,
    defaultText: "10s",
    help: "Highest ceiling of that wait",
  },
  stopGraceMs: {
    kind: duration(),
    flag: "stop-grace",
    default: 10_000,
    defaultText: "10s",
    help: "Time between SIGTERM and SIGKILL when a run is stopped",
  },
  runnerAwayMs: {
    kind: duration(AT_LEAST_50_MS),
    flag: "runner-away",
    default: 3_600_000,
    defaultText: "1h",
    help: "Time without word after which a runner counts as absent",
  },
  maxRunners: {
    kind: int(1, 1_000_000),
    flag: "max-runners",
    default: 10_000,
    help: "Most runners that may be registered",
  },
  maxDepth: {
    kind: int(0, 100),
    flag: "max-depth",
    default: 8,
    help: "Most sessions above a session; 0 lets no agent start another",
  },
  maxChildren: {
    kind: int(1, 10_000),
    flag: "max-children",
    default: 64,
    help: "Most child sessions of a session that are at work",
  },
  tlsCert: {
    kind: path("FILE"),
    flag: "tls-cert",
    env: "AGENT_COORDINATOR_TLS_CERT",
    default: undefined,
    help: "PEM file with the certificate; with --tls-key the port speaks TLS",
  },
  tlsKey: {
    kind: path("FILE"),
    flag: "tls-key",
    env: "AGENT_COORDINATOR_TLS_KEY",
    default: undefined,
    help: "PEM file with the private key",
  },
  insecure: {
    kind: bool,
    flag: "insecure",
    default: false,
    help: "Listen on an address that others can reach, without TLS",
  },
  allowedHosts: {
    kind: list("NAME"),
    flag: "allowed-host",
    env: "AGENT_COORDINATOR_ALLOWED_HOSTS",
    default: [],
    help: "Name to accept in Host and Origin beside the loopback ones",
  },
  logFormat: {
    kind: oneOf("auto", "pretty", "json"),
    flag: "log-format",
    env: "AGENT_COORDINATOR_LOG_FORMAT",
    default: "auto",
    help: "auto is pretty on a terminal, JSON otherwise",
  },
  logLevel: {
    kind: oneOf("fatal", "error", "warn", "info", "debug", "trace"),
    flag: "log-level",
    env: "AGENT_COORDINATOR_LOG_LEVEL",
    default: "info",
    help: "Least important level that is logged",
  },
};

const EPILOGUE = [
  "Signals: the first TERM or INT ends it, with 3 s for calls in flight; runners keep their runs. The second ends it at once. " +
    "HUP reads the certificate and the blueprints again; in a program that has a terminal it is a TERM, under nohup nothing.",
  "Exit codes: 0 ended as asked · 1 ended by a second signal · 2 usage: a flag, a variable, a file or a folder is wrong · " +
    "4 refused: the port, or the store · 70 bug.",
].join("\n\n");

export const COORDINATOR: Program<CoordinatorConfig> = {
  name: "agent-coordinator",
  version: VERSION,
  summary: "Queues runs of AI agents, offers them to runners, and keeps what came of them.",
  table: COORDINATOR_TABLE,
  epilogue: EPILOGUE,
  defaultFile: ".agent-orchestrator/coordinator.yaml",
  check,
};

/** Reads flags, variables and file. Throws UsageError (exit 2). */
export function parseCoordinatorConfig(
  argv: readonly string[],
  env: Environment,
  readFile: ReadFile,
): Parsed<CoordinatorConfig> {
  return parseConfig(COORDINATOR, argv, env, readFile);
}

function check(config: CoordinatorConfig): string | undefined {
  const { heartbeatMs, leaseTtlMs, reconnectMinMs, reconnectMaxMs } = config;
  // One heartbeat may be lost without the lease being lost.
  if (heartbeatMs * 2 >= leaseTtlMs) {
    return `--heartbeat ${formatDurationMs(heartbeatMs)} must be less than half of --lease-ttl ${formatDurationMs(leaseTtlMs)}`;
  }
  if (reconnectMinMs > reconnectMaxMs) {
    return `--reconnect-min ${formatDurationMs(reconnectMinMs)} is more than --reconnect-max ${formatDurationMs(reconnectMaxMs)}`;
  }
  if ((config.tlsCert === undefined) !== (config.tlsKey === undefined)) {
    return "--tls-cert and --tls-key go together";
  }
  if (config.tlsCert === undefined && !config.insecure && !isLoopback(config.listen.host)) {
    return `--listen ${config.listen.host} can be reached by others: give --tls-cert and --tls-key, or --insecure`;
  }
  return undefined;
}
