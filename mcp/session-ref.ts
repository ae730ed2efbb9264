import { z } from "zod";
import type { ToolCaller } from "./caller.ts";
import { ToolError } from "./errors.ts";

const ID_MAX = 64;
const NAME_MAX = 128;

/** One session, as an argument of a tool. */
export const sessionId = z
  .string()
  .max(ID_MAX)
  .optional()
  .describe("The session, `ses_…`, as start_agent_session returned it. Needed, unless session_name is given.");
export const sessionName = z.string().max(NAME_MAX).optional().describe("The session by its name instead.");

/** Several sessions, as arguments of a tool. */
export const MAX_SESSIONS = 50;
export const sessionIds = z
  .array(z.string().min(1).max(ID_MAX))
  .max(MAX_SESSIONS)
  .default([])
  .describe("The sessions, `ses_…`, as start_agent_session returned them. Needed, unless session_names are given.");
export const sessionNames = z
  .array(z.string().min(1).max(NAME_MAX))
  .max(MAX_SESSIONS)
  .default([])
  .describe("Sessions by their names.");

const WHENCE = "start_agent_session returns them, list_agent_sessions lists those there are. Nothing was done.";

/** How a call says which session it means. */
export interface SessionRef {
  readonly session_id?: string | undefined;
  readonly session_name?: string | undefined;
}

/**
 * The id of the session that is meant. A session_id that is none is taken for a name: models mix the two up.
 *
 * @throws ToolError when the call names none, or two; ConnectError when no session has the name.
 */
export async function sessionOf(ref: SessionRef, caller: ToolCaller, signal: AbortSignal): Promise<string> {
  const { session_id: id = "", session_name: name = "" } = ref;
  if (id === "" && name === "") {
    throw new ToolError(`session_id or session_name is needed: ${WHENCE}`);
  }
  const byId = id === "" || id.startsWith("ses_") ? id : await idOfName(id, caller, signal);
  if (name === "") return byId;
  const byName = await idOfName(name, caller, signal);
  if (byId !== "" && byId !== byName) {
    throw new ToolError(
      `session_id ${id} and session_name ${JSON.stringify(name)} (${byName}) are two sessions. Nothing was done; give one.`,
    );
  }
  return byName;
}

/**
 * The ids of several sessions, each once, with the name by which it was asked for.
 *
 * @throws as sessionOf.
 */
export async function sessionsOf(
  {
    session_ids,
    session_names,
  }: { readonly session_ids: readonly string[]; readonly session_names: readonly string[] },
  caller: ToolCaller,
  signal: AbortSignal,
): Promise<ReadonlyMap<string, string | undefined>> {
  const refs: SessionRef[] = [
    ...session_ids.map((session_id) => ({ session_id })),
    ...session_names.map((session_name) => ({ session_name })),
  ];
  if (refs.length === 0) throw new ToolError(`session_ids or session_names is needed: ${WHENCE}`);
  if (refs.length > MAX_SESSIONS) {
    throw new ToolError(
      `${refs.length} sessions are named, and ${MAX_SESSIONS} may be. Nothing was done; make two calls.`,
    );
  }
  const ids = await Promise.all(refs.map((ref) => sessionOf(ref, caller, signal)));
  return new Map(ids.map((id, i) => [id, refs[i]?.session_name]));
}

async function idOfName(sessionName: string, { services }: ToolCaller, signal: AbortSignal): Promise<string> {
  const { session } = await services.sessions.getSession({ sessionName }, { signal });
  if (session === undefined) throw new ToolError(`no session ${sessionName}`);
  return session.sessionId;
}

/** @throws ToolError when an agent means its own session. */
export function refuseOwn({ sessionId }: ToolCaller, target: string, instead: string): void {
  if (target === sessionId) throw new ToolError(`${target} is your own session: ${instead}`);
}
