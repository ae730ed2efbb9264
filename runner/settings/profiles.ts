import { readdirSync, readFileSync, statSync } from "node:fs";
import { basename, dirname, isAbsolute, join, resolve } from "node:path";
import type { JsonObject } from "@bufbuild/protobuf";
import { jsonProblem } from "../../lib/protocol/json-values.ts";
import { readJson } from "../../lib/protocol/json-text.ts";
import { isPrintable } from "../../lib/protocol/printable.ts";
import { utf8Text } from "../../lib/text.ts";
import { kindOf } from "../../lib/config/file-kind.ts";
import { fileProblem } from "../../lib/config/file-problem.ts";
import type { DiscoveredExecutor, Discovery } from "./discovery.ts";
import { passEnvProblem } from "../execution/environment.ts";
import { findExecutor } from "./discovery.ts";
import { IDLE_TIMEOUT_IS, idleTimeoutMs } from "./executor-file.ts";
import { executableProblem } from "./executable.ts";

/** Largest profile file. It travels to the coordinator whenever the runner registers. */
const PROFILE_MAX_BYTES = 256 * 1024;

/** A named way to run an executor: `<name>.json` in a directory of profiles. */
export interface ExecutorProfile {
  /** Name of the file without `.json`. */
  name: string;
  /** Absolute path of the file. */
  file: string;
  /** Kind of executor, or name of an agent. */
  type: string;
  /** Absolute path of the program: `command`, relative to the file, or else the discovered executor or agent named by `type`. */
  command: string;
  /** Handed to the executor as `executor_config`. */
  config: JsonObject;
  /** Whether a session can be resumed on another runner of the profile. */
  portable: boolean;
  /** Names of variables of the runner that the executor gets. */
  env: string[];
  /** Tags of the runner. */
  tags: string[];
  /** Limit of runs that have none of their own; 0 for none. Absent: the executor's. */
  idleTimeoutMs?: number;
}

export interface ProfileProblem {
  name: string;
  /** Names the file, the key and what is expected. */
  message: string;
}

export interface ProfileList {
  /** By name. */
  profiles: ExecutorProfile[];
  problems: ProfileProblem[];
}

/** The profile that was asked for cannot be used. The message says what to do. */
export class ProfileError extends Error {
  override readonly name = "ProfileError";
}

/** Where a project keeps its profiles. */
export function profilesDir(projectDir: string): string {
  return join(projectDir, ".agent-orchestrator", "profiles");
}

/**
 * Reads every profile of the directories; those that are not there hold none. The first of a name counts, and a later one
 * is a problem, as is a profile that cannot be used.
 */
export function listProfiles(dirs: readonly string[], discovery: Discovery): ProfileList {
  const profiles = new Map<string, ExecutorProfile>();
  const problems: ProfileProblem[] = [];
  for (const file of dirs.flatMap((dir) => profileFiles(resolve(dir), problems))) {
    const name = basename(file, ".json");
    try {
      const profile = readProfile(name, file, discovery);
      const first = profiles.get(name);
      if (first !== undefined) throw new ProfileError(`not used: ${first.file} has the name "${name}" already`);
      profiles.set(name, profile);
    } catch (error) {
      problems.push({ name, message: `${file}: ${fileProblem(error, file)}` });
    }
  }
  return { profiles: [...profiles.values()].sort((a, b) => (a.name < b.name ? -1 : 1)), problems };
}

/** The profile of that name. Throws ProfileError, with what is wrong with it or with the names that there are. */
export function findProfile({ profiles, problems }: ProfileList, name: string): ExecutorProfile {
  const found = profiles.find((profile) => profile.name === name);
  if (found !== undefined) return found;
  const problem = problems.find((problem) => problem.name === name);
  if (problem !== undefined) throw new ProfileError(problem.message);
  const names = profiles.map((profile) => profile.name).join(", ") || "none";
  const unread = problems.flatMap(({ name, message }) => (isAbsolute(name) ? `\n${message}` : [])).join("");
  throw new ProfileError(`no executor profile is named "${name}"; found: ${names}${unread}`);
}

function profileFiles(dir: string, problems: ProfileProblem[]): string[] {
  try {
    if (statSync(dir, { throwIfNoEntry: false }) === undefined) return [];
    return readdirSync(dir)
      .filter((file) => file.endsWith(".json") && file !== ".json")
      .sort()
      .map((file) => join(dir, file));
  } catch (error) {
    problems.push({ name: dir, message: `the profiles in ${dir} cannot be read: ${fileProblem(error, dir)}` });
    return [];
  }
}

/** Keys of a profile: what each must be, in words, and whether it is. */
const KEYS: Readonly<Record<string, { is: string; check: (value: unknown) => boolean }>> = {
  type: { is: "a string of 1 to 256 characters", check: (value) => isText(value, 256) && isPrintable(value) },
  command: { is: "a path, relative to this file or absolute", check: (value) => isText(value, 4096) },
  config: { is: "an object", check: (value) => typeof value === "object" && value !== null && !Array.isArray(value) },
  portable: { is: "true or false", check: (value) => typeof value === "boolean" },
  env: { is: "a list of names of environment variables, or of beginnings such as UV_*", check: isVariables },
  tags: {
    is: "a list of at most 64 different strings of 1 to 128 characters, none a control character",
    check: (value) =>
      isList(value, (tag) => isText(tag, 128) && isPrintable(tag)) &&
      value.length <= 64 &&
      new Set(value).size === value.length,
  },
  idle_timeout: { is: IDLE_TIMEOUT_IS, check: (value) => idleTimeoutMs(value) !== undefined },
};

function readProfile(name: string, file: string, discovery: Discovery): ExecutorProfile {
  const status = statSync(file);
  const kind = kindOf(status);
  if (kind !== undefined) throw new ProfileError(`is ${kind}, not a file`);
  const { size } = status;
  if (size > PROFILE_MAX_BYTES) throw new ProfileError(`has ${size} bytes; at most ${PROFILE_MAX_BYTES} are read`);
  const json: unknown = readJson(utf8Text(readFileSync(file)));
  if (typeof json !== "object" || json === null || Array.isArray(json)) throw new ProfileError("must be a JSON object");
  for (const [key, value] of Object.entries(json)) {
    const rule = Object.hasOwn(KEYS, key) ? KEYS[key] : undefined;
    if (rule === undefined) throw new ProfileError(`"${key}" is not known; known: ${Object.keys(KEYS).join(", ")}`);
    if (!rule.check(value)) throw new ProfileError(`"${key}" must be ${rule.is}, not ${excerpt(value)}`);
  }
  const problems = ((json as Partial<ExecutorProfile>).env ?? []).flatMap((name) => passEnvProblem(name) ?? []);
  if (problems[0] !== undefined) throw new ProfileError(`"env": ${problems[0]}`);
  const { type, command, config = {}, portable = false, env = [], tags = [] } = json as Partial<ExecutorProfile>;
  const unfit = jsonProblem(config, '"config"');
  if (unfit !== undefined) throw new ProfileError(unfit);
  if (type === undefined) throw new ProfileError(`"type" is missing; it must be ${KEYS["type"]!.is}`);
  const found = command === undefined ? findExecutor(discovery, type) : undefined;
  const path = found?.path ?? resolve(dirname(file), command ?? "");
  const problem = executableProblem(path);
  if (problem !== undefined) throw new ProfileError(`"command": ${problem}`);
  const settings = found === undefined ? { config, env: [] } : agentSettings(found, config);
  const profile = { name, file, type, command: path, config: settings.config, portable, tags };
  const idle = idleTimeoutMs((json as { idle_timeout?: unknown }).idle_timeout);
  return { ...profile, env: [...settings.env, ...env], ...(idle === undefined ? {} : { idleTimeoutMs: idle }) };
}

/**
 * What an executor gets because of the agent that it drives: which one, where its name is the agent's, and the variables that
 * this one needs.
 */
export function agentSettings(found: AgentExecutor, config: JsonObject = {}): { config: JsonObject; env: string[] } {
  const { name, agent, drives = {} } = found;
  if (agent !== undefined) return { config: { ...config, agent: name }, env: agent.env };
  const [only, ...more] = Object.keys(drives);
  const driven = config["agent"] ?? (more.length === 0 ? only : undefined);
  const env = typeof driven === "string" && Object.hasOwn(drives, driven) ? drives[driven] : undefined;
  return { config, env: env ?? [] };
}

type AgentExecutor = Pick<DiscoveredExecutor, "name" | "agent" | "drives">;

function isText(value: unknown, maxLength: number): value is string {
  return typeof value === "string" && value.length > 0 && value.length <= maxLength;
}

function isVariables(value: unknown): boolean {
  const isOne = (name: unknown) => typeof name === "string" && /^[A-Za-z_][A-Za-z0-9_]*\*?$/.test(name);
  return isList(value, isOne);
}

function isList(value: unknown, check: (item: unknown) => boolean): value is unknown[] {
  return Array.isArray(value) && value.every(check);
}

function excerpt(value: unknown): string {
  const text = JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}
