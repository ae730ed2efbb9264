import { accessSync, constants, realpathSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { delimiter, dirname, isAbsolute, join } from "node:path";
import { AgentError } from "../agent/agent-error.ts";
import type { ProgramPlace, RosterEntry } from "./roster-entry.ts";

type Env = Readonly<Record<string, string | undefined>>;

/** A program of an agent that is there. */
export interface FoundProgram {
  /** Absolute path of what is started: the program, or our Node. */
  readonly program: string;
  /** Arguments before all others: the agent's JavaScript, when our Node runs it. */
  readonly args: readonly string[];
  /** Absolute path of the agent's own file. */
  readonly path: string;
  /** By `executor_config.program`, by our folder of installed agents, or by PATH. */
  readonly from: "config" | "folder" | "path";
}

export interface ProgramWish {
  /** `program` of executor_config: it replaces the one that is found. */
  readonly program?: unknown;
}

/**
 * The agent's program: the one that `executor_config` names, the one in our folder of installed agents, the one on PATH.
 * No process is started.
 * @param mode for an agent that speaks the Agent Client Protocol with another program than its own mode.
 * @throws AgentError AGENT_NOT_INSTALLED with the command that installs it, BAD_CONFIG for a `program` that is no text.
 */
export function findProgram(
  entry: RosterEntry,
  config: ProgramWish,
  env: Env,
  mode: "own" | "acp" = "own",
): FoundProgram {
  const place = (mode === "acp" ? entry.program.acp : undefined) ?? entry.program;
  const wanted = config.program;
  if (wanted !== undefined) return chosen(wanted, env);
  const found = lookUp(entry, place, env);
  if (found !== undefined) return found;
  const where = `${installedPath(entry, place, env)} does not exist, and no ${place.name} is on PATH`;
  throw new AgentError(
    "AGENT_NOT_INSTALLED",
    `${entry.label} is not installed: ${where}; install it${needs(entry)}: ${installCommand(entry, env)}`,
  );
}

function needs({ install }: Pick<RosterEntry, "install">): string {
  return install.needs === undefined ? "" : ` (it needs ${install.needs})`;
}

/** Whether the agent can be started here, and by which file; undefined when not. Cheap: a few looks at the disk. */
export function installedProgram(entry: RosterEntry, env: Env): FoundProgram | undefined {
  return lookUp(entry, (entry.executor === "acp" ? entry.program.acp : undefined) ?? entry.program, env);
}

/** Folder into which the agent is installed, below AGENT_RUNNER_AGENTS_DIR or XDG_DATA_HOME. */
export function installFolder(entry: Pick<RosterEntry, "name" | "install">, env: Env): string {
  const data = env["XDG_DATA_HOME"] || join(env["HOME"] || homedir(), ".local", "share");
  const all = env["AGENT_RUNNER_AGENTS_DIR"] || join(data, "agent-runner", "agents");
  return join(all, entry.install.folder ?? entry.name);
}

/** The command for a shell that installs the pinned version, without scripts, by the Node that runs us. */
export function installCommand({ name, install }: Pick<RosterEntry, "name" | "install">, env: Env): string {
  const folder = word(installFolder({ name, install }, env));
  const { package: template, version } = install;
  const name_ = filled(template);
  if (install.registry === "pypi") {
    return `python3 -m venv ${folder} && ${folder}/bin/pip install ${name_}==${version}`;
  }
  // npm takes an older version that fits an older Node, and does not say so.
  const path = isOurNode(onPath("node", env)) ? "" : `PATH=${word(dirname(process.execPath))}:"$PATH" `;
  return `${path}npm install --prefix ${folder} --ignore-scripts --no-audit --no-fund ${word(`${name_}@${version}`)}`;
}

function lookUp(entry: RosterEntry, place: ProgramPlace, env: Env): FoundProgram | undefined {
  const inner = installedPath(entry, place, env);
  if (isFile(inner)) return started(inner, "folder");
  const path = onPath(place.name, env);
  return path === undefined ? undefined : started(innerOf(path, place) ?? path, "path");
}

function installedPath(entry: RosterEntry, place: ProgramPlace, env: Env): string {
  return join(installFolder(entry, env), filled(place.inner));
}

/**
 * The inner program beside what is on PATH: npm puts a link to a wrapper there, whose folder is below the one that the inner
 * program is in.
 */
function innerOf(path: string, place: ProgramPlace): string | undefined {
  const inner = filled(place.inner);
  if (!inner.startsWith("node_modules/")) return undefined;
  for (let dir = dirname(realpathSync(path)); dirname(dir) !== dir; dir = dirname(dir)) {
    if (isFile(join(dir, inner))) return join(dir, inner);
  }
  return undefined;
}

function chosen(wanted: unknown, env: Env): FoundProgram {
  if (typeof wanted !== "string" || wanted === "" || (wanted.includes("/") && !isAbsolute(wanted))) {
    const is = "an absolute path, or a name on PATH";
    throw new AgentError("BAD_CONFIG", `program must be ${is}, not ${JSON.stringify(wanted)}`);
  }
  const path = isAbsolute(wanted) ? wanted : onPath(wanted, env);
  if (path !== undefined && isFile(path)) return started(path, "config");
  const where = isAbsolute(wanted) ? "is not a file" : `is not on PATH (${env["PATH"] ?? ""})`;
  throw new AgentError(
    "AGENT_NOT_INSTALLED",
    `program ${wanted} of executor_config ${where}; correct it or leave it out`,
  );
}

/** JavaScript is run by our Node, whatever the user's is; another program by itself. */
function started(path: string, from: FoundProgram["from"]): FoundProgram {
  const isScript = /\.[cm]?js$/.test(path);
  return isScript ? { program: process.execPath, args: [path], path, from } : { program: path, args: [], path, from };
}

function onPath(name: string, env: Env): string | undefined {
  const dirs = (env["PATH"] ?? "").split(delimiter).filter(isAbsolute);
  return dirs.map((dir) => join(dir, name)).find((path) => isFile(path) && isExecutable(path));
}

function isFile(path: string): boolean {
  try {
    return statSync(path, { throwIfNoEntry: false })?.isFile() === true;
  } catch {
    // A part of the path is a file, or may not be entered: there is no program for us.
    return false;
  }
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function isOurNode(path: string | undefined): boolean {
  return path !== undefined && realpathSync(path) === realpathSync(process.execPath);
}

/** Rust's names of platforms, as packages with such programs use them. */
const TRIPLES: Readonly<Record<string, string>> = {
  "linux-x64": "x86_64-unknown-linux-musl",
  "linux-arm64": "aarch64-unknown-linux-musl",
  "darwin-x64": "x86_64-apple-darwin",
  "darwin-arm64": "aarch64-apple-darwin",
};

function filled(text: string): string {
  const platform = `${process.platform}-${process.arch}`;
  return text.replaceAll("${platform}", platform).replaceAll("${triple}", TRIPLES[platform] ?? platform);
}

/** A word of a shell command, in quotes when it needs them. */
function word(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
