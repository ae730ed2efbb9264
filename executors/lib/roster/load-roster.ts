import { readdirSync, readFileSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { fileProblem } from "../../../lib/config/file-problem.ts";
import { nearNames } from "../../../lib/near-names.ts";
import { inPackage } from "../../../lib/package-root.ts";
import { utf8Text } from "../../../lib/text.ts";
import { AgentError } from "../agent/agent-error.ts";
import type { RosterPart } from "./parse-entry.ts";
import { AGENT_NAME, RosterError, checkedEntry, entryOf, mergeEntries, parsePart } from "./parse-entry.ts";
import type { RosterEntry } from "./roster-entry.ts";

/** Largest file that is read. */
const FILE_MAX_BYTES = 256 * 1024;

/** Agents that may extend one another in a row. */
const EXTENDS_MAX = 8;

type Env = Readonly<Record<string, string | undefined>>;

/** Where the files of the roster are. */
export interface RosterDirs {
  /** Those of this package, which are right. */
  readonly bundledDir: string;
  /** Those of the user, merged over them. Need not exist. */
  readonly userDir: string;
}

/** A file that cannot be used, and why. */
export interface RosterProblem {
  /** Agent that it would have been; the directory itself when that cannot be read. */
  readonly name: string;
  /** Names the file, the key and what is expected. */
  readonly message: string;
}

export interface Roster {
  /** By name. */
  readonly entries: readonly RosterEntry[];
  readonly problems: readonly RosterProblem[];
}

/** The directories of this package and of the user whose environment this is. */
export function rosterDirs(env: Env): RosterDirs {
  const config = env["XDG_CONFIG_HOME"] || join(env["HOME"] || homedir(), ".config");
  return { bundledDir: inPackage("executors/roster"), userDir: join(config, "agent-runner", "agents") };
}

/** Every agent that there is. A file that cannot be used is a problem, and takes away that agent alone. */
export function loadRoster(dirs: RosterDirs): Roster {
  const files = new RosterFiles(dirs);
  const entries: RosterEntry[] = [];
  const problems: RosterProblem[] = [...files.problems];
  for (const name of files.names) {
    try {
      entries.push(files.entry(name));
    } catch (error) {
      problems.push({ name, message: (error as RosterError).message });
    }
  }
  return { entries, problems };
}

/** One agent; no file is read that does not concern it. @throws AgentError BAD_CONFIG, with the names that there are. */
export function loadEntry(name: string, dirs: RosterDirs): RosterEntry {
  const files = new RosterFiles(dirs);
  if (!files.names.includes(name)) {
    const near = nearNames(name, files.names);
    const hint = near.length > 0 ? `did you mean ${near.join(" or ")}?` : `known: ${files.names.join(", ")}`;
    throw new AgentError("BAD_CONFIG", `agent must be one of the roster, not "${name}"; ${hint}`);
  }
  try {
    return files.entry(name);
  } catch (error) {
    throw new AgentError("BAD_CONFIG", (error as RosterError).message, { cause: error });
  }
}

/** The files by agent, read when they are asked for. */
class RosterFiles {
  readonly names: readonly string[];
  readonly problems: readonly RosterProblem[];
  readonly #bundled: ReadonlyMap<string, string>;
  readonly #user: ReadonlyMap<string, string>;

  constructor({ bundledDir, userDir }: RosterDirs) {
    const problems: RosterProblem[] = [];
    this.#bundled = yamlFiles(bundledDir, problems);
    this.#user = yamlFiles(userDir, problems, { optional: true });
    this.names = [...new Set([...this.#bundled.keys(), ...this.#user.keys()])].sort();
    this.problems = problems;
  }

  /** @throws RosterError that begins with the file. */
  entry(name: string): RosterEntry {
    const { part, ours } = this.#whole(name, 0);
    if (ours) return checkedEntry(part, name);
    return inFile(this.#user.get(name) ?? this.#bundled.get(name) ?? "", () => entryOf(part, name));
  }

  /** What the agent's files say, over what those of the agent that it extends say. */
  #whole(name: string, depth: number): { part: RosterPart; ours: boolean } {
    const [bundled, user] = [this.#bundled.get(name), this.#user.get(name)];
    const own = mergeEntries(partIn(bundled), partIn(user));
    const file = user ?? bundled ?? "";
    const base = own["extends"];
    if (base === undefined) return { part: own, ours: user === undefined };
    if (typeof base !== "string" || !this.names.includes(base)) {
      throw new RosterError(`${file}: extends must be one of ${this.names.join(", ")}, not ${JSON.stringify(base)}`);
    }
    if (depth >= EXTENDS_MAX) throw new RosterError(`${file}: extends leads in a circle, or over too many agents`);
    const below = this.#whole(base, depth + 1);
    return { part: mergeEntries(below.part, own), ours: below.ours && user === undefined };
  }
}

function partIn(file: string | undefined): RosterPart {
  return file === undefined ? {} : inFile(file, () => parsePart(textOf(file)));
}

function textOf(file: string): string {
  const { size } = statSync(file);
  if (size > FILE_MAX_BYTES) throw new RosterError(`has ${size} bytes; at most ${FILE_MAX_BYTES} are read`);
  return utf8Text(readFileSync(file));
}

/** Whatever goes wrong is of that file. */
function inFile<T>(file: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw new RosterError(`${file}: ${fileProblem(error, file)}`, { cause: error });
  }
}

function yamlFiles(dir: string, problems: RosterProblem[], { optional = false } = {}): Map<string, string> {
  const files = new Map<string, string>();
  for (const file of listed(dir, problems, optional)) {
    const name = /^(.+)\.ya?ml$/.exec(file)?.[1];
    if (name === undefined) continue;
    if (file.endsWith(".yml")) {
      problems.push({ name, message: `${join(dir, file)}: not used; its name must end with .yaml` });
    } else if (AGENT_NAME.test(name)) {
      files.set(name, join(dir, file));
    } else {
      const is = "small letters, digits and -, a letter first, at most 63";
      problems.push({ name, message: `${join(dir, file)}: "${name}" is no name of an agent: ${is}` });
    }
  }
  return files;
}

function listed(dir: string, problems: RosterProblem[], optional: boolean): string[] {
  try {
    return readdirSync(dir).sort();
  } catch (error) {
    if (optional && (error as NodeJS.ErrnoException).code === "ENOENT") return [];
    problems.push({ name: dir, message: `the agents in ${dir} cannot be read: ${fileProblem(error, dir)}` });
    return [];
  }
}
