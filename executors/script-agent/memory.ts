import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Script } from "./script.ts";

/** What a session remembers from one turn to the next, in a file of its project directory. */
export interface Memory {
  /** Sessions that are still to call back. */
  readonly awaited: string[];
  /** The turn to take when they have. */
  readonly afterwards?: Script;
}

const FOLDER = ".script-agent";

/** Keeps all of it or, when the process is killed, what was kept before. */
export function remember(sessionId: string, memory: Memory): void {
  mkdirSync(FOLDER, { recursive: true });
  // It lies in somebody's project, and is nobody's work.
  writeFileSync(join(FOLDER, ".gitignore"), "*\n");
  const path = join(FOLDER, `${sessionId}.json`);
  writeFileSync(`${path}.new`, JSON.stringify(memory));
  renameSync(`${path}.new`, path);
}

/** What was remembered last; nothing in a new session, and in one that was killed before it started another. */
export function recall(sessionId: string): Memory {
  try {
    return JSON.parse(readFileSync(join(FOLDER, `${sessionId}.json`), "utf8")) as Memory;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return { awaited: [] };
    throw error;
  }
}
