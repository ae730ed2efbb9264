import { existsSync, readdirSync, statSync } from "node:fs";
import { basename, isAbsolute, join, resolve } from "node:path";
import { fileProblem } from "../../lib/config/file-problem.ts";
import { executableProblem } from "./executable.ts";

/** Name of an executor's program: `ao-` before and `-exec` after the name of the executor (ADR 12). */
const PROGRAM = /^ao-.+-exec$/;

/** An executor that a runner can be started with by name. */
export interface DiscoveredExecutor {
  /** Name of its folder, or of an agent. */
  name: string;
  /** Absolute path of its program. */
  path: string;
  /** The directory of executors that holds the folder. */
  source: string;
  /** The name is that of an agent of the roster, which the program drives. */
  agent?: DiscoveredAgent;
  /** Agents of the roster that the program can drive, and the variables of the runner that each needs. */
  drives?: Record<string, string[]>;
}

/** What is known of an agent of the roster without starting it. */
export interface DiscoveredAgent {
  /** For people. */
  label: string;
  /** Absolute path of its own file; undefined when it is not installed. */
  program: string | undefined;
  /** How it is asked for its version; undefined when it is not installed. */
  ask: { program: string; args: string[]; env: Record<string, string> } | undefined;
  /** The version that the roster pins, as the program says it. */
  version: string;
  /** Oldest version that can be driven; undefined when that is not known. */
  atLeast: string | undefined;
  /** The command that installs the pinned version. */
  install: string;
  /** It is installed, and a key or a login is there: a run of it can begin. */
  ready: boolean;
  /** Names of variables that it needs of the runner: keys, addresses, models. */
  env: string[];
}

/** Something that looks like an executor and cannot be used, and why, in words that name the path. */
export interface DiscoveryProblem {
  /** Name that it would have had; the directory itself when that cannot be read. */
  name: string;
  message: string;
}

export interface Discovery {
  /** By name. */
  executors: DiscoveredExecutor[];
  problems: DiscoveryProblem[];
  /** Agents whose executor is not part of this installation. Nothing is wrong with that until somebody asks for one. */
  absent?: DiscoveryProblem[];
}

/** The executor that was asked for cannot be used. The message says what to do. */
export class ExecutorError extends Error {
  override readonly name = "ExecutorError";
}

/**
 * Looks for `<folder>/ao-*-exec` in each directory: the package's own, then those of `--executors-dir`. The first of a name
 * counts, and every later one is a problem; so are two programs in one folder, and one that cannot be started.
 */
export function discoverExecutors(packageDir: string, moreDirs: readonly string[] = []): Discovery {
  const executors = new Map<string, DiscoveredExecutor>();
  const problems: DiscoveryProblem[] = [];
  const sources = existsSync(packageDir) ? [packageDir, ...moreDirs] : moreDirs;
  for (const source of sources.map((dir) => resolve(dir))) {
    for (const name of foldersOf(source, problems)) {
      const found = inFolder(join(source, name));
      if (found === undefined) continue;
      const first = executors.get(name);
      if (typeof found !== "string") {
        problems.push({ name, message: found.problem });
      } else if (first !== undefined) {
        problems.push({ name, message: `executor ${found} is not used: ${first.path} has the name "${name}" already` });
      } else {
        executors.set(name, { name, path: found, source });
      }
    }
  }
  return { executors: [...executors.values()].sort((a, b) => (a.name < b.name ? -1 : 1)), problems };
}

/** The executor of that name. Throws ExecutorError, with what is wrong with it or with the names that there are. */
export function findExecutor({ executors, problems, absent = [] }: Discovery, name: string): DiscoveredExecutor {
  const found = executors.find((executor) => executor.name === name);
  if (found !== undefined) return found;
  const problem = [...problems, ...absent].find((problem) => problem.name === name);
  if (problem !== undefined) throw new ExecutorError(problem.message);
  const names = executors.map((executor) => executor.name).join(", ") || "none";
  const unread = problems.flatMap(({ name, message }) => (isAbsolute(name) ? `\n${message}` : [])).join("");
  throw new ExecutorError(
    `no executor is named "${name}"; found: ${names}. More are found with --executors-dir DIR${unread}`,
  );
}

/**
 * The absolute path of the program given by `--executor-path` or AGENT_EXECUTOR_PATH. A relative one is looked for under
 * the package and then under `cwd`. Throws ExecutorError when it is not there or cannot be started.
 */
export function resolveExecutorPath(path: string, packageRoot: string, cwd: string): string {
  const places = isAbsolute(path) ? [path] : [resolve(packageRoot, path), resolve(cwd, path)];
  // One that is there and may not be looked at is the one that is meant.
  const found = places.find((place) => executableProblem(place)?.includes(" does not exist") !== true);
  if (found === undefined)
    throw new ExecutorError(`executor ${path} does not exist; looked at ${places.join(" and ")}`);
  const problem = executableProblem(found);
  if (problem !== undefined) throw new ExecutorError(problem);
  return found;
}

/** The executor profile of a program that is given by its path: its file name without `ao-` and `-exec`. */
export function profileNameOf(path: string): string {
  return basename(path)
    .replace(/^ao-(?=.)/, "")
    .replace(/(?<=.)-exec$/, "");
}

function foldersOf(source: string, problems: DiscoveryProblem[]): string[] {
  try {
    return readdirSync(source)
      .filter((name) => isFolder(join(source, name), problems))
      .sort();
  } catch (error) {
    problems.push({
      name: source,
      message: `executors directory ${source} cannot be read: ${fileProblem(error, source)}`,
    });
    return [];
  }
}

/** One entry that cannot be looked at does not hide the others. */
function isFolder(path: string, problems: DiscoveryProblem[]): boolean {
  try {
    return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
  } catch (error) {
    problems.push({ name: basename(path), message: `executor ${path} cannot be used: ${fileProblem(error, path)}` });
    return false;
  }
}

/** The program of a folder; undefined when it holds none. */
function inFolder(folder: string): string | { problem: string } | undefined {
  let files: string[];
  try {
    files = readdirSync(folder);
  } catch (error) {
    return { problem: `executor folder ${folder} cannot be read: ${fileProblem(error, folder)}` };
  }
  const programs = files
    .filter((file) => PROGRAM.test(file))
    .sort()
    .map((file) => join(folder, file));
  const usable = programs.filter((path) => executableProblem(path) === undefined);
  if (usable.length > 1) {
    return { problem: `${usable.join(" and ")} are two executors in one folder; move one to a folder of its own` };
  }
  if (usable[0] !== undefined) return usable[0];
  return programs[0] === undefined ? undefined : { problem: executableProblem(programs[0])! };
}
