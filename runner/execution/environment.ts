import { delimiter } from "node:path";
import { BOOT_VARIABLE } from "../../lib/boot-variable.ts";

/** Variables of the runner that every executor gets (ADR 12); LC_* besides. */
const ALLOWED = [
  ...["HOME", "USER", "SHELL", "LANG", "TZ", "TMPDIR", "TERM", "SSH_AUTH_SOCK"],
  // Where a user's files are; executors of agents look there for what is installed, as the runner does.
  ...["XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "AGENT_RUNNER_AGENTS_DIR"],
];

/**
 * What a network needs to be reached: where its proxies are, and which certificate authorities it trusts. An executor
 * without them works on the desk and fails behind the company's proxy. Read in capitals and in small letters.
 */
const NETWORK = [
  ...["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "FTP_PROXY", "NO_PROXY", "NODE_USE_ENV_PROXY"],
  ...["SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "NODE_USE_SYSTEM_CA", "DENO_CERT", "DENO_TLS_CA_STORE"],
  ...["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT", "UV_SYSTEM_CERTS", "UV_NATIVE_TLS", "NPM_CONFIG_CAFILE"],
  ...["GIT_SSL_CAINFO", "GIT_SSL_CAPATH", "CARGO_HTTP_CAINFO", "AWS_CA_BUNDLE", "BUNDLE_SSL_CA_CERT"],
].flatMap((name) => [name, name.toLowerCase()]);

/** Variables that are a secret of the runner, or a fact of one run. */
const OWN = ["AGENT_ORCHESTRATOR_TOKEN", "AGENT_ORCHESTRATOR_MCP_URL", "AGENT_SESSION_DIR", BOOT_VARIABLE];

/** PATH of a runner that was started without one, as a system service may be. */
const DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin";

/** What an executor is told of its run. */
export interface RunFacts {
  sessionId: string;
  sessionName: string;
  /** The session's own folder. */
  sessionDir: string;
  runId: string;
  /** Number of the attempt, from 1. */
  attempt: number;
  /** URL of the coordinator. */
  apiUrl: string;
  /** Good for this run's own session and children while its lease lives. */
  runToken: string;
  /** Where this run finds the orchestrator's MCP tools. */
  mcpUrl: string;
  /** boot_id of the runner. */
  bootId: string;
}

export interface ExecutorEnvOptions {
  /** Names and patterns given by `--pass-env`, and by the `env` of the executor profile. */
  passEnv: readonly string[];
  /** Directory that comes first on PATH, for an executor that needs our Node; undefined leaves PATH as it is. */
  nodeDir?: string | undefined;
  run: RunFacts;
}

/** What an executor gets of the runner's variables, but for PATH. */
export function inheritedEnv(
  parent: Readonly<Record<string, string | undefined>>,
  passEnv: readonly string[],
): Record<string, string> {
  return variablesNamed([...ALLOWED, "LC_*", ...NETWORK, ...passEnv], parent);
}

/** The whole environment of an executor. Nothing else of the runner reaches it, and no name can replace a fact of the run. */
export function executorEnv(
  parent: Readonly<Record<string, string | undefined>>,
  { passEnv, nodeDir, run }: ExecutorEnvOptions,
): Record<string, string> {
  const path = parent["PATH"] || DEFAULT_PATH;
  return {
    ...inheritedEnv(parent, passEnv),
    PATH: nodeDir === undefined ? path : [nodeDir, path].join(delimiter),
    AGENT_SESSION_ID: run.sessionId,
    AGENT_SESSION_NAME: run.sessionName,
    AGENT_SESSION_DIR: run.sessionDir,
    AGENT_RUN_ID: run.runId,
    AGENT_RUN_ATTEMPT: String(run.attempt),
    AGENT_ORCHESTRATOR_API_URL: run.apiUrl,
    AGENT_ORCHESTRATOR_TOKEN: run.runToken,
    AGENT_ORCHESTRATOR_MCP_URL: run.mcpUrl,
    [BOOT_VARIABLE]: run.bootId,
  };
}

/** The variables that the names and patterns (`UV_*`) mean, where they are set. */
export function variablesNamed(
  names: readonly string[],
  parent: Readonly<Record<string, string | undefined>>,
): Record<string, string> {
  const found: Record<string, string> = {};
  const add = (name: string): void => {
    const value = parent[name];
    if (value !== undefined) found[name] = value;
  };
  const all = Object.keys(parent);
  for (const name of names) {
    if (name.endsWith("*")) all.filter((one) => one.startsWith(name.slice(0, -1))).forEach(add);
    else add(name);
  }
  return found;
}

/** Names and values of the variables that the names and patterns of `--mask-env` mean. */
export function maskedVariables(
  patterns: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): [name: string, value: string][] {
  const isMeant = (name: string): boolean =>
    patterns.some((pattern) => {
      const [begins, ends] = [pattern.endsWith("*"), pattern.startsWith("*")];
      const text = pattern.slice(ends ? 1 : 0, begins ? -1 : undefined);
      if (begins && ends) return name.includes(text);
      return begins ? name.startsWith(text) : ends ? name.endsWith(text) : name === text;
    });
  return Object.entries(env).flatMap(([name, value]) => (value !== undefined && isMeant(name) ? [[name, value]] : []));
}

/** What is wrong with a name or pattern of `--mask-env`; undefined when it is fine. */
export function maskEnvProblem(name: string): string | undefined {
  if (/^\*?[^=*]+\*?$/.test(name)) return undefined;
  return `"${name}" is neither the name of a variable nor a part of one with * at its beginning or end, such as *_TOKEN`;
}

/** What is wrong with a name or pattern that somebody wants to hand to executors; undefined when it is fine. */
export function passEnvProblem(name: string): string | undefined {
  if (!/^[^=*]+\*?$/.test(name)) {
    return `"${name}" is neither the name of a variable nor the beginning of one with * at its end, such as UV_*`;
  }
  const prefix = name.endsWith("*") ? name.slice(0, -1) : undefined;
  const own = OWN.find((own) => (prefix === undefined ? own === name : own.startsWith(prefix)));
  return own === undefined ? undefined : `"${name}" would hand on ${own}, which each run has of its own; name another`;
}

/**
 * The entries (`NAME=value`) that together only the processes of one attempt carry; undefined when one is missing, because
 * fewer would fit processes of other runs too.
 */
export function runMarkers(env: Readonly<Record<string, string>>): string[] | undefined {
  const names = [BOOT_VARIABLE, "AGENT_RUN_ID", "AGENT_RUN_ATTEMPT"];
  return names.every((name) => env[name]) ? names.map((name) => `${name}=${env[name]}`) : undefined;
}
