import { realpathSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { loadRoster, rosterDirs } from "../../executors/lib/roster/load-roster.ts";
import { inPackage } from "../../lib/package-root.ts";
import { readAuthorities } from "../../lib/config/authorities.ts";
import { UsageError } from "../../lib/config/config.ts";
import type { RunnerOptions } from "../config.ts";
import { inheritedEnv, maskedVariables } from "../execution/environment.ts";
import { Secrets } from "../execution/secret-filter.ts";
import { withAgents } from "./agents.ts";
import { directoryProblem } from "./directory.ts";
import { ExecutorError, discoverExecutors, findExecutor, profileNameOf, resolveExecutorPath } from "./discovery.ts";
import type { DiscoveredExecutor, Discovery } from "./discovery.ts";
import { idleTimeoutOf } from "./executor-file.ts";
import { ProfileError, agentSettings, findProfile, listProfiles, profilesDir } from "./profiles.ts";
import type { ProfileList } from "./profiles.ts";
import type { RunnerSettings } from "./settings.ts";

const PACKAGE_ROOT = inPackage("");

/** Executor of a runner whose options name none (ADR 13). */
const DEFAULT_EXECUTOR = "claude-code";

/** What a runner with these options finds on this machine. */
export interface Findings {
  readonly discovery: Discovery;
  readonly profiles: ProfileList;
}

/** Looks when it is asked: a runner of a program that is named by its path needs none of it, and every executor is a fork of it. */
export function find({ executorsDirs, projectDir }: RunnerOptions): Findings {
  let discovery: Discovery | undefined;
  const discovered = (): Discovery => {
    const folders = () => discoverExecutors(join(PACKAGE_ROOT, "executors"), executorsDirs);
    return (discovery ??= withAgents(folders(), loadRoster(rosterDirs(process.env)), process.env));
  };
  return {
    get discovery() {
      return discovered();
    },
    get profiles() {
      return listProfiles([profilesDir(projectDir)], discovered());
    },
  };
}

/** `--executor-list`: a name and a path in each line; for an agent, whether it is installed. */
export function executorListText({ discovery }: Findings): string {
  return table(discovery.executors.map(({ name, path, agent }) => [name, path, installedText(agent)]));
}

function installedText(agent: DiscoveredExecutor["agent"]): string {
  if (agent === undefined) return "";
  return agent.program === undefined ? "not installed" : "installed";
}

/** `--profile-list`: a name, an executor type and a path in each line. */
export function profileListText({ profiles }: Findings): string {
  return table(profiles.profiles.map(({ name, type, command }) => [name, type, command]));
}

/** Either list with `--output json`: what was found, and what cannot be used and why. */
export function listJson({ executorList }: RunnerOptions, { discovery, profiles }: Findings): string {
  const found = executorList ? { executors: discovery.executors } : { profiles: profiles.profiles };
  const { problems } = executorList ? discovery : profiles;
  return `${JSON.stringify({ ...found, problems }, undefined, 2)}\n`;
}

/** What was found and cannot be used, a line each. */
export function problemsOf({ discovery, profiles }: Findings): string[] {
  return [...discovery.problems, ...profiles.problems].map(({ message }) => message);
}

/**
 * Turns options into what a runner needs: paths made real, the executor found and startable.
 *
 * @throws UsageError (exit 2) naming what is missing and what there is.
 */
export function resolveSettings(options: RunnerOptions, findings: Findings, cwd: string): RunnerSettings {
  const { executorProfile, executor, tags } = resolveProfiled(options, findings, cwd);
  const { coordinatorUrl, tlsCa, requireMatchingTags, maxRuns, name, stateDir } = options;
  const { pollTimeoutMs, heartbeatIntervalMs, drainTimeoutMs, mcpPort, externalMcpUrl, once } = options;
  return {
    coordinatorUrl,
    tlsCaPem: tlsCa === undefined ? undefined : readAuthorities(tlsCa),
    hostname: options.hostname ?? hostname(),
    fixedHostname: options.hostname !== undefined,
    projectDir: realDirectory(options.projectDir),
    executorProfile,
    executor,
    tags,
    requireMatchingTags,
    maxRuns,
    name,
    stateDir: stateDir || noHome(),
    pollTimeoutMs,
    heartbeatIntervalMs,
    drainTimeoutMs,
    mcp: externalMcpUrl === undefined ? { type: "own", port: mcpPort } : { type: "external", url: externalMcpUrl },
    once,
  };
}

/**
 * The part of the settings that a running runner reads again: nothing else is looked at, so that a file which counts from the
 * next start on cannot get in the way of it.
 *
 * @throws UsageError
 */
export function resolveProfiled(options: RunnerOptions, findings: Findings, cwd: string): Choice {
  const choice = chooseExecutor(options, findings, cwd);
  checkMasked(choice.executor);
  return { ...choice, tags: [...new Set([...choice.tags, ...options.tags])] };
}

type Choice = Pick<RunnerSettings, "executorProfile" | "executor" | "tags">;

function chooseExecutor(options: RunnerOptions, findings: Findings, cwd: string): Choice {
  const { passEnv, maskEnv } = options;
  try {
    if (options.profile !== undefined) {
      const { name, type, command, config, portable, env, tags, ...profile } = findProfile(
        findings.profiles,
        options.profile,
      );
      const own = { type: "profile", file: profile.file } as const;
      const idleTimeout =
        profile.idleTimeoutMs === undefined ? idleTimeoutOf(command) : { ms: profile.idleTimeoutMs, of: own };
      const executor = { type, command, config, portable, passEnv: [...passEnv, ...env], maskEnv, idleTimeout };
      return { executorProfile: name, executor, tags };
    }
    if (options.executorPath !== undefined) {
      const path = resolveExecutorPath(options.executorPath, PACKAGE_ROOT, cwd);
      return plain({ name: profileNameOf(path), path }, options);
    }
    const name = options.executor ?? defaultExecutor(findings);
    return plain(findExecutor(findings.discovery, name), options);
  } catch (error) {
    if (error instanceof ExecutorError || error instanceof ProfileError) throw new UsageError(error.message);
    throw error;
  }
}

function plain(found: Pick<DiscoveredExecutor, "name" | "path" | "agent" | "drives">, options: RunnerOptions): Choice {
  const { name, path } = found;
  const { config, env } = agentSettings(found);
  const { maskEnv } = options;
  const passEnv = [...options.passEnv, ...env];
  const executor = {
    type: name,
    command: path,
    config,
    portable: false,
    passEnv,
    maskEnv,
    idleTimeout: idleTimeoutOf(path),
  };
  return { executorProfile: name, executor, tags: [] };
}

function defaultExecutor({ discovery }: Findings): string {
  const names = discovery.executors.filter(({ agent }) => agent === undefined).map(({ name }) => name);
  if (names.includes(DEFAULT_EXECUTOR)) return DEFAULT_EXECUTOR;
  throw new UsageError(
    `no executor is named, and ${DEFAULT_EXECUTOR} is not installed; found: ${names.join(", ") || "none"}\n` +
      "name one with --executor NAME, --executor-path PATH or --profile NAME",
  );
}

function checkMasked({ passEnv, maskEnv }: RunnerSettings["executor"]): void {
  const masked = maskedVariables(maskEnv, inheritedEnv(process.env, passEnv));
  const { problem } = new Secrets(masked.map(([, value]) => value));
  if (problem === undefined) return;
  const names = masked.map(([name]) => name).join(", ");
  throw new UsageError(`--mask-env ${maskEnv.join(" --mask-env ")}: ${problem}; it means ${names}`);
}

function realDirectory(dir: string): string {
  const problem = directoryProblem(dir);
  if (problem !== undefined) throw new UsageError(`--project-dir ${dir} ${problem.what}`);
  return realpathSync(dir);
}

function noHome(): never {
  throw new UsageError(
    `there is no place for the state directory: user ${process.getuid?.() ?? ""} has no home, because HOME is not set and ` +
      "/etc/passwd does not name one\nset HOME or XDG_STATE_HOME, or give --state-dir DIR, on a disk that outlives the process",
  );
}

function table(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const lines = rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd(),
  );
  return lines.map((line) => `${line}\n`).join("");
}
