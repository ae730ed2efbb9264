import { closeSync, openSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { fileProblem } from "../../../lib/config/file-problem.ts";
import { configError } from "./diagnostics.ts";

/** Longest that somebody else may hold the lock. A preparation takes milliseconds. */
const WAIT_MS = 30_000;

/**
 * Does some work while no other process, and no other thread, does work under the same lock.
 *
 * It is SQLite's lock on an empty database: the kernel holds it for the process, so that it is gone with it, however it
 * ended. A lock file with the id of its holder would have to be taken over, in which two takers can meet. Nothing is ever
 * written into the file, and it is not removed: whoever waits for it has it open.
 * @throws AgentConfigError when it is held for longer than `waitMs`.
 */
export function withFileLock<T>(path: string, work: () => T, waitMs = WAIT_MS): T {
  const db = locked(path, waitMs);
  try {
    return work();
  } finally {
    db.close();
  }
}

function locked(path: string, waitMs: number): DatabaseSync {
  let db: DatabaseSync | undefined;
  try {
    // SQLite would make it readable by all.
    closeSync(openSync(path, "a", 0o600));
    db = new DatabaseSync(path, { timeout: waitMs });
    db.exec("BEGIN EXCLUSIVE");
    return db;
  } catch (error) {
    db?.close();
    const isBusy = error instanceof Error && "errcode" in error && error.errcode === SQLITE_BUSY;
    const message = isBusy
      ? `another process has held the lock for ${waitMs} ms: end it, and try again`
      : `cannot be used as a lock: ${fileProblem(error, path)}`;
    throw configError("shared-file-unusable", message, { file: path });
  }
}

const SQLITE_BUSY = 5;
