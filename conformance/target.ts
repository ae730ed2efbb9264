import { join, resolve } from "node:path";
import type { JsonObject } from "@bufbuild/protobuf";
import type { RosterEntry } from "../executors/lib/roster/roster-entry.ts";
import { UsageError } from "../lib/config/config.ts";
import { nearNames } from "../lib/near-names.ts";
import { inPackage } from "../lib/package-root.ts";
import { discoverExecutors, ExecutorError, findExecutor, resolveExecutorPath } from "../runner/settings/discovery.ts";
import type { Discovery } from "../runner/settings/discovery.ts";
import { findProfile, listProfiles, ProfileError, profilesDir } from "../runner/settings/profiles.ts";
import type { BenchTarget } from "./bench.ts";
import { declarationOf } from "./declaration.ts";
import type { Declaration } from "./declaration.ts";

type Env = Readonly<Record<string, string | undefined>>;

/** What somebody wants to have checked. */
export interface Wanted {
  /** Name of an executor or of an agent of the roster, or the path of a program. */
  readonly operand: string | undefined;
  readonly profile: string | undefined;
  readonly executorsDirs: readonly string[];
  readonly projectDir: string;
  /** Under the `executor_config` of the profile. */
  readonly config: JsonObject;
  readonly passEnv: readonly string[];
  /** The agents of the roster. */
  readonly entries: readonly RosterEntry[];
}

/** What is checked. */
export interface Target extends BenchTarget {
  /** The executor, the agent, the profile or the path: as it was asked for. */
  readonly name: string;
  readonly declaration: Declaration;
  /** The agent that it drives; undefined when the roster has none for it. */
  readonly entry: RosterEntry | undefined;
}

/** What an operand stands for. */
interface Found {
  readonly name: string;
  readonly command: string;
  readonly config: JsonObject;
  readonly passEnv: readonly string[];
  /** Kind of executor: the name of its folder. */
  readonly type: string;
}

/** The executors of this package and of these folders. */
export function discovered(executorsDirs: readonly string[]): Discovery {
  return discoverExecutors(inPackage("executors"), executorsDirs);
}

/** @throws UsageError that says what there is. */
export function targetOf(wanted: Wanted): Target {
  const found = asUsage(() => find(wanted));
  const entry = entryOf({ ...found, config: { ...found.config, ...wanted.config } }, wanted.entries);
  const declaration = declarationOf(found.command);
  const { endpoint } = entry ?? {};
  return {
    name: found.name,
    command: found.command,
    config: { ...declaration.config, ...found.config, ...wanted.config },
    parameters: declaration.parameters ?? {},
    passEnv: [...found.passEnv, ...wanted.passEnv],
    declaration,
    entry,
    endpoint: {
      urls: endpoint?.url === undefined ? [] : [endpoint.url],
      keys: endpoint?.keys.slice(0, 1) ?? [],
      models: endpoint?.model === undefined ? [] : [endpoint.model],
    },
  };
}

function find({ operand, profile, executorsDirs, projectDir, entries }: Wanted): Found {
  const discovery = discovered(executorsDirs);
  if (profile !== undefined) return profiled(profile, projectDir, discovery, entries);
  const name = operand ?? "";
  if (name.includes("/")) {
    const command = resolveExecutorPath(resolve(name), inPackage(""), process.cwd());
    return { name, command, config: {}, passEnv: [], type: folderOf(command, discovery) };
  }
  const executor = discovery.executors.find((one) => one.name === name);
  const entry = entries.find((one) => one.name === name);
  if (executor === undefined && entry !== undefined) return agent(entry, discovery);
  if (executor === undefined) refuseUnknown(name, discovery, entries);
  return { name, command: findExecutor(discovery, name).path, config: {}, passEnv: [], type: name };
}

/** What a profile says; its type may be an agent of the roster. */
function profiled(profile: string, projectDir: string, folders: Discovery, entries: readonly RosterEntry[]): Found {
  const agents = entries.flatMap((entry) => {
    const executor = folders.executors.find((one) => one.name === entry.executor);
    const isFolder = folders.executors.some((one) => one.name === entry.name);
    return executor === undefined || isFolder ? [] : [{ ...executor, name: entry.name }];
  });
  const discovery = { ...folders, executors: [...folders.executors, ...agents] };
  const { name, type, command, config, env } = findProfile(listProfiles([profilesDir(projectDir)], discovery), profile);
  const isAgent = agents.some((one) => one.name === type);
  return { name, command, config: isAgent ? { ...config, agent: type } : config, passEnv: env, type };
}

/** An agent of the roster, run by the executor that it names. */
function agent({ name, executor }: RosterEntry, discovery: Discovery): Found {
  const { path } = findExecutor(discovery, executor);
  return { name, command: path, config: { agent: name }, passEnv: [], type: executor };
}

function refuseUnknown(name: string, discovery: Discovery, entries: readonly RosterEntry[]): void {
  const broken = discovery.problems.some((problem) => problem.name === name);
  const names = [...discovery.executors, ...entries].map((one) => one.name);
  if (broken) return;
  const near = nearNames(name, names);
  const hint = near.length > 0 ? `did you mean ${near.join(" or ")}?` : `there are ${names.join(", ")}`;
  throw new UsageError(`no executor and no agent is named "${name}"; ${hint} A program is named by a path with a /`);
}

function folderOf(command: string, { executors }: Discovery): string {
  return executors.find(({ path }) => path === command)?.name ?? "";
}

/** The agent that is driven: as the configuration says, else the only one of an executor that is made for it. */
function entryOf({ config, type }: Found, entries: readonly RosterEntry[]): RosterEntry | undefined {
  const named = config["agent"];
  if (typeof named === "string") return entries.find(({ name }) => name === named);
  const made = entries.filter(({ executor }) => executor === type);
  return made.length === 1 ? made[0] : undefined;
}

function asUsage<T>(look: () => T): T {
  try {
    return look();
  } catch (error) {
    if (error instanceof ExecutorError || error instanceof ProfileError) throw new UsageError(error.message);
    throw error;
  }
}

/** Where installed agents are, for this user. */
export function agentsDirOf(env: Env): string {
  const home = env["HOME"] ?? "/";
  const data = env["XDG_DATA_HOME"] || join(home, ".local", "share");
  return env["AGENT_RUNNER_AGENTS_DIR"] || join(data, "agent-runner", "agents");
}
