import { ExecutionMode } from "../../../gen/agentrunner/v1/run_pb.ts";
import type { CreateRunRequest } from "../../../gen/agentrunner/v1/run_service_pb.ts";
import type { Sql, Tx } from "./tx.ts";
import type { RunStateName } from "../../core/run-transitions.ts";
import { Refusal } from "../refusal.ts";
import type { TreeLimits } from "../store.ts";

/** What the ids of sessions begin with that are being deleted; nobody can know the rest. */
export const DELETED = "deleted_";

/** True for a session, or a run of one, that is there for nobody any more. */
export function isBeingDeleted({ session_id: sessionId }: { readonly session_id: string }): boolean {
  return sessionId.startsWith(DELETED);
}

/** Session numbers at or below the session whose id is bound: all of them, however many. */
export const WITHIN = `
  (WITH RECURSIVE within (session_id, seq) AS (
     SELECT session_id, seq FROM sessions WHERE session_id = ?
     UNION SELECT c.session_id, c.seq FROM sessions c JOIN within w ON c.parent_session_id = w.session_id
   ) SELECT seq FROM within)`;

/** As `WITHIN`, of the sessions below only those that have an open run at or below them. */
export const OPEN_WITHIN = `
  (WITH RECURSIVE within (seq) AS (
     SELECT seq FROM sessions WHERE session_id = ?
     UNION ALL SELECT o.session_seq FROM within w JOIN open_below o ON o.parent_seq = w.seq
   ) SELECT seq FROM within)`;

/** True when the session is the other or stands below it; looks at no session beside those above it. */
export function isWithin(sql: Sql, sessionId: string, ancestorId: string): boolean {
  const found = sql(
    `WITH RECURSIVE above (session_id, parent_session_id) AS (
       SELECT session_id, parent_session_id FROM sessions WHERE session_id = ?
       UNION SELECT p.session_id, p.parent_session_id FROM above a JOIN sessions p ON p.session_id = a.parent_session_id
     ) SELECT 1 FROM above WHERE session_id = ?`,
  );
  return found.first(sessionId, ancestorId) !== undefined;
}

/** A run of a session was made (1) or has ended (-1): the sessions above learn that one more, or less, is open below them. */
export function countOpen(
  sql: Sql,
  session: { readonly session_seq: number; readonly parent_session_id: string },
  more: 1 | -1,
): void {
  const parentOf = sql<{ seq: number; parent_session_id: string }>(
    "SELECT seq, parent_session_id FROM sessions WHERE session_id = ?",
  );
  let child = session.session_seq;
  for (let parentId = session.parent_session_id; parentId !== "";) {
    const parent = parentOf.first(parentId);
    if (parent === undefined) return;
    if (more === 1) {
      sql(
        `INSERT INTO open_below (session_seq, parent_seq, runs) VALUES (?, ?, 1)
         ON CONFLICT (session_seq) DO UPDATE SET runs = runs + 1`,
      ).run(child, parent.seq);
    } else if (sql("DELETE FROM open_below WHERE session_seq = ? AND runs <= 1").run(child).changes === 0) {
      sql("UPDATE open_below SET runs = runs - 1 WHERE session_seq = ?").run(child);
    }
    child = parent.seq;
    parentId = parent.parent_session_id;
  }
}

/** Depth that a new child of the session has. @throws Refusal NOT_FOUND; FAILED_PRECONDITION at a limit, and in a stop. */
export function childDepth({ sql }: Tx, parentSessionId: string, limits: TreeLimits): number {
  const parent = sql<{ seq: number; depth: number }>("SELECT seq, depth FROM sessions WHERE session_id = ?").first(
    parentSessionId,
  );
  if (parent === undefined)
    throw new Refusal("NOT_FOUND", `no session ${parentSessionId} to be the parent`, "SESSION_NOT_FOUND");
  // Else the tree of an agent that is being stopped would grow on while it ends.
  if (isStopping(sql, parent.seq)) {
    const message = `session ${parentSessionId} is being stopped and may not start sessions`;
    throw new Refusal("FAILED_PRECONDITION", `${message}: end what you do`);
  }
  const depth = parent.depth + 1;
  if (depth > limits.maxDepth) {
    const message = `session ${parentSessionId} is ${depth - 1} levels deep and may not start sessions (--max-depth ${limits.maxDepth})`;
    throw new Refusal("FAILED_PRECONDITION", `${message}: do the work in it instead`);
  }
  const open = sql<{ n: number }>(
    `SELECT count(*) AS n FROM open_below o WHERE o.parent_seq = ?
       AND EXISTS (SELECT 1 FROM runs INDEXED BY runs_open_of_session WHERE session_seq = o.session_seq AND ended_at IS NULL)`,
  ).first(parent.seq);
  if ((open?.n ?? 0) >= limits.maxChildren) {
    const message = `session ${parentSessionId} has ${limits.maxChildren} child sessions at work (--max-children)`;
    throw new Refusal("FAILED_PRECONDITION", `${message}: wait until some have ended`);
  }
  return depth;
}

function isStopping(sql: Sql, sessionSeq: number): boolean {
  const active = sql<{ state: RunStateName }>(
    "SELECT state FROM runs WHERE session_seq = ? AND at_head = 1 AND ended_at IS NULL",
  );
  return active.first(sessionSeq)?.state === "STOPPING";
}

/**
 * With ASYNC_CALLBACK the session owes its parent a callback from now on, whoever resumes it, until it settles.
 * @throws Refusal INVALID_ARGUMENT when the session is not the parent's child.
 */
export function oweCallback({ sql }: Tx, sessionSeq: number, request: CreateRunRequest): void {
  if (request.executionMode !== ExecutionMode.ASYNC_CALLBACK) return;
  const owes = sql("UPDATE sessions SET callback_owed = 1 WHERE seq = ? AND parent_session_id = ?");
  if (owes.run(sessionSeq, request.parentSessionId).changes === 1) return;
  throw new Refusal(
    "INVALID_ARGUMENT",
    `the session is not a child of ${request.parentSessionId} and cannot call it back: use SYNC or ASYNC_POLL`,
  );
}

/** A whole tree is stopped: no session in it is to be resumed by the end of another. */
export function cancelCallbacks({ sql }: Tx, sessionId: string): void {
  sql(
    `UPDATE sessions SET callback_owed = 0 WHERE callback_owed = 1 AND session_id <> ? AND seq IN ${OPEN_WITHIN}`,
  ).run(sessionId, sessionId);
}
