import { isOverdue, unmatchedSince } from "../../core/no-match.ts";
import { runColumnsBy } from "./rows.ts";
import type { RunRow } from "./rows.ts";
import { apply, runBySeq } from "./transition.ts";
import type { Sql, Tx } from "./tx.ts";

/** Runs that one command fails, and rows that it reads to find them, so that none holds the store for long. */
const BATCH = 100;
const LOOKED_AT = 5_000;

/** The runs of a class that can be offered; binds the class. */
const PENDING_OF_CLASS = "r.demand_class = ? AND r.state = 'PENDING' AND r.at_head = 1";

/** Starts the no-match clock of a class, or ends it. */
export function setUnmatched(sql: Sql, demandClass: string, since: number | undefined): void {
  if (since === undefined) sql("DELETE FROM unmatched_classes WHERE demand_class = ?").run(demandClass);
  else sql("INSERT OR REPLACE INTO unmatched_classes (demand_class, since) VALUES (?, ?)").run(demandClass, since);
}

export function unmatchedClasses(sql: Sql, before: number): string[] {
  const rows = sql<{ demand_class: string }>("SELECT demand_class FROM unmatched_classes WHERE since < ?").all(before);
  return rows.map((row) => row.demand_class);
}

/** Fails pending runs of a class: with UNMATCHED those that have been so since `unmatchedBefore`, with AFFINITY_LOST all. */
export function failPending(
  tx: Tx,
  demandClass: string,
  event: "UNMATCHED" | "AFFINITY_LOST",
  message: string,
  unmatchedBefore: number,
): number {
  const rows =
    event === "UNMATCHED"
      ? overdue(tx, demandClass, unmatchedBefore).map((seq) => runBySeq(tx.sql, seq))
      : tx
          .sql<RunRow>(`SELECT ${runColumnsBy("runs_pending")} WHERE ${PENDING_OF_CLASS} ORDER BY r.seq LIMIT ${BATCH}`)
          .all(demandClass);
  for (const row of rows) apply(tx, row, { type: event, message });
  return rows.length;
}

/** Since when nothing matches the runs of a class; undefined while something does. */
export function classUnmatchedSince(sql: Sql, demandClass: string): number | undefined {
  return sql<{ since: number }>("SELECT since FROM unmatched_classes WHERE demand_class = ?").first(demandClass)?.since;
}

function overdue({ sql, now }: Tx, demandClass: string, before: number): number[] {
  const classSince = classUnmatchedSince(sql, demandClass);
  if (classSince === undefined) return [];
  const pending = sql<{ seq: number; created_at: number; since: number }>(
    `SELECT r.seq, r.created_at, coalesce(r.unmatched_since, r.created_at) AS since FROM runs r INDEXED BY runs_pending
     WHERE ${PENDING_OF_CLASS} ORDER BY r.seq LIMIT ${LOOKED_AT}`,
  );
  const found: number[] = [];
  for (const { seq, created_at: createdAt, since } of pending.iterate(demandClass)) {
    // Runs stand in the order in which they were made, so those behind are younger still; unless the clock was set back.
    if (found.length === BATCH || (createdAt >= before && createdAt <= now)) break;
    if (isOverdue(unmatchedSince(classSince, since) ?? now, before, now)) found.push(seq);
  }
  return found;
}
