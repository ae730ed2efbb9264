import type { Pruned, PruneQuery } from "../store.ts";
import type { Sql } from "./tx.ts";

/** Reasons to keep a run that has ended: its session owes or expects a callback, or one with its result is under way. */
const OWED = `
  (SELECT 1 FROM sessions s WHERE s.seq = runs.session_seq AND s.callback_owed = 1
   UNION ALL SELECT 1 FROM sessions p JOIN sessions c ON c.parent_session_id = p.session_id
     WHERE p.seq = runs.session_seq AND c.callback_owed = 1
   UNION ALL SELECT 1 FROM notifications n WHERE n.parent_seq = runs.session_seq AND n.state = 'WAITING'
   UNION ALL SELECT 1 FROM notifications n WHERE n.child_run_seq = runs.seq AND n.state IN ('WAITING', 'BOUND'))`;

/** Rows that are read, or deleted by one statement, at a time. */
export const SLICE = 100;

interface EndedRow {
  seq: number;
  session_seq: number;
  ended_at: number;
  owed: number;
}

/**
 * Deletes runs that ended until `before`, oldest first, and sessions that are left without runs, for about `budgetMs`.
 * @param from `next` of the call before.
 * @returns how many runs were, or with `dryRun` would be, deleted.
 */
export function pruneRuns(sql: Sql, { before, dryRun, from, budgetMs }: PruneQuery): Pruned {
  const until = performance.now() + budgetMs;
  const select = sql<EndedRow>(
    `SELECT seq, session_seq, ended_at, EXISTS ${OWED} AS owed FROM runs INDEXED BY runs_ended
     WHERE ended_at >= ?1 AND ended_at <= ?2 AND (ended_at, seq) > (?1, ?3) ORDER BY ended_at, seq LIMIT ${SLICE}`,
  );
  let next = from ?? { endedAt: 0, seq: 0 };
  let runs = 0;
  for (;;) {
    const rows = select.all(next.endedAt, before, next.seq);
    for (const row of rows) {
      if (row.owed === 0) {
        if (!dryRun && !deleteRun(sql, row, until)) return { runs, next };
        runs += 1;
      }
      next = { endedAt: row.ended_at, seq: row.seq };
      if (performance.now() >= until) return { runs, next };
    }
    if (rows.length < SLICE) return { runs, next: undefined };
  }
}

/** Returns false when there was no time for all of it: its oldest events are gone. */
function deleteRun(sql: Sql, { seq, session_seq: sessionSeq }: EndedRow, until: number): boolean {
  if (!deleteEventsOfRun(sql, seq, until)) return false;
  sql("DELETE FROM runs WHERE seq = ?").run(seq);
  deleteEmpty(sql, sessionSeq);
  return true;
}

/** Returns false when there was no time for all of them: the oldest are gone. */
export function deleteEventsOfRun(sql: Sql, runSeq: number, until: number): boolean {
  const deletion = sql(
    `DELETE FROM events WHERE seq IN (SELECT seq FROM events WHERE run_seq = ? ORDER BY seq LIMIT ${SLICE})`,
  );
  while (deletion.run(runSeq).changes === SLICE) if (performance.now() >= until) return false;
  return true;
}

/** Deletes a session without runs and children, and then those above it that this leaves the same. */
function deleteEmpty(sql: Sql, sessionSeq: number): void {
  const deletion = sql<{ parent: number | null }>(
    `DELETE FROM sessions WHERE seq = ? AND NOT EXISTS (SELECT 1 FROM runs WHERE session_seq = sessions.seq)
       AND NOT EXISTS (SELECT 1 FROM sessions c WHERE c.parent_session_id = sessions.session_id)
     RETURNING (SELECT p.seq FROM sessions p WHERE p.session_id = sessions.parent_session_id) AS parent`,
  );
  for (let seq: number | null = sessionSeq; seq !== null;) {
    seq = deletion.first(seq)?.parent ?? null;
  }
}
