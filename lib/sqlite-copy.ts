import { randomBytes } from "node:crypto";
import { closeSync, linkSync, openSync, rmSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { backup } from "node:sqlite";
import type { DatabaseSync } from "node:sqlite";
import { syncToDisk } from "./sync-to-disk.ts";

/** Pages that are copied at a time, in another thread; statements of this one wait no longer than that takes. */
const PAGES_AT_ONCE = 100;

/** Beginnings of a copy that may fall into transactions of this process, which last some milliseconds each. */
const MAX_TRIES = 1000;

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
    for (let tries = 1; !(await copied(db, unfinished, progress)); tries += 1) {
      if (tries === MAX_TRIES) throw new Error(`the database was busy ${MAX_TRIES} times`);
      progress();
    }
    syncToDisk(unfinished);
    // Unlike a rename this fails when something has come to stand there meanwhile.
    linkSync(unfinished, path);
  } finally {
    for (const beside of ["", "-journal", "-wal", "-shm"]) rmSync(`${unfinished}${beside}`, { force: true });
  }
  syncToDisk(dirname(path));
  return statSync(path).size;
}

/** Returns false when the first step met a transaction that was being written: no page is copied then, and all can be again. */
async function copied(db: DatabaseSync, path: string, progress: () => void): Promise<boolean> {
  try {
    await backup(db, path, { rate: PAGES_AT_ONCE, progress });
    return true;
  } catch (error) {
    // node:sqlite goes on after SQLITE_BUSY in every other step, and makes an error of "no error" of it in the first.
    const isBusy = error instanceof Error && "errcode" in error && [0, 5, 6].includes(Number(error.errcode));
    if (isBusy) return false;
    throw error;
  }
}
