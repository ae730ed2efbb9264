import type { FoundRuns, RunAbbreviation } from "../store.ts";
import { encodedSummary } from "./list-runs.ts";
import { RUN_COLUMNS, runMessage } from "./rows.ts";
import type { RunRow } from "./rows.ts";
import { isBeingDeleted, isWithin } from "./session-tree.ts";
import type { Sql } from "./tx.ts";

/** Ids that are looked at for a caller who sees only a tree of sessions. */
const MAX_LOOKED_AT = 1_000;

/** Reads a stretch of the index of an id: as many entries as are wanted, however many begin so. */
export function findRuns(sql: Sql, query: RunAbbreviation): FoundRuns {
  const { type, prefix, limit, withinSessionId } = query;
  const lookAt = withinSessionId === undefined ? limit + 1 : MAX_LOOKED_AT;
  const exact = beginning(sql, type, prefix, prefix, 1);
  // A character that is in no id, and after every other.
  const seqs = exact.length > 0 ? exact : beginning(sql, type, prefix, `${prefix}\u{10ffff}`, lookAt);
  const found: RunRow[] = [];
  for (const seq of seqs) {
    const row = sql<RunRow>(`SELECT ${RUN_COLUMNS} WHERE r.seq = ?`).first(seq);
    if (row !== undefined && isSeen(sql, row, withinSessionId)) found.push(row);
    if (found.length > limit) break;
  }
  const runs = found.slice(0, limit).map((row) => runMessage(row, { summary: encodedSummary(sql, row) }));
  return { runs, more: found.length > limit || seqs.length === lookAt };
}

/** Numbers of the runs whose id stands from `from` to `to` in its index, the last one first. */
function beginning(sql: Sql, type: RunAbbreviation["type"], from: string, to: string, limit: number): number[] {
  const values = [from, to, limit] as const;
  switch (type) {
    case "run-id":
      return sql<SeqRow>("SELECT seq FROM runs WHERE run_id BETWEEN ? AND ? ORDER BY run_id DESC LIMIT ?")
        .all(...values)
        .map(({ seq }) => seq);
    case "request-id":
      return sql<SeqRow>("SELECT seq FROM runs WHERE request_id BETWEEN ? AND ? ORDER BY request_id DESC LIMIT ?")
        .all(...values)
        .map(({ seq }) => seq);
    case "session-id":
      return sql<SeqRow>("SELECT seq FROM sessions WHERE session_id BETWEEN ? AND ? ORDER BY session_id DESC LIMIT ?")
        .all(...values)
        .flatMap(({ seq }) => newestRun(sql, seq));
    default:
      return type satisfies never;
  }
}

interface SeqRow {
  seq: number;
}

function newestRun(sql: Sql, sessionSeq: number): number[] {
  const newest = sql<SeqRow>("SELECT seq FROM runs WHERE session_seq = ? ORDER BY seq DESC LIMIT 1").first(sessionSeq);
  return newest === undefined ? [] : [newest.seq];
}

function isSeen(sql: Sql, row: RunRow, withinSessionId: string | undefined): boolean {
  if (isBeingDeleted(row)) return false;
  return withinSessionId === undefined || isWithin(sql, row.session_id, withinSessionId);
}
