import { lstatSync, readdirSync, readlinkSync } from "node:fs";
import { dirname, join } from "node:path";

/** What tells a file from what it was: by its path below the folder. */
export type Snapshot = ReadonlyMap<string, string>;

/** Entries that are looked at. A home that a run fills beyond it has changed anyway. */
const ENTRIES_MAX = 20_000;

/** The files and folders below a folder. The times of folders are left out: those of the files in them tell the same. */
export function snapshotOf(folder: string): Snapshot {
  const found = new Map<string, string>();
  const waiting = [""];
  for (let below = waiting.pop(); below !== undefined; below = waiting.pop()) {
    for (const name of readdirSync(join(folder, below)).sort()) {
      if (found.size >= ENTRIES_MAX) return found;
      const path = join(below, name);
      const { facts, isFolder } = factsOf(join(folder, path));
      found.set(path, facts);
      if (isFolder) waiting.push(path);
    }
  }
  return found;
}

function factsOf(path: string): { facts: string; isFolder: boolean } {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  // It was deleted between the two looks.
  if (stat === undefined) return { facts: "gone", isFolder: false };
  const mode = (stat.mode & 0o7777).toString(8);
  if (stat.isDirectory()) return { facts: `folder ${mode}`, isFolder: true };
  if (stat.isSymbolicLink()) return { facts: `link to ${readlinkSync(path)}`, isFolder: false };
  return { facts: `file ${mode} ${stat.size} ${stat.mtimeMs} ${stat.ino}`, isFolder: false };
}

/** What is different, in words: `new .x`, `changed .y`, `gone .z`. Of a folder that is new or gone, what is in it goes without saying. */
export function differences(before: Snapshot, after: Snapshot): string[] {
  const changed = [...after].flatMap(([path, facts]) => {
    const earlier = before.get(path);
    if (earlier === undefined) return isKnown(dirname(path), before) ? [`new ${path}${within(path, after)}`] : [];
    return earlier === facts ? [] : [`changed ${path}`];
  });
  const gone = [...before.keys()].filter((path) => !after.has(path) && isKnown(dirname(path), after));
  return [...changed, ...gone.map((path) => `gone ${path}`)];
}

/** What is in a folder: how many entries, and the last of them. */
function within(folder: string, snapshot: Snapshot): string {
  const below = [...snapshot.keys()].filter((path) => path.startsWith(`${folder}/`));
  return below.length === 0 ? "" : ` with ${below.length} in it, such as ${below.at(-1)}`;
}

function isKnown(folder: string, snapshot: Snapshot): boolean {
  return folder === "." || snapshot.has(folder);
}
