import { randomBytes } from "node:crypto";
import { closeSync, fsyncSync, linkSync, openSync, rmSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { backup } from "node:sqlite";
import type { DatabaseSync } from "node:sqlite";

/** Pages that are copied at a time, in another thread; statements of this one wait no longer than that takes. */
const PAGES_AT_ONCE = 100;

/**
 * Copies a database that is in use: as it is when the copy is complete, what is committed meanwhile included. The copy
 * appears at `path` when it is whole and on the disk; nothing that stands there is replaced.
 *
 * @param mayGoOn asked after each step; when it returns false the copy is given up.
 * @returns the bytes of the copy. @throws Error with the code of the file system (EEXIST, ENOENT, ENOSPC …), or SQLite's.
 */
export async function copyDatabase(db: DatabaseSync, path: string, mayGoOn: () => boolean): Promise<number> {
  const unfinished = `${path}.${randomBytes(6).toString("hex")}.unfinished`;
  // It holds the key for the tokens of agents: for its owner only.
  closeSync(openSync(unfinished, "wx", 0o600));
  try {
    const progress = (): void => {
      if (!mayGoOn()) throw new Error("the copy was given up");
    };
    await backup(db, unfinished, { rate: PAGES_AT_ONCE, progress });
    synced(unfinished);
    // Unlike a rename this fails when something has come to stand there meanwhile.
    linkSync(unfinished, path);
  } finally {
    for (const beside of ["", "-journal", "-wal", "-shm"]) rmSync(`${unfinished}${beside}`, { force: true });
  }
  synced(dirname(path));
  return statSync(path).size;
}

function synced(path: string): void {
  const file = openSync(path, "r");
  try {
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}
