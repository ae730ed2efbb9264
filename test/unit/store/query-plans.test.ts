import { globSync, readFileSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { MIGRATIONS } from "../../../coordinator/store/sqlite/schema.ts";
import { openSqliteStore } from "../../../coordinator/store/sqlite/sqlite-store.ts";
import { PREPARED } from "../../../lib/sqlite.ts";
import { inRepository } from "../../support/paths.ts";
import { everyCommand } from "../../support/every-command.ts";

/** Rows of the tables of a big store; the others are small. */
const BIG: Readonly<Record<string, number>> = {
  sessions: 1_000_000,
  runs: 1_100_000,
  run_specs: 1_100_000,
  run_results: 1_000_000,
  attempts: 1_000_000,
  refusals: 10_000,
  events: 10_000_000,
  notifications: 1_000_000,
};
/** Rows of what a partial index holds: what is open, or rare. */
const FEW = 1_000;
/** Rows for one value of a column that many rows share; every other has 10. */
const SHARED: Readonly<Record<string, number>> = { state: 150_000, runner_id: 10_000, demand_class: 10_000 };

/** Steps that read a whole table, or all of an index, and why that is right: a part of the statement, and of the plan. */
const ALLOWED: readonly (readonly [statement: string, step: string, reason: string])[] = [
  ["FROM runners", "SCAN runners", "at most --max-runners"],
  ["WITH RECURSIVE within", "SCAN w", "what the recursion has just found"],
  ["WITH RECURSIVE within", "SCAN within", "the sessions of the tree that is asked for"],
  ["WITH RECURSIVE class", "SCAN class", "what the recursion has just found"],
  ["WITH RECURSIVE above", "SCAN a", "what the recursion has just found: at most --max-depth sessions"],
  ["FROM deletions ORDER BY session_seq LIMIT 1", "SCAN deletions", "the first row"],
  ["ORDER BY seq DESC LIMIT 1000) r", "SCAN r", "the newest runs of a session, at most 1,000"],
  ["FROM epochs", "SCAN epochs", "at most 10,000, at a start"],
  ["DELETE FROM epochs", "SEARCH epochs", "one of them, at a start"],
  ["FROM sqlite_sequence", "SCAN sqlite_sequence", "a row a table, at a start"],
  ["VALUES", "SCAN CONSTANT ROW", "no table"],
  ["UPDATE runners SET last_heard_at", "SCAN runners", "at most --max-runners, when the clock was set back"],
  [
    "FROM unmatched_classes WHERE since",
    "SCAN unmatched_classes",
    "at most as many as there are demand classes with pending runs",
  ],
  ["UPDATE unmatched_classes SET since", "SCAN unmatched_classes", "the same, when the clock was set back"],
  ["UPDATE refusals SET rest_until", "SCAN refusals", "once, when the clock was set back"],
  ["SELECT DISTINCT runner_id FROM runs", "runs_by_runner", "leases that are held"],
  ["r.seq < ? ORDER BY r.seq DESC LIMIT", "rowid<?", "the newest runs, as many as the page has"],
  ["SELECT * FROM sessions WHERE seq < ? ORDER BY", "rowid<?", "the newest sessions, at most 10,000"],
  ["SELECT seq FROM sessions WHERE seq < ? ORDER BY", "rowid<?", "the newest sessions, at most 10,000"],
  ["WITH RECURSIVE step", "SCAN step", "what the recursion has just found: at most 100 sessions"],
  ["SELECT 0 AS seq", "SCAN CONSTANT ROW", "no table"],
];

/** Indexes in which one value can have any number of rows, as a session its runs or a state the runs that ended in it. */
const GROWING = [
  "runs_by_session",
  "runs_by_state",
  "runs_failed_or_stopped",
  "runs_of_runner",
  "runs_ended",
  "runs_ended_of_session",
  "events_by_session",
  "events_by_run",
  "sessions_by_parent",
  "notifications_of_parent",
  "notifications_of_child",
];

/** Lookups in them, and why no more rows are read than are wanted: a part of the statement, the index, the reason. */
const BOUNDED: readonly (readonly [statement: string, index: string, reason: string])[] = [
  ["ORDER BY r.seq DESC LIMIT", "", "a page of runs"],
  ["state = ? AND seq < ? ORDER BY seq DESC LIMIT ?", "", "a page of runs, from each state or runner its newest"],
  ["SELECT * FROM sessions WHERE seq < ?", "", "a page of sessions"],
  ["SELECT seq FROM sessions WHERE seq < ?", "sessions_by_parent", "children of a session, 100 at a time"],
  ["WHERE session_seq = s.seq ORDER BY seq DESC LIMIT 1", "runs_by_session", "the newest run of each of 100 sessions"],
  ["< step.seq ORDER BY session_seq DESC LIMIT 1", "runs_failed_or_stopped", "one entry of each of 100 sessions"],
  ["SELECT DISTINCT session_seq AS seq", "runs_by_state", "runs that runners hold"],
  ["SELECT session_id FROM sessions WHERE parent_session_id = ? ORDER BY seq DESC LIMIT ?", "", "a page of children"],
  ["= ? AND seq > ? ORDER BY seq LIMIT ?", "events_by_", "a page of events"],
  ["SELECT at FROM events WHERE session_seq = ? ORDER BY seq DESC LIMIT 1", "", "the newest event"],
  ["WHERE session_seq = ? ORDER BY seq DESC LIMIT 1", "runs_by_session", "the newest run"],
  ["ORDER BY ended_at DESC, seq DESC LIMIT 1", "runs_ended_of_session", "the run that ended last"],
  [
    "WHERE session_seq = ? ORDER BY seq DESC LIMIT 1000",
    "runs_by_session",
    "the newest runs in which a blueprint is looked for",
  ],
  ["ORDER BY seq LIMIT 100)", "events_by_run", "events are deleted in slices"],
  ["ORDER BY seq LIMIT ?", "", "runs, notifications and children of a session that is deleted, in slices"],
  ["WHERE state = 'PENDING' ORDER BY seq LIMIT 1", "runs_by_state", "the oldest run"],
  ["SELECT count(*) AS n FROM runs WHERE state = ?", "runs_by_state", "asked of open states only, by /metrics"],
  ["WITH RECURSIVE within", "sessions_by_parent", "the sessions of the tree that is asked for"],
  ["FROM notifications n JOIN", "notifications_of_parent", "what the children of one session have reported"],
  ["DELETE FROM sessions WHERE seq = ?", "", "keys of rows that were deleted before, or ends at the first row"],
  ["r.state = 'OFFERED'", "runs_by_state", "offers that are open"],
  ["SELECT max(ended_at)", "runs_ended", "the last entry"],
  ["(ended_at, seq) > (?1, ?3)", "runs_ended", "pruning goes on after what it has seen, 100 rows at a time"],
];

const texts = new Set<string>();
const collect = (text: unknown): void => void texts.add(String(text));

beforeAll(async () => {
  PREPARED.subscribe(collect);
  await everyCommand(openSqliteStore({ path: undefined }));
});
afterAll(() => PREPARED.unsubscribe(collect));

/** An empty store; with `big`, one of which SQLite believes that it is large. */
function emptyStore(big: boolean): DatabaseSync {
  const db = new DatabaseSync(":memory:");
  for (const step of MIGRATIONS) db.exec(typeof step === "string" ? step : step(db));
  if (!big) return db;
  db.exec("ANALYZE");
  const insert = db.prepare("INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES (?, ?, ?)");
  for (const [table, rows] of Object.entries(BIG)) {
    const indexes = db.prepare('SELECT name, "unique", partial FROM pragma_index_list(?)').all(table);
    for (const { name, unique, partial } of indexes) {
      const columns = db.prepare("SELECT name FROM pragma_index_info(?)").all(String(name));
      const total = partial === 1 && !String(name).endsWith("_of_runner") && name !== "runs_ended" ? FEW : rows;
      const same = columns.map((column) => Math.min(total, SHARED[String(column["name"])] ?? 10));
      if (unique === 1) same[same.length - 1] = 1;
      // Each further column narrows.
      for (let i = 1; i < same.length; i += 1) same[i] = Math.min(same[i] ?? 1, Math.ceil((same[i - 1] ?? 1) / 10));
      insert.run(table, String(name), [total, ...same].join(" "));
    }
    if (indexes.length === 0) insert.run(table, null, String(rows));
  }
  db.exec("ANALYZE sqlite_schema");
  return db;
}

function planOf(db: DatabaseSync, text: string): string[] {
  const steps = db.prepare(`EXPLAIN QUERY PLAN ${text}`).all();
  return steps.map(({ detail }) => String(detail));
}

/** Steps that read more than they look for. */
function scansOf(db: DatabaseSync, text: string): string[] {
  return planOf(db, text).filter(
    (step) => /^SCAN |\(rowid[<>]\?/.test(step) && !/^SCAN \(subquery|^SCAN \d+ CONSTANT/.test(step),
  );
}

describe("the statements of the store", () => {
  it("were all met: every SQL text of its source", () => {
    const sources = globSync(inRepository("coordinator/store/**/*.ts")).map((file) => readFileSync(file, "utf8"));
    const literals = sources.flatMap((source) =>
      [...source.matchAll(/\bsql(?:<[^;]*?>)?\(\s*(?:`([^`]*)`|"([^"]*)")/g)].map(([, a, b]) => a ?? b ?? ""),
    );
    expect(literals.length).toBeGreaterThan(60);
    const all = [...texts];
    const unmet = literals.filter((literal) => {
      const parts = literal.split(/\$\{[^}]*\}/);
      return !all.some((text) => parts.every((part) => text.includes(part)));
    });
    expect(unmet).toEqual([]);
  });

  it.each([
    ["a store of which SQLite has no statistics, as ours", false],
    ["a big store that was analyzed", true],
  ])("read no more rows as runs and sessions grow old in %s", (_, big) => {
    const db = emptyStore(big);
    const lookups = [...texts].flatMap((text) =>
      planOf(db, text)
        .filter((step) => GROWING.some((index) => step.includes(`INDEX ${index} `)))
        .filter((step) => !BOUNDED.some(([statement, index]) => text.includes(statement) && step.includes(index)))
        .map((step) => `${step}: ${text.replaceAll(/\s+/g, " ").trim().slice(-200)}`),
    );
    db.close();
    expect(lookups).toEqual([]);
  });

  it.each([
    ["a store of which SQLite has no statistics, as ours", false],
    ["a big store that was analyzed", true],
  ])("read no table as a whole in %s", (_, big) => {
    const db = emptyStore(big);
    const scans = [...texts].flatMap((text) =>
      scansOf(db, text)
        .filter((step) => !ALLOWED.some(([statement, part]) => text.includes(statement) && step.includes(part)))
        .map((step) => `${step}: ${text.replaceAll(/\s+/g, " ").trim().slice(-200)}`),
    );
    db.close();
    expect(scans).toEqual([]);
  });
});
