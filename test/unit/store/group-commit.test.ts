import { spawn, spawnSync } from "node:child_process";
import { randomInt } from "node:crypto";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { describe, expect, it } from "vitest";
import { GroupCommit } from "../../../lib/group-commit.ts";
import { CommitError } from "../../../lib/sqlite.ts";
import { add, file, NOTES, opened, program, texts } from "../../support/databases.ts";

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

  it("says of an operation that the file system refuses that the store could not be written", async () => {
    const db = opened(file("readonly.db"));
    const group = new GroupCommit(db);
    db.exec("PRAGMA query_only = ON");
    await expect(group.run(() => add(db, "refused"))).rejects.toThrow(CommitError);
    db.exec("PRAGMA query_only = OFF");
    await group.run(() => add(db, "taken"));
    expect(texts(db)).toEqual(["taken"]);
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
    const { stdout } = spawnSync("sh", args, { encoding: "utf8", timeout: 10_000, killSignal: "SIGKILL" });
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
      const add = db.prepare("INSERT INTO notes (id, text) VALUES (?, ?)");
      const { writeSync } = await import("node:fs");
      let { last } = db.prepare("SELECT ifnull(max(id), 0) AS last FROM notes").get();
      const one = async () => { for (;;) {
        const id = ++last;
        await group.run(() => add.run(id, "x".repeat(500)));
        writeSync(1, id + "\\n");
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
