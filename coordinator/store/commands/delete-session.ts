import { newId } from "../../../lib/ids.ts";
import { Refusal } from "../refusal.ts";
import { deleteEventsOfRun, SLICE } from "./prune.ts";
import { runColumnsBy } from "./rows.ts";
import type { RunRow } from "./rows.ts";
import { DELETED, OPEN_WITHIN } from "./session-tree.ts";
import type { Sql, Tx } from "./tx.ts";

/*
 * A session can have any number of runs, events and children, so it is deleted in slices. The first one takes its id, its
 * name and its place among others from it: from then on it is there for nobody, and nobody sees a half of it. What is left
 * is kept in `deletions`, and a coordinator that starts goes on with it.
 */

/**
 * Deletes a session; its children stay, without a parent. What takes longer than `budgetMs` is left to `finishDeletions`.
 * @returns true when something is left. @throws Refusal as DeleteSession says.
 */
export function deleteSession({ sql }: Tx, sessionId: string, budgetMs: number): boolean {
  const session = sql<{ seq: number; parent: number | null }>(
    `SELECT seq, (SELECT p.seq FROM sessions p WHERE p.session_id = s.parent_session_id) AS parent
     FROM sessions s WHERE session_id = ?`,
  ).first(sessionId);
  if (session === undefined) throw new Refusal("NOT_FOUND", `no session ${sessionId}`, "SESSION_NOT_FOUND");
  mustBeQuiet(sql, sessionId);
  const { seq, parent } = session;
  // Its parent would be resumed to hear of a session that is not there.
  sql(
    `DELETE FROM notifications INDEXED BY notifications_waiting
     WHERE parent_seq = ? AND state = 'WAITING' AND child_seq = ?`,
  ).run(parent, seq);
  const nobodys = `${DELETED}${newId("ses")}`;
  sql("INSERT INTO deletions (session_seq, session_id) VALUES (?, ?)").run(seq, sessionId);
  sql(
    `UPDATE sessions SET session_id = :nobodys, session_name = :nobodys, parent_session_id = '', callback_owed = 0
     WHERE seq = :seq`,
  ).run({ nobodys, seq });
  return finishDeletions(sql, budgetMs);
}

function mustBeQuiet(sql: Sql, sessionId: string): void {
  const open = sql<RunRow>(
    `SELECT ${runColumnsBy("runs_open_of_session")}
     WHERE r.ended_at IS NULL AND r.session_seq IN ${OPEN_WITHIN} ORDER BY r.seq LIMIT 1`,
  ).first(sessionId);
  if (open === undefined) return;
  const where = open.session_id === sessionId ? "it" : `session ${open.session_id} below it`;
  const run = open.run_id;
  throw new Refusal(
    "FAILED_PRECONDITION",
    `${where} is active with ${run}; stop that first: ao runs stop ${run} --tree`,
  );
}

/** Goes on for about `budgetMs` with deleting sessions. @returns true when something is left. */
export function finishDeletions(sql: Sql, budgetMs: number): boolean {
  const until = performance.now() + budgetMs;
  const first = sql<{ session_seq: number; session_id: string }>(
    "SELECT session_seq, session_id FROM deletions ORDER BY session_seq LIMIT 1",
  );
  for (let next = first.first(); next !== undefined; next = first.first()) {
    if (!deleteRest(sql, next.session_seq, next.session_id, until)) return true;
  }
  return false;
}

/** Returns false when there was no time for all of it. */
function deleteRest(sql: Sql, seq: number, sessionId: string, until: number): boolean {
  const rest = [
    sql(
      `UPDATE sessions SET parent_session_id = '', callback_owed = 0 WHERE seq IN
         (SELECT seq FROM sessions WHERE parent_session_id = ? ORDER BY seq LIMIT ?)`,
    ),
    sql(
      "DELETE FROM notifications WHERE seq IN (SELECT seq FROM notifications WHERE parent_seq = ? ORDER BY seq LIMIT ?)",
    ),
  ];
  for (const [i, slice] of rest.entries()) {
    while (slice.run(i === 0 ? sessionId : seq, SLICE).changes === SLICE) if (performance.now() >= until) return false;
  }
  const runs = sql<{ seq: number }>("SELECT seq FROM runs WHERE session_seq = ? ORDER BY seq LIMIT ?");
  for (let rows = runs.all(seq, SLICE); rows.length > 0; rows = runs.all(seq, SLICE)) {
    for (const run of rows) {
      if (!deleteEventsOfRun(sql, run.seq, until)) return false;
      sql("DELETE FROM runs WHERE seq = ?").run(run.seq);
      if (performance.now() >= until) return false;
    }
  }
  sql("DELETE FROM sessions WHERE seq = ?").run(seq);
  sql("DELETE FROM deletions WHERE session_seq = ?").run(seq);
  return true;
}
