import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { RunSummarySchema } from "../../../gen/agentrunner/store/v1/store_pb.ts";
import {
  ExecutorInvocationSchema,
  ExecutorResultSchema,
  InvocationCallbackSchema,
} from "../../../gen/agentrunner/v1/executor_pb.ts";
import type { InvocationCallback } from "../../../gen/agentrunner/v1/executor_pb.ts";
import { ExecutionMode, InvocationMode } from "../../../gen/agentrunner/v1/run_pb.ts";
import { Notification_State, NotificationSchema } from "../../../gen/agentrunner/v1/session_pb.ts";
import type { Notification } from "../../../gen/agentrunner/v1/session_pb.ts";
import { afterDelivery, hasSettled, isResumed } from "../../core/sessions/callback.ts";
import { callbackPrompt, fitting, notificationText } from "../../core/sessions/callback-text.ts";
import { isFinalName } from "../../../lib/protocol/final.ts";
import type { FailureName } from "../../core/run-transitions.ts";
import type { FinalState } from "../../../lib/protocol/final.ts";
import { bug } from "../../../lib/bug.ts";
import { decode, decodeOptional } from "./rows.ts";
import type { RunRow, SpecRow } from "./rows.ts";
import { encodeSpec, insertRun } from "./insert-run.ts";
import type { RunSession, RunSpec } from "./insert-run.ts";
import { isBeingDeleted } from "./session-tree.ts";
import type { Sql, Tx } from "./tx.ts";

/** Notifications that one resume run looks at; those that do not fit wait for the next. */
const MAX_BOUND = 1000;

interface SessionRow extends RunSession {
  session_id: string;
  parent_session_id: string;
  callback_owed: number;
}

/**
 * Draws the consequences of runs that ended, in the transaction in which they ended: what they delivered is consumed or
 * is waiting once more; a session that has settled is told to its parent; a session that is idle is resumed by what waits for it.
 */
export function settleEnded(tx: Tx, newRunId: () => string): void {
  for (let row = tx.endedRuns.shift(); row !== undefined; row = tx.endedRuns.shift()) {
    concludeDelivery(tx, row);
    settle(tx, row.session_seq, newRunId);
  }
}

function concludeDelivery({ sql }: Tx, row: RunRow): void {
  if (!isFinalName(row.state)) return;
  const bound = sql<{ seq: number; deliveries: number; session_id: string }>(
    `SELECT n.seq, n.deliveries, s.session_id FROM notifications n JOIN sessions s ON s.seq = n.child_seq
     WHERE n.run_seq = ? AND n.state = 'BOUND'`,
  ).all(row.seq);
  for (const { seq, deliveries, session_id } of bound) {
    const ended = { state: row.state, failure: row.failure ?? undefined, started: row.started_at !== null };
    const state = afterDelivery(ended, deliveries);
    // Its parent would be resumed to hear of a session that is not there.
    if (state === "WAITING" && isBeingDeleted({ session_id })) {
      sql("DELETE FROM notifications WHERE seq = ?").run(seq);
      continue;
    }
    // A run that was stopped before its executor was started has delivered nothing.
    const counted = state === "WAITING" && row.state === "STOPPED" ? deliveries - 1 : deliveries;
    sql("UPDATE notifications SET state = ?, deliveries = ? WHERE seq = ?").run(state, counted, seq);
  }
}

/** Tells the parent of a session that has settled, and resumes a session for which notifications wait. */
function settle(tx: Tx, sessionSeq: number, newRunId: () => string): void {
  const quiet = quietSession(tx.sql, sessionSeq);
  if (quiet === undefined) return;
  const { session, lastRun, last } = quiet;
  const waiting = hasWaiting(tx.sql, session.seq);
  const unsettledChildren = !waiting && hasOwing(tx.sql, session.session_id);
  if (session.callback_owed === 1 && hasSettled({ lastRun, waiting, unsettledChildren })) {
    notifyParent(tx, session, last, newRunId);
  }
  if (isResumed({ lastRun, waiting, unsettledChildren })) bind(tx, session, last, newRunId);
}

/** The session with its newest run; undefined while a run of it is active or waits. */
function quietSession(
  sql: Sql,
  sessionSeq: number,
): { session: SessionRow; lastRun: FinalState; last: number } | undefined {
  if (
    sql("SELECT 1 FROM runs INDEXED BY runs_open_of_session WHERE session_seq = ? AND ended_at IS NULL LIMIT 1").first(
      sessionSeq,
    )
  )
    return undefined;
  const last = sql<{ seq: number; state: FinalState }>(
    "SELECT seq, state FROM runs WHERE session_seq = ? ORDER BY seq DESC LIMIT 1",
  ).first(sessionSeq);
  const session = sql<SessionRow>(
    `SELECT seq, session_id, parent_session_id, callback_owed, runner_id, executor_profile, portable
     FROM sessions WHERE seq = ?`,
  );
  const row = session.first(sessionSeq);
  if (last === undefined || row === undefined) return undefined;
  return { session: row, lastRun: last.state, last: last.seq };
}

function hasWaiting(sql: Sql, sessionSeq: number): boolean {
  const waiting = sql("SELECT 1 FROM notifications WHERE parent_seq = ? AND state = 'WAITING' LIMIT 1");
  return waiting.first(sessionSeq) !== undefined;
}

function hasOwing(sql: Sql, sessionId: string): boolean {
  const child = sql("SELECT 1 FROM sessions WHERE parent_session_id = ? AND callback_owed = 1 LIMIT 1");
  return child.first(sessionId) !== undefined;
}

/** True while children of the session are still to be told of, or are told of in a run to come. */
export function awaitsCallbacks(sql: Sql, sessionSeq: number, sessionId: string): boolean {
  return hasWaiting(sql, sessionSeq) || hasOwing(sql, sessionId);
}

function notifyParent(tx: Tx, child: SessionRow, lastRunSeq: number, newRunId: () => string): void {
  tx.sql("UPDATE sessions SET callback_owed = 0 WHERE seq = ?").run(child.seq);
  const parent = tx
    .sql<{ seq: number }>("SELECT seq FROM sessions WHERE session_id = ?")
    .first(child.parent_session_id);
  // A parent that was deleted has nobody left to tell.
  if (parent === undefined) return;
  const parentSeq = parent.seq;
  tx.sql(
    `INSERT INTO notifications (parent_seq, child_seq, child_run_seq, state, created_at)
     VALUES (:parentSeq, :childSeq, :lastRunSeq, 'WAITING', :now)`,
  ).run({ parentSeq, childSeq: child.seq, lastRunSeq, now: tx.now });
  settle(tx, parentSeq, newRunId);
}

interface ChildRow {
  seq: number;
  deliveries: number;
  run_seq: number;
  run_id: string;
  state: FinalState;
  failure: FailureName | null;
  message: string;
  session_id: string;
  session_name: string;
  agent_name: string;
  result: Uint8Array | null;
}

/** Binds what waits to one new run, whose prompt is fixed now; what does not fit, and what comes later, waits. */
function bind(tx: Tx, session: SessionRow, lastRunSeq: number, newRunId: () => string): void {
  const rows = tx
    .sql<ChildRow>(
      `SELECT n.seq, n.deliveries, r.seq AS run_seq, r.run_id, r.state, r.failure, r.message, s.session_id, s.session_name,
         s.agent_name, (SELECT result FROM run_results WHERE run_seq = r.seq) AS result
       FROM notifications n JOIN runs r ON r.seq = n.child_run_seq JOIN sessions s ON s.seq = n.child_seq
       WHERE n.parent_seq = ? AND n.state = 'WAITING' ORDER BY n.seq LIMIT ${MAX_BOUND}`,
    )
    .all(session.seq);
  const texts = rows.map(textOf);
  const count = fitting(texts);
  const bound = rows.slice(0, count);
  const callback = create(InvocationCallbackSchema, { childSessionIds: bound.map((child) => child.session_id) });
  const prompt = callbackPrompt(texts.slice(0, count));
  const spec = resumeSpec(tx.sql, lastRunSeq, { runId: newRunId(), prompt, callback });
  const row = insertRun(tx, session, spec, encodeSpec(spec), true);
  const update = tx.sql(
    "UPDATE notifications SET state = 'BOUND', run_seq = ?, deliveries = deliveries + 1 WHERE seq = ?",
  );
  for (const { seq } of bound) update.run(row.seq, seq);
}

function textOf(row: ChildRow): string {
  const result = decodeOptional(ExecutorResultSchema, row.result);
  return notificationText({
    sessionId: row.session_id,
    sessionName: row.session_name,
    agentName: row.agent_name,
    runId: row.run_id,
    state: row.state,
    failure: row.failure ?? undefined,
    message: row.message,
    resultText: result?.text ?? "",
    resultData: result?.data === undefined ? "" : JSON.stringify(result.data),
    redelivered: row.deliveries > 0,
  });
}

/** A resume run asks for what the session's last run asked for, with the same blueprint and metadata. */
function resumeSpec(
  sql: Sql,
  lastRunSeq: number,
  { runId, prompt, callback }: { runId: string; prompt: string; callback: InvocationCallback },
): RunSpec {
  const last = sql<SpecRow & { agent_seq: number | null }>(
    "SELECT summary, content, agent_seq FROM run_specs WHERE run_seq = ?",
  ).first(lastRunSeq);
  if (last === undefined) throw bug("SPEC5", `run number ${lastRunSeq} has no spec`);
  const summary = decode(RunSummarySchema, last.summary);
  Object.assign(summary, {
    mode: InvocationMode.RESUME,
    anyRunner: false,
    executionMode: ExecutionMode.SYNC,
    callback,
  });
  const invocation = decode(ExecutorInvocationSchema, last.content);
  Object.assign(invocation, { mode: "resume", runId, prompt, callback, parameters: undefined });
  return { summary, invocation, agentSeq: last.agent_seq, requestId: "", requestHash: new Uint8Array() };
}

/** The newest notifications for a session, at most `limit`, oldest first. */
export function notificationsOf(sql: Sql, sessionSeq: number, limit: number): Notification[] {
  const rows = sql<{
    child: string;
    child_run: string;
    state: keyof typeof Notification_State;
    run: string | null;
    deliveries: number;
    created_at: number;
  }>(
    `SELECT c.session_id AS child, r.run_id AS child_run, n.state, d.run_id AS run, n.deliveries, n.created_at
     FROM notifications n JOIN sessions c ON c.seq = n.child_seq JOIN runs r ON r.seq = n.child_run_seq
     LEFT JOIN runs d ON d.seq = n.run_seq
     WHERE n.parent_seq = ? ORDER BY n.seq DESC LIMIT ?`,
  ).all(sessionSeq, limit);
  const shown = rows.filter((row) => !isBeingDeleted({ session_id: row.child }));
  return shown.toReversed().map((row) =>
    create(NotificationSchema, {
      childSessionId: row.child,
      childRunId: row.child_run,
      state: Notification_State[row.state],
      runId: row.run ?? "",
      deliveries: row.deliveries,
      createdAt: timestampFromMs(row.created_at),
    }),
  );
}
