import { mkdirSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { UsageError } from "../lib/config/config.ts";
import { fileProblem } from "../lib/config/file-problem.ts";
import { isCode } from "./blueprints/blueprint-files.ts";

/** The folder of a project that is ours to make. Any other has to be there: one that is not was probably misspelt. */
const OURS = ".agent-orchestrator";

/** Prompts, results and the key that proves run tokens do not belong in a repository; blueprints and profiles do. */
const IGNORED = `# Written by agent-coordinator: its store is for this machine alone.
.gitignore
*.db
*.db-*
*.db.new
`;

/**
 * Makes the folder of the store when it is `.agent-orchestrator`, and keeps a new store in it out of git.
 *
 * @throws UsageError naming the folder and what is wrong with it.
 */
export function storeFolder(store: string): void {
  const folder = dirname(resolve(store));
  try {
    if (!isThere(folder)) {
      if (basename(folder) !== OURS) throw missing("--store", folder);
      mkdirSync(folder);
    }
    if (basename(folder) === OURS && !isThere(store)) ignore(folder);
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(
      `the store cannot be made in ${folder}: ${fileProblem(error, folder)}\nname another place with --store FILE`,
    );
  }
}

/** Throws what keeps it from being looked at: Node's own option takes a file in the way for nothing there. */
function isThere(path: string): boolean {
  try {
    statSync(path);
    return true;
  } catch (error) {
    if (isCode(error, "ENOENT")) return false;
    throw error;
  }
}

/** What a person has written there stays. */
function ignore(folder: string): void {
  try {
    writeFileSync(join(folder, ".gitignore"), IGNORED, { flag: "wx" });
  } catch (error) {
    if (!isCode(error, "EEXIST")) throw error;
  }
}

/**
 * Holds the folder of the blueprints against the disk. Only the one that nobody named may be missing.
 *
 * @throws UsageError naming the folder and what is wrong with it.
 */
export function agentsFolder(folder: string, named: boolean): void {
  try {
    readdirSync(folder);
  } catch (error) {
    if (isCode(error, "ENOENT")) {
      if (named) throw missing("--agents-dir", folder);
      return;
    }
    throw new UsageError(
      `the agent blueprints in ${folder} cannot be read: ${fileProblem(error, folder)}\nname another folder with --agents-dir DIR`,
    );
  }
}

function missing(flag: string, folder: string): UsageError {
  return new UsageError(`${flag}: the folder ${folder} does not exist; make it with: mkdir -p ${folder}`);
}
