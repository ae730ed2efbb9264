import { spawn, spawnSync } from "node:child_process";
import { randomInt } from "node:crypto";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { CommitError, DatabaseUnusableError, GroupCommit, openDatabase, statements } from "../../lib/sqlite.ts";
import type { DatabaseSync } from "../../lib/sqlite.ts";

const APPLICATION_ID = 0x0a63_7274;
const NOTES = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)";
const SQLITE_MODULE = new URL("../../lib/sqlite.ts", import.meta.url).href;

let directory: string;
let open: DatabaseSync[];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "sqlite-test-"));
  open = [];
});
afterEach(() => {
  for (const db of open) if (db.isOpen) db.close();
  rmSync(directory, { recursive: true });
});

function optionsOf(path: string, migrations: readonly string[] = [NOTES]) {
  return { path, applicationId: APPLICATION_ID, migrations, what: "store" };
}

function opened(path: string, migrations?: readonly string[]): DatabaseSync {
  const db = openDatabase(optionsOf(path, migrations));
  open.push(db);
  return db;
}

function file(name: string): string {
  return join(directory, name);
}

/** First column of the only row. */
function value(db: DatabaseSync, sql: string): unknown {
  return Object.values(db.prepare(sql).get() ?? {})[0];
}

function texts(db: DatabaseSync): unknown[] {
  return db
    .prepare("SELECT text FROM notes ORDER BY id")
    .all()
    .map((row) => row["text"]);
}

function add(db: DatabaseSync, text: string): number {
  return Number(db.prepare("INSERT INTO notes (text) VALUES (?)").run(text).lastInsertRowid);
}

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

/** A module that opens `path` as `db` and goes on with `body`, as arguments of the pinned Node. */
function program(path: string, body: string): string[] {
  const head = `import { GroupCommit, openDatabase } from ${JSON.stringify(SQLITE_MODULE)};`;
  const options = JSON.stringify(optionsOf(path));
  return ["--input-type=module", "-e", `${head} const db = openDatabase(${options}); ${body}`];
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
    for (const path of [file("folder"), file("nowhere/a.db")]) {
      expect(() => opened(path)).toThrow(`cannot open store ${path}: unable to open database file`);
    }
  });

  it("keeps a :memory: database to its opener", () => {
    const [one, other] = [opened(":memory:"), opened(":memory:")];
    add(one, "mine");
    expect(texts(other)).toEqual([]);
  });
});

describe("GroupCommit", () => {
  it("runs operations in order in one transaction, and answers each after the commit", async () => {
    const db = opened(file("group.db"));
    const log: string[] = [];
    const group = new GroupCommit(db, (commitMs, operations) => {
      expect(commitMs).toBeGreaterThanOrEqual(0);
      log.push(`commit of ${operations}, in transaction: ${db.isTransaction}`);
    });
    const operations = ["a", "b", "c"].map((text) =>
      group.run(() => {
        log.push(`run ${text}`);
        return add(db, text);
      }),
    );
    expect(log).toEqual([]);
    const answers = operations.map((answer) => answer.then((id) => log.push(`answer ${id}`)));
    await Promise.all(answers);
    expect(log).toEqual([
      "run a",
      "run b",
      "run c",
      "commit of 3, in transaction: false",
      "answer 1",
      "answer 2",
      "answer 3",
    ]);
  });

  it("puts what is asked for during a group into the next one", async () => {
    const db = opened(file("nested.db"));
    const sizes: number[] = [];
    const group = new GroupCommit(db, (_, operations) => sizes.push(operations));
    const nested: Promise<number>[] = [];
    await group.run(() => {
      nested.push(
        group.run(() => add(db, "second")),
        group.run(() => add(db, "third")),
      );
      return add(db, "first");
    });
    await Promise.all(nested);
    expect(texts(db)).toEqual(["first", "second", "third"]);
    expect(sizes).toEqual([1, 2]);
  });

  it("undoes an operation that throws, and it alone, and hands its error to its caller", async () => {
    const db = opened(file("savepoint.db"));
    const group = new GroupCommit(db);
    const mine = new Error("changed my mind");
    const results = await Promise.allSettled([
      group.run(() => add(db, "before")),
      group.run(() => {
        add(db, "undone");
        throw mine;
      }),
      group.run(() => db.exec("INSERT INTO notes (id, text) VALUES (1, 'the id is taken')")),
      group.run(() => add(db, "after")),
    ]);
    expect(results.map((result) => result.status)).toEqual(["fulfilled", "rejected", "rejected", "fulfilled"]);
    expect(results[1]).toHaveProperty("reason", mine);
    expect(results[2]).toHaveProperty("reason.message", "UNIQUE constraint failed: notes.id");
    expect(texts(db)).toEqual(["before", "after"]);
  });

  it("rejects every caller of a group whose COMMIT fails, stores nothing of it, and goes on", async () => {
    const db = opened(file("commit.db"), [
      `${NOTES}; CREATE TABLE marks (note INTEGER REFERENCES notes DEFERRABLE INITIALLY DEFERRED)`,
    ]);
    const group = new GroupCommit(db);
    const results = await Promise.allSettled([
      group.run(() => add(db, "lost")),
      group.run(() => db.exec("INSERT INTO marks VALUES (99)")),
    ]);
    for (const result of results) {
      expect(result).toMatchObject({ status: "rejected", reason: { name: "CommitError", full: false } });
      expect(result).toHaveProperty("reason.message", "the store could not be written: FOREIGN KEY constraint failed");
    }
    expect(await group.run(() => add(db, "kept"))).toBe(1);
    expect(texts(db)).toEqual(["kept"]);
  });

  it("says that the disk is full, stores nothing of that group, and goes on once there is room", async () => {
    const db = opened(file("full.db"));
    const group = new GroupCommit(db);
    await group.run(() => add(db, "kept"));
    db.exec("PRAGMA max_page_count = 6");
    const results = await Promise.allSettled(
      ["small", "y".repeat(50_000), "small too"].map((text) => group.run(() => add(db, text))),
    );
    for (const result of results) {
      expect(result).toMatchObject({ status: "rejected", reason: { full: true } });
      expect(result).toHaveProperty("reason.message", "the store could not be written: database or disk is full");
    }
    await group.run(() => add(db, "little"));
    db.exec("PRAGMA max_page_count = 1000");
    await group.run(() => add(db, "y".repeat(50_000)));
    expect(texts(db).map((text) => String(text).slice(0, 6))).toEqual(["kept", "little", "yyyyyy"]);
  });

  it("loses nothing that it answered when the system refuses to let the file grow", () => {
    const path = file("limited.db");
    const body = `
      process.on("SIGXFSZ", () => {});
      const group = new GroupCommit(db);
      const add = db.prepare("INSERT INTO notes (text) VALUES (?)");
      for (let answered = 0; ; answered += 3) {
        try { await Promise.all([1, 2, 3].map(() => group.run(() => add.run("z".repeat(3000))))); }
        catch (error) { console.log(JSON.stringify({ answered, name: error.name })); break; }
      }`;
    const args = ["-c", 'ulimit -f 400 && exec "$@"', "sh", process.execPath, ...program(path, body)];
    const { stdout } = spawnSync("sh", args, { encoding: "utf8" });
    const { answered, name } = JSON.parse(stdout) as { answered: number; name: string };
    expect(name).toBe("CommitError");
    expect(answered).toBeGreaterThan(0);
    expect(texts(opened(path))).toHaveLength(answered);
  });

  it("rejects callers after the database was closed", async () => {
    const db = opened(file("closed.db"));
    const group = new GroupCommit(db);
    const late = group.run(() => add(db, "late"));
    db.close();
    await expect(late).rejects.toBeInstanceOf(CommitError);
  });

  it("has on disk what it answered, in order and without gaps, after ten times kill -9 in the middle of commits", async () => {
    const path = file("killed.db");
    const body = `
      const group = new GroupCommit(db);
      const add = db.prepare("INSERT INTO notes (text) VALUES (?)");
      const { writeSync } = await import("node:fs");
      const one = async () => { for (;;) {
        const { lastInsertRowid } = await group.run(() => add.run("x".repeat(500)));
        writeSync(1, lastInsertRowid + "\\n");
      } };
      for (let i = 0; i < 20; i += 1) void one();`;
    let answered = 0;
    for (let kill = 0; kill < 10; kill += 1) {
      const until = answered + randomInt(1, 400);
      const child = spawn(process.execPath, program(path, body), { stdio: ["ignore", "pipe", "inherit"] });
      const closed = once(child, "close");
      for await (const line of createInterface(child.stdout)) {
        answered = Math.max(answered, Number(line));
        if (answered >= until) child.kill("SIGKILL");
      }
      await closed;
      expect(child.signalCode).toBe("SIGKILL");
      const db = opened(path);
      const { count, last } = db.prepare("SELECT count(*) AS count, max(id) AS last FROM notes").get() as {
        count: number;
        last: number;
      };
      expect(last, `kill ${kill}: ${answered} were answered`).toBeGreaterThanOrEqual(answered);
      expect(count).toBe(last);
      answered = last;
      db.close();
    }
  });
});

describe("statements", () => {
  it("prepares each text once", () => {
    const sql = statements(opened(":memory:"));
    expect(sql("SELECT 1")).toBe(sql("SELECT 1"));
    expect(sql("SELECT 2")).not.toBe(sql("SELECT 1"));
  });
});
