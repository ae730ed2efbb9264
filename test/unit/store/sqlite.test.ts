import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { DatabaseUnusableError, openDatabase, statements } from "../../../lib/sqlite.ts";
import {
  add,
  APPLICATION_ID,
  directory,
  file,
  NOTES,
  opened,
  optionsOf,
  program,
  texts,
  value,
} from "../../support/databases.ts";

/** A file of ours with 2,000 rows, closed. */
function written(path: string): Buffer {
  const db = opened(path);
  db.exec("BEGIN");
  for (let i = 0; i < 2_000; i += 1) add(db, `note ${i} ${"x".repeat(100)}`);
  db.exec("COMMIT");
  db.close();
  return readFileSync(path);
}

/** What opening the file is refused with. */
function refusal(path: string, migrations?: readonly string[]): DatabaseUnusableError {
  try {
    opened(path, migrations);
  } catch (error) {
    expect(error).toBeInstanceOf(DatabaseUnusableError);
    return error as DatabaseUnusableError;
  }
  throw new Error(`${path} was opened`);
}

/** The same, of a file that nobody has open; fails when a byte of it or a file beside it changes. */
function untouchedRefusal(path: string): DatabaseUnusableError {
  const before = { bytes: readFileSync(path), files: readdirSync(directory) };
  const refused = refusal(path);
  expect(readFileSync(path).equals(before.bytes), "the bytes are untouched").toBe(true);
  expect(readdirSync(directory)).toEqual(before.files);
  return refused;
}

describe("openDatabase", () => {
  it("makes a file that is durable at every commit, and ours", () => {
    const db = opened(file("new.db"));
    expect(value(db, "PRAGMA journal_mode")).toBe("wal");
    expect(value(db, "PRAGMA synchronous")).toBe(2);
    expect(value(db, "PRAGMA foreign_keys")).toBe(1);
    expect(value(db, "PRAGMA application_id")).toBe(APPLICATION_ID);
    expect(value(db, "PRAGMA user_version")).toBe(1);
  });

  it("brings an older file up step by step, each once, and keeps its rows", () => {
    const path = file("old.db");
    const first = opened(path);
    add(first, "kept");
    first.close();
    const steps = [
      NOTES,
      "ALTER TABLE notes ADD COLUMN mood TEXT DEFAULT 'calm'",
      "CREATE INDEX moods ON notes (mood)",
    ];
    for (const version of [3, 3]) {
      const db = opened(path, steps);
      expect(value(db, "PRAGMA user_version")).toBe(version);
      expect(value(db, "SELECT text || ' ' || mood FROM notes")).toBe("kept calm");
      db.close();
    }
  });

  it("keeps the steps before one that fails, and leaves no half of that one", () => {
    const path = file("half.db");
    const broken = [
      NOTES,
      "CREATE TABLE moods (name TEXT)",
      "CREATE TABLE half (a TEXT); CREATE TABLE moods (name TEXT)",
    ];
    expect(() => opened(path, broken)).toThrow(`cannot open store ${path}: table moods already exists`);
    const db = opened(path, [...broken.slice(0, 2), "CREATE TABLE half (b TEXT)"]);
    expect(value(db, "PRAGMA user_version")).toBe(3);
  });

  it("refuses a second opener, in this process or another one, until the first has closed", () => {
    const path = file("shared.db");
    const first = opened(path);
    add(first, "a row");
    const inUse = `store ${path} is in use by another process. End that one, or name another path.`;
    expect(refusal(path).message).toBe(inUse);
    expect(refusal(path).locked).toBe(true);
    expect(spawnSync(process.execPath, program(path, ""), { encoding: "utf8" }).stderr).toContain(inUse);
    first.close();
    expect(texts(opened(path))).toEqual(["a row"]);
  });

  it("refuses a second opener of a file in which nothing is written yet", () => {
    const path = file("fresh.db");
    opened(path, []);
    expect(refusal(path, []).locked).toBe(true);
  });

  it.each<[string, (whole: Buffer) => Uint8Array | string]>([
    ["text", () => "this is not a database\n".repeat(500)],
    ["a few bytes of text", () => "hello\n"],
    ["half of a store", (whole) => whole.subarray(0, whole.length / 2)],
    ["a store without its last bytes", (whole) => whole.subarray(0, -1_000)],
    ["the first page of a store", (whole) => whole.subarray(0, 4096)],
    ["half of a store's header", (whole) => whole.subarray(0, 50)],
    ...[0, 20, 30, 100, 4096, 4096 * 10].map((at): [string, (whole: Buffer) => Uint8Array] => [
      `a store with the bits flipped of 8 bytes at ${at}`,
      (whole) => whole.map((byte, i) => (i >= at && i < at + 8 ? byte ^ 0xff : byte)),
    ]),
  ])("refuses %s as damaged, with the path and a hint, and leaves it as it is", (_, damage) => {
    const path = file("damaged.db");
    writeFileSync(path, damage(written(file("whole.db"))));
    const { message, locked } = untouchedRefusal(path);
    expect(message).toContain(path);
    expect(message).toMatch(/^store .* is damaged \([^]+\)\. It was left untouched: restore a copy, or move it away/);
    expect(locked).toBe(false);
  });

  it("refuses a file that was cut to nothing, which SQLite takes for a new one", () => {
    const path = file("cut.db");
    writeFileSync(path, "");
    expect(untouchedRefusal(path).message).toContain(`store ${path} is damaged (it has 0 bytes)`);
  });

  it("makes a new file in its place only when it is whole, over what an earlier try left", () => {
    const path = file("fresh.db");
    writeFileSync(`${path}.new`, "half a file");
    add(opened(path), "first");
    expect(readdirSync(directory).filter((name) => name.endsWith(".new"))).toEqual([]);
  });

  it.each([0, 77])("refuses a file of another program, with application_id %i, and leaves it as it is", (id) => {
    const path = file("other.db");
    const other = openDatabase({ ...optionsOf(path), applicationId: id });
    other.exec("PRAGMA journal_mode = DELETE");
    other.close();
    const hint = `is an SQLite file of another program (application_id ${id}), not a store. Name another path.`;
    expect(untouchedRefusal(path).message).toBe(`${path} ${hint}`);
  });

  it("refuses a file of a newer version, and leaves it as it is", () => {
    const path = file("newer.db");
    const newer = opened(path, [NOTES, "CREATE TABLE later (a TEXT)"]);
    newer.exec("PRAGMA journal_mode = DELETE");
    newer.close();
    expect(untouchedRefusal(path).message).toBe(
      `store ${path} has schema version 2; this program knows up to 1. Upgrade it.`,
    );
  });

  it("says what it cannot open when the path is a directory or in none", () => {
    mkdirSync(file("folder"));
    expect(() => opened(file("folder"))).toThrow(
      `store ${file("folder")} is a directory, not a file. Name another path.`,
    );
    const path = file("nowhere/a.db");
    expect(() => opened(path)).toThrow(`cannot open store ${path}: unable to open database file`);
  });

  it("says what stands at the path instead of calling it damaged, and waits for nobody", () => {
    const pipe = file("pipe");
    execFileSync("mkfifo", [pipe]);
    expect(() => opened(pipe)).toThrow(`store ${pipe} is a named pipe, not a file. Name another path.`);
    expect(() => opened("/dev/null")).toThrow("store /dev/null is a device, not a file. Name another path.");
  });

  it("keeps a :memory: database to its opener", () => {
    const [one, other] = [opened(":memory:"), opened(":memory:")];
    add(one, "mine");
    expect(texts(other)).toEqual([]);
  });
});

describe("statements", () => {
  it("prepares each text once", () => {
    const sql = statements(opened(":memory:"));
    expect(sql("SELECT 1")).toBe(sql("SELECT 1"));
    expect(sql("SELECT 2")).not.toBe(sql("SELECT 1"));
  });

  it("binds by name in any order, a name that stands twice as well, and leaves quoted text alone", () => {
    const sql = statements(opened(":memory:"));
    const statement = sql("SELECT :b AS b, ':a it''s :b' AS text, :a AS a, :a AS again");
    const row = { b: 2, text: ":a it's :b", a: 1, again: 1 };
    expect({ ...statement.first({ a: 1, b: 2 }) }).toEqual(row);
    expect(statement.all({ b: 2, a: 1 }).map((each) => ({ ...each }))).toEqual([row]);
    expect([...statement.iterate({ a: 1, b: 2 })].map((each) => ({ ...each }))).toEqual([row]);
  });

  it("refuses a name without a value, which is not NULL", () => {
    const sql = statements(opened(":memory:"));
    expect(() => sql("SELECT :a, :b").first({ a: 1 })).toThrow("bug[SQL1]: :b has no value in: SELECT :a, :b");
  });
});
