import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach } from "vitest";
import { openDatabase } from "../../lib/sqlite.ts";
import type { DatabaseSync } from "../../lib/sqlite.ts";

/** Marks the files of these tests as ours. */
export const APPLICATION_ID = 0x0a63_7274;
/** First migration step: a table of texts. */
export const NOTES = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)";
const SQLITE_MODULE = new URL("../../lib/sqlite.ts", import.meta.url).href;
const GROUP_COMMIT_MODULE = new URL("../../lib/group-commit.ts", import.meta.url).href;

/** Directory of the running test; databases that `opened` returned are closed and it is removed after the test. */
export let directory: string;
let open: DatabaseSync[];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "sqlite-test-"));
  open = [];
});
afterEach(() => {
  for (const db of open) if (db.isOpen) db.close();
  rmSync(directory, { recursive: true });
});

/** How these tests open a file. */
export function optionsOf(path: string, migrations: readonly string[] = [NOTES]) {
  return { path, applicationId: APPLICATION_ID, migrations, what: "store" };
}

/** Opens a file until the test ends. @throws DatabaseUnusableError */
export function opened(path: string, migrations?: readonly string[]): DatabaseSync {
  const db = openDatabase(optionsOf(path, migrations));
  open.push(db);
  return db;
}

/** Path of a name in the directory of the test. */
export function file(name: string): string {
  return join(directory, name);
}

/** First column of the only row. */
export function value(db: DatabaseSync, sql: string): unknown {
  return Object.values(db.prepare(sql).get() ?? {})[0];
}

/** All notes, oldest first. */
export function texts(db: DatabaseSync): unknown[] {
  return db
    .prepare("SELECT text FROM notes ORDER BY id")
    .all()
    .map((row) => row["text"]);
}

/** Inserts a note; returns its id. */
export function add(db: DatabaseSync, text: string): number {
  return Number(db.prepare("INSERT INTO notes (text) VALUES (?)").run(text).lastInsertRowid);
}

/** A module that opens `path` as `db` and goes on with `body`, as arguments of the pinned Node. */
export function program(path: string, body: string): string[] {
  const modules = [
    `import { openDatabase } from ${JSON.stringify(SQLITE_MODULE)};`,
    `import { GroupCommit } from ${JSON.stringify(GROUP_COMMIT_MODULE)};`,
  ];
  const head = modules.join(" ");
  const options = JSON.stringify(optionsOf(path));
  return ["--input-type=module", "-e", `${head} const db = openDatabase(${options}); ${body}`];
}
