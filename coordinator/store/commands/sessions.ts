import type { Session } from "../../../gen/agentrunner/v1/session_pb.ts";
import type { UpdateSessionRequest } from "../../../gen/agentrunner/v1/session_service_pb.ts";
import { encodeMetadata } from "./rows.ts";
import type { Tx } from "./tx.ts";
import { mustBeNewName } from "./session-name.ts";
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
  if (holder?.session_id === sessionId) return;
  if (holder !== undefined) {
    throw new Refusal("ALREADY_EXISTS", `session ${holder.session_id} is named ${name}; choose another name`);
  }
  if (name !== sessionId) mustBeNewName(name);
  sql("UPDATE sessions SET session_name = ? WHERE session_id = ?").run(name, sessionId);
}
