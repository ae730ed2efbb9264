import { create } from "@bufbuild/protobuf";
import { RunSchema } from "../../../gen/agentrunner/v1/run_pb.ts";
import type { Session } from "../../../gen/agentrunner/v1/session_pb.ts";
import type { UpdateSessionRequest } from "../../../gen/agentrunner/v1/session_service_pb.ts";
import { WITHIN } from "./session-tree.ts";
import { encode } from "./rows.ts";
import type { Tx } from "./transition.ts";
import { getSession } from "./session-queries.ts";
import { Refusal } from "../store.ts";

/** @throws Refusal as SessionService.UpdateSession says. */
export function updateSession(tx: Tx, request: UpdateSessionRequest): Session {
  const { sessionId, sessionName, metadata, updateMask } = request;
  for (const path of updateMask?.paths ?? []) {
    if (path === "session_name") rename(tx, sessionId, sessionName);
    else if (path === "metadata") {
      const blob = metadata === undefined ? null : encode(RunSchema, create(RunSchema, { metadata }));
      tx.sql("UPDATE sessions SET metadata = ? WHERE session_id = ?").run(blob, sessionId);
    } else throw new Refusal("INVALID_ARGUMENT", `${path} cannot be changed; session_name and metadata can`);
  }
  const session = getSession(tx.sql, { sessionId });
  if (session === undefined) throw new Refusal("NOT_FOUND", `no session ${sessionId}`);
  return session;
}

function rename({ sql }: Tx, sessionId: string, sessionName: string): void {
  const name = sessionName || sessionId;
  const holder = sql("SELECT session_id FROM sessions WHERE session_name = ?").get(name)?.["session_id"];
  if (holder !== undefined && holder !== sessionId) {
    throw new Refusal("ALREADY_EXISTS", `session ${String(holder)} is named ${name}; choose another name`);
  }
  sql("UPDATE sessions SET session_name = ? WHERE session_id = ?").run(name, sessionId);
}

/** Deletes a session with its runs and events; its children stay, without a parent. @throws Refusal as DeleteSession says. */
export function deleteSession({ sql }: Tx, sessionId: string): void {
  const session = sql("SELECT seq FROM sessions WHERE session_id = ?").get(sessionId);
  if (session === undefined) throw new Refusal("NOT_FOUND", `no session ${sessionId}`);
  const open = sql(
    `SELECT r.run_id, s.session_id FROM runs r JOIN sessions s ON s.seq = r.session_seq
     WHERE r.ended_at IS NULL AND r.session_seq IN ${WITHIN} ORDER BY r.seq LIMIT 1`,
  ).get(sessionId);
  if (open !== undefined) {
    const where = open["session_id"] === sessionId ? "it" : `session ${String(open["session_id"])} below it`;
    const run = String(open["run_id"]);
    throw new Refusal(
      "FAILED_PRECONDITION",
      `${where} is active with ${run}; stop that first: ao runs stop ${run} --tree`,
    );
  }
  const seq = Number(session["seq"]);
  sql("DELETE FROM events WHERE session_seq = ?").run(seq);
  sql("DELETE FROM notifications WHERE parent_seq = ?1 OR child_seq = ?1").run(seq);
  sql("DELETE FROM runs WHERE session_seq = ?").run(seq);
  sql("UPDATE sessions SET parent_session_id = '', callback_owed = 0 WHERE parent_session_id = ?").run(sessionId);
  sql("DELETE FROM sessions WHERE seq = ?").run(seq);
}
