import type { Session } from "../../../gen/agentrunner/v1/session_pb.ts";
import type { UpdateSessionRequest } from "../../../gen/agentrunner/v1/session_service_pb.ts";
import { WITHIN } from "./session-tree.ts";
import { encodeMetadata } from "./rows.ts";
import type { Tx } from "./tx.ts";
import { getSession } from "./session-queries.ts";
import { Refusal } from "../refusal.ts";

/** @throws Refusal as SessionService.UpdateSession says. */
export function updateSession(tx: Tx, request: UpdateSessionRequest): Session {
  const { sessionId, sessionName, metadata, updateMask } = request;
  for (const path of updateMask?.paths ?? []) {
    if (path === "session_name") rename(tx, sessionId, sessionName);
    else if (path === "metadata") {
      tx.sql("UPDATE sessions SET metadata = ? WHERE session_id = ?").run(encodeMetadata(metadata), sessionId);
    } else throw new Refusal("INVALID_ARGUMENT", `${path} cannot be changed; session_name and metadata can`);
  }
  const session = getSession(tx.sql, { sessionId });
  if (session === undefined) throw new Refusal("NOT_FOUND", `no session ${sessionId}`, "SESSION_NOT_FOUND");
  return session;
}

function rename({ sql }: Tx, sessionId: string, sessionName: string): void {
  const name = sessionName || sessionId;
  const holder = sql<{ session_id: string }>("SELECT session_id FROM sessions WHERE session_name = ?").first(name);
  if (holder !== undefined && holder.session_id !== sessionId) {
    throw new Refusal("ALREADY_EXISTS", `session ${holder.session_id} is named ${name}; choose another name`);
  }
  sql("UPDATE sessions SET session_name = ? WHERE session_id = ?").run(name, sessionId);
}

/** Deletes a session with its runs and events; its children stay, without a parent. @throws Refusal as DeleteSession says. */
export function deleteSession({ sql }: Tx, sessionId: string): void {
  const session = sql<{ seq: number }>("SELECT seq FROM sessions WHERE session_id = ?").first(sessionId);
  if (session === undefined) throw new Refusal("NOT_FOUND", `no session ${sessionId}`, "SESSION_NOT_FOUND");
  const open = sql<{ run_id: string; session_id: string }>(
    `SELECT r.run_id, s.session_id FROM runs r INDEXED BY runs_open_of_session JOIN sessions s ON s.seq = r.session_seq
     WHERE r.ended_at IS NULL AND r.session_seq IN ${WITHIN} ORDER BY r.seq LIMIT 1`,
  ).first(sessionId);
  if (open !== undefined) {
    const where = open.session_id === sessionId ? "it" : `session ${open.session_id} below it`;
    const run = open.run_id;
    throw new Refusal(
      "FAILED_PRECONDITION",
      `${where} is active with ${run}; stop that first: ao runs stop ${run} --tree`,
    );
  }
  const { seq } = session;
  sql("DELETE FROM events WHERE session_seq = ?").run(seq);
  sql("DELETE FROM notifications WHERE parent_seq = ?1 OR child_seq = ?1").run(seq);
  sql("DELETE FROM runs WHERE session_seq = ?").run(seq);
  sql("UPDATE sessions SET parent_session_id = '', callback_owed = 0 WHERE parent_session_id = ?").run(sessionId);
  sql("DELETE FROM sessions WHERE seq = ?").run(seq);
}
