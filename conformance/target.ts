import { join, resolve } from "node:path";
import type { JsonObject } from "@bufbuild/protobuf";
import type { Roster } from "../executors/lib/roster/load-roster.ts";
import type { RosterEntry } from "../executors/lib/roster/roster-entry.ts";
import { UsageError } from "../lib/config/config.ts";
import { nearNames } from "../lib/near-names.ts";
import { inPackage } from "../lib/package-root.ts";
import { discoverExecutors, ExecutorError, findExecutor, resolveExecutorPath } from "../runner/settings/discovery.ts";
import type { Discovery } from "../runner/settings/discovery.ts";
import { withAgents } from "../runner/settings/agents.ts";
import { agentSettings, findProfile, listProfiles, ProfileError, profilesDir } from "../runner/settings/profiles.ts";
import { STUB_MODEL } from "./bench.ts";
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
  readonly roster: Roster;
  /** The user's. */
  readonly env: Env;
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

/** @throws UsageError that says what there is. */
export function targetOf(wanted: Wanted): Target {
  const found = asUsage(() => find(wanted));
  const entry = entryOf({ ...found, config: { ...found.config, ...wanted.config } }, wanted.roster.entries);
  const declaration = declarationOf(found.command);
  const endpoint = entry?.endpoint ?? { keys: [], url: undefined, model: undefined };
  return {
    name: found.name,
    command: found.command,
    config: { ...modelConfig(entry), ...declaration.config, ...found.config, ...wanted.config },
    parameters: declaration.parameters ?? {},
    passEnv: [...found.passEnv, ...wanted.passEnv],
    declaration,
    entry,
    endpoint: {
      urls: endpoint.url === undefined ? [] : [endpoint.url],
      keys: endpoint.keys,
      models: endpoint.model === undefined ? [] : [endpoint.model],
    },
  };
}

function find({ operand, profile, executorsDirs, projectDir, roster, env }: Wanted): Found {
  const discovery = withAgents(discoverExecutors(inPackage("executors"), executorsDirs), roster, env);
  if (profile !== undefined) {
    const { name, type, command, config, env } = findProfile(
      listProfiles([profilesDir(projectDir)], discovery),
      profile,
    );
    return { name, command, config, passEnv: env, type };
  }
  const name = operand ?? "";
  if (name.includes("/")) {
    const command = resolveExecutorPath(resolve(name), inPackage(""), process.cwd());
    return { name, command, config: {}, passEnv: [], type: folderOf(command, discovery) };
  }
  if (!discovery.executors.some((one) => one.name === name)) refuseUnknown(name, discovery);
  const executor = findExecutor(discovery, name);
  return { name, command: executor.path, config: agentSettings(executor).config, passEnv: [], type: name };
}

/** @throws UsageError, unless something of that name is there and cannot be used. */
function refuseUnknown(name: string, { executors, problems, absent = [] }: Discovery): void {
  if ([...problems, ...absent].some((problem) => problem.name === name)) return;
  const names = executors.map((one) => one.name);
  const near = nearNames(name, names);
  const hint = near.length > 0 ? `did you mean ${near.join(" or ")}?` : `there are ${names.join(", ")}.`;
  throw new UsageError(`no executor and no agent is named "${name}"; ${hint} A program is named by a path with a /`);
}

function folderOf(command: string, { executors }: Discovery): string {
  return executors.find(({ path, agent }) => path === command && agent === undefined)?.name ?? "";
}

/** The agent that is driven: as the configuration says, else the only one of an executor that is made for it. */
function entryOf({ config, type }: Found, entries: readonly RosterEntry[]): RosterEntry | undefined {
  const named = config["agent"];
  if (typeof named === "string") return entries.find(({ name }) => name === named);
  const made = entries.filter(({ executor }) => executor === type);
  return made.length === 1 ? made[0] : undefined;
}

/**
 * A model that nobody knows, for an agent that gets its provider by arguments: for the models that it knows it asks for more than
 * the scripted server speaks.
 */
function modelConfig(entry: RosterEntry | undefined): JsonObject {
  return entry?.endpoint.urlArgs === undefined ? {} : { model: STUB_MODEL };
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
