import { ExecutionMode } from "../../../gen/agentrunner/v1/run_pb.ts";
import type { CreateRunRequest } from "../../../gen/agentrunner/v1/run_service_pb.ts";
import type { Sql, Tx } from "./tx.ts";
import type { RunStateName } from "../../core/run.ts";
import { Refusal } from "../refusal.ts";
import type { TreeLimits } from "../store.ts";

/** Session numbers at or below the session whose id is bound. */
export const WITHIN = `
  (WITH RECURSIVE within (session_id, seq) AS (
     SELECT session_id, seq FROM sessions WHERE session_id = ?
     UNION SELECT c.session_id, c.seq FROM sessions c JOIN within w ON c.parent_session_id = w.session_id
   ) SELECT seq FROM within)`;

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
    `SELECT count(*) AS n FROM sessions c WHERE c.parent_session_id = ?
       AND EXISTS (SELECT 1 FROM runs INDEXED BY runs_open_of_session WHERE session_seq = c.seq AND ended_at IS NULL)`,
  ).first(parentSessionId);
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
  sql(`UPDATE sessions SET callback_owed = 0 WHERE callback_owed = 1 AND session_id <> ? AND seq IN ${WITHIN}`).run(
    sessionId,
    sessionId,
  );
}
