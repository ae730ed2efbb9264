import { delimiter } from "node:path";
import { BOOT_VARIABLE } from "../../lib/boot-variable.ts";

/** Variables of the runner that every executor gets (ADR 12); LC_* besides. */
const ALLOWED = ["HOME", "USER", "SHELL", "LANG", "TZ", "TMPDIR", "TERM", "SSH_AUTH_SOCK"];

/** PATH of a runner that was started without one, as a system service may be. */
const DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin";

/** What an executor is told of its run. */
export interface RunFacts {
  sessionId: string;
  sessionName: string;
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
  /** Names given by `--pass-env`, and by the `env` of the executor profile. */
  passEnv: readonly string[];
  /** Directory of the runner's own Node, which is first on PATH so that executors written for it find it. */
  nodeDir: string;
  run: RunFacts;
}

/** The whole environment of an executor. Nothing else of the runner reaches it, and no name can replace a fact of the run. */
export function executorEnv(
  parent: Readonly<Record<string, string | undefined>>,
  { passEnv, nodeDir, run }: ExecutorEnvOptions,
): Record<string, string> {
  const locale = Object.keys(parent).filter((name) => name.startsWith("LC_"));
  const env: Record<string, string> = {};
  for (const name of [...ALLOWED, ...locale, ...passEnv]) {
    const value = parent[name];
    if (value !== undefined) env[name] = value;
  }
  return {
    ...env,
    PATH: [nodeDir, parent["PATH"] || DEFAULT_PATH].join(delimiter),
    AGENT_SESSION_ID: run.sessionId,
    AGENT_SESSION_NAME: run.sessionName,
    AGENT_RUN_ID: run.runId,
    AGENT_RUN_ATTEMPT: String(run.attempt),
    AGENT_ORCHESTRATOR_API_URL: run.apiUrl,
    AGENT_ORCHESTRATOR_TOKEN: run.runToken,
    AGENT_ORCHESTRATOR_MCP_URL: run.mcpUrl,
    [BOOT_VARIABLE]: run.bootId,
  };
}

/**
 * The entries (`NAME=value`) that together only the processes of one attempt carry; undefined when one is missing, because
 * fewer would fit processes of other runs too.
 */
export function runMarkers(env: Readonly<Record<string, string>>): string[] | undefined {
  const names = [BOOT_VARIABLE, "AGENT_RUN_ID", "AGENT_RUN_ATTEMPT"];
  return names.every((name) => env[name]) ? names.map((name) => `${name}=${env[name]}`) : undefined;
}
