import { readdirSync } from "node:fs";
import type { Dirent } from "node:fs";
import { join } from "node:path";

/** Levels of folders, and files, that are looked at. */
const DEPTH_MAX = 8;
const ENTRIES_MAX = 20_000;

/** Beginning of an id that is enough: some agents name a file after the first eight characters. */
const ID_PART = 8;

/**
 * Whether a file or folder within `dir` is named after the conversation: every agent that takes an id of ours does that.
 * Links are not followed.
 */
export function hasSessionFiles(dir: string, id: string): boolean {
  const part = id.slice(0, ID_PART);
  let left = ENTRIES_MAX;
  const search = (folder: string, depth: number): boolean =>
    entriesOf(folder).some((entry) => {
      left -= 1;
      if (left < 0) return false;
      return (
        entry.name.includes(part) || (entry.isDirectory() && depth > 0 && search(join(folder, entry.name), depth - 1))
      );
    });
  return search(dir, DEPTH_MAX);
}

function entriesOf(folder: string): Dirent[] {
  try {
    return readdirSync(folder, { withFileTypes: true });
  } catch {
    // It does not exist yet, or the agent has just removed it.
    return [];
  }
}
