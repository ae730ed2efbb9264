import { create } from "@bufbuild/protobuf";
import type { Run } from "../../../gen/agentrunner/v1/run_pb.ts";
import { SessionDataSchema } from "../../../gen/agentrunner/store/v1/store_pb.ts";
import { SessionEventSchema, SessionSchema, SessionStatus } from "../../../gen/agentrunner/v1/session_pb.ts";
import type { Session, SessionEvent } from "../../../gen/agentrunner/v1/session_pb.ts";
import type { RunStateName } from "../../core/run-transitions.ts";
import { bug } from "../../../lib/bug.ts";
import { sessionStatus } from "../../core/sessions/session.ts";
import { notificationsOf } from "./callbacks.ts";
import type { EventCursors } from "../event-cursors.ts";
import { decode, decodeOptional, RUN_COLUMNS } from "./rows.ts";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { RunRow } from "./rows.ts";
import { runById } from "./transition.ts";
import type { Sql } from "./tx.ts";
import { wholeRun } from "./runs.ts";
import { Refusal } from "../refusal.ts";
import type { EventPage, EventQuery } from "../store.ts";

export interface SessionRow {
  seq: number;
  session_id: string;
  session_name: string;
  parent_session_id: string;
  agent_name: string;
  project_dir: string;
  executor_session_id: string;
  executor_profile: string;
  runner_id: string;
  callback_owed: number;
  created_at: number;
  metadata: Uint8Array | null;
}

export function getSession(sql: Sql, key: { sessionId: string } | { sessionName: string }): Session | undefined {
  const row =
    "sessionId" in key
      ? sql<SessionRow>("SELECT * FROM sessions WHERE session_id = ?").first(key.sessionId)
      : sql<SessionRow>("SELECT * FROM sessions WHERE session_name = ?").first(key.sessionName);
  if (row === undefined) return undefined;
  const session = sessionMessage(sql, row);
  const children = sql<{ session_id: string }>(
    "SELECT session_id FROM sessions WHERE parent_session_id = ? ORDER BY seq DESC LIMIT ?",
  );
  const ids = children.all(row.session_id, MAX_RELATIVES).map((child) => child.session_id);
  session.childSessionIds = ids.toReversed();
  session.notifications = notificationsOf(sql, row.seq, MAX_RELATIVES);
  return session;
}

/** Child sessions and notifications that are returned with one session: the newest. */
const MAX_RELATIVES = 1000;

/** The session as it is returned, without its children and notifications. */
export function sessionMessage(sql: Sql, row: SessionRow): Session {
  const active = sql<StateRow>(
    `SELECT run_id, state FROM runs INDEXED BY one_active_run_per_session
     WHERE session_seq = ? AND at_head = 1 AND ended_at IS NULL`,
  ).first(row.seq);
  const newest = sql<StateRow>("SELECT run_id, state FROM runs WHERE session_seq = ? ORDER BY seq DESC LIMIT 1").first(
    row.seq,
  );
  const updated = sql<{ at: number }>("SELECT at FROM events WHERE session_seq = ? ORDER BY seq DESC LIMIT 1").first(
    row.seq,
  );
  const session = create(SessionSchema, {
    sessionId: row.session_id,
    sessionName: row.session_name,
    status: SessionStatus[sessionStatus(active?.state, newest?.state ?? "COMPLETED")],
    agentName: row.agent_name,
    projectDir: row.project_dir,
    parentSessionId: row.parent_session_id,
    executorSessionId: row.executor_session_id,
    executorProfile: row.executor_profile,
    runnerId: row.runner_id,
    activeRunId: active?.run_id ?? "",
    lastRunId: newest?.run_id ?? "",
    callbackOwed: row.callback_owed === 1,
    createdAt: timestampFromMs(row.created_at),
    updatedAt: timestampFromMs(updated?.at ?? row.created_at),
  });
  const metadata = decodeOptional(SessionDataSchema, row.metadata)?.metadata;
  if (metadata !== undefined) session.metadata = metadata;
  return session;
}

interface StateRow {
  run_id: string;
  state: RunStateName;
}

interface EventRow {
  seq: number;
  run_seq: number;
  attempt: number;
  at: number;
  body: Uint8Array;
}

/** @throws Refusal NOT_FOUND for a session, or a run of it, that does not exist. */
export function listEvents(sql: Sql, cursors: EventCursors, query: EventQuery): EventPage {
  const session = sql<{ seq: number }>("SELECT seq FROM sessions WHERE session_id = ?").first(query.sessionId);
  if (session === undefined) throw new Refusal("NOT_FOUND", `no session ${query.sessionId}`, "SESSION_NOT_FOUND");
  const run = query.runId === "" ? undefined : runById(sql, query.runId);
  if (query.runId !== "" && run?.session_id !== query.sessionId) {
    throw new Refusal("NOT_FOUND", `no run ${query.runId} in session ${query.sessionId}`, "RUN_NOT_FOUND");
  }
  const [of, number] = run === undefined ? ["session_seq", session.seq] : ["run_seq", run.seq];
  const rows = sql<EventRow>(
    `SELECT seq, run_seq, attempt, at, body FROM events WHERE ${of} = ? AND seq > ? ORDER BY seq LIMIT ?`,
  ).iterate(number, query.after, query.limit + 1);
  const runIds = new Map<number, string>();
  const events: SessionEvent[] = [];
  let next = query.after;
  let bytes = 0;
  let looked = 0;
  for (const row of rows) {
    bytes += row.body.length;
    if (looked === query.limit || (looked > 0 && bytes > query.maxBytes)) return { events, next, more: true };
    looked += 1;
    next = row.seq;
    const event = decode(SessionEventSchema, row.body);
    Object.assign(event, {
      sessionId: query.sessionId,
      runId: run?.run_id ?? runIdOf(sql, runIds, row.run_seq),
      attempt: row.attempt,
      time: timestampFromMs(row.at),
      cursor: cursors.cursorOf(row.seq),
    });
    events.push(event);
  }
  return { events, next, more: false };
}

function runIdOf(sql: Sql, known: Map<number, string>, runSeq: number): string {
  let runId = known.get(runSeq);
  if (runId === undefined) {
    runId = sql<{ run_id: string }>("SELECT run_id FROM runs WHERE seq = ?").first(runSeq)?.run_id;
    if (runId === undefined) throw bug("EVENT1", `an event is of run number ${runSeq}, which does not exist`);
    known.set(runSeq, runId);
  }
  return runId;
}

/** @throws Refusal NOT_FOUND, FAILED_PRECONDITION while nothing has ended. */
export function sessionResult(sql: Sql, sessionId: string, runId: string): Run {
  const row =
    runId === ""
      ? sql<RunRow>(
          `SELECT ${RUN_COLUMNS} WHERE r.seq = (
             SELECT seq FROM runs INDEXED BY runs_ended_of_session
             WHERE session_seq = (SELECT seq FROM sessions WHERE session_id = ?) AND ended_at IS NOT NULL
             ORDER BY ended_at DESC, seq DESC LIMIT 1)`,
        ).first(sessionId)
      : runById(sql, runId);
  if (row === undefined || row.session_id !== sessionId) {
    const session = sql("SELECT 1 FROM sessions WHERE session_id = ?").first(sessionId);
    if (session === undefined) throw new Refusal("NOT_FOUND", `no session ${sessionId}`, "SESSION_NOT_FOUND");
    if (runId !== "") throw new Refusal("NOT_FOUND", `no run ${runId} in session ${sessionId}`, "RUN_NOT_FOUND");
  }
  if (row === undefined || row.ended_at === null) {
    throw new Refusal(
      "FAILED_PRECONDITION",
      `${runId || `session ${sessionId}`} has no result yet; wait with WatchRun`,
    );
  }
  return wholeRun(sql, row);
}

export function leaseOfToken(
  sql: Sql,
  leaseId: string,
): { runId: string; sessionId: string; live: boolean } | undefined {
  const row = sql<{ run_id: string; session_id: string; live: number }>(
    `SELECT r.run_id, s.session_id, a.ended_at IS NULL AS live FROM attempts a
     JOIN runs r ON r.seq = a.run_seq JOIN sessions s ON s.seq = r.session_seq WHERE a.lease_id = ?`,
  ).first(leaseId);
  return row && { runId: row.run_id, sessionId: row.session_id, live: row.live === 1 };
}
