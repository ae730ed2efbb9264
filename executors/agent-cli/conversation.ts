import type { ExecutorInvocation } from "../lib/invocation.ts";
import { AgentError } from "../lib/agent/agent-error.ts";
import type { SessionState } from "../lib/agent/session-notes.ts";
import type { RosterEntry } from "../lib/roster/roster-entry.ts";

/** How the run takes up its conversation. */
export interface Conversation {
  /** The id, when it is known before the start: ours, or the one that is resumed. */
  readonly id: string | undefined;
  readonly isResumed: boolean;
  /** Directory in which the agent is started. */
  readonly cwd: string;
}

export interface ConversationFacts {
  readonly entry: Pick<RosterEntry, "label" | "session">;
  readonly invocation: Pick<ExecutorInvocation, "mode" | "executor_session_id">;
  readonly notes: SessionState | undefined;
  /** The run's directory. */
  readonly cwd: string;
  readonly newId: () => string;
  readonly isDirectory: (path: string) => boolean;
  /** Whether the agent has files of the conversation in its private folder. */
  readonly hasFiles: (id: string) => boolean;
}

/**
 * A first run begins, under an id of ours where the agent takes one. A later one continues where the conversation began,
 * unless nothing of it was ever written: then it begins now, under the id that was said.
 * @throws AgentError UNKNOWN_SESSION, PROJECT_DIR_GONE
 */
export function conversationOf(facts: ConversationFacts): Conversation {
  const { entry, invocation, notes, cwd } = facts;
  const { label, session } = entry;
  const known = invocation.executor_session_id;
  const begin = (id?: string): Conversation => ({
    id: session.id === "ours" ? (id ?? facts.newId()) : undefined,
    isResumed: false,
    cwd,
  });
  if (invocation.mode === "start" || known === undefined) return begin();
  if (session.resume === "none") {
    throw new AgentError("UNKNOWN_SESSION", `${label} cannot resume a conversation: start a new session`);
  }
  const isOurs = notes?.vendorSessionId === known;
  if (isOurs && !notes.begun && !facts.hasFiles(known)) return begin(known);
  if (!isOurs && session.unknown === "starts-new") {
    const lost = "its private folder does not know it, and the agent would begin a new one without a word";
    throw new AgentError("UNKNOWN_SESSION", `${label} has no conversation ${known}: ${lost}; start a new session`);
  }
  if (!session.sameCwd || notes === undefined || notes.cwd === cwd) return { id: known, isResumed: true, cwd };
  if (!facts.isDirectory(notes.cwd)) {
    const only = `the conversation began in ${notes.cwd}, which does not exist any more, and ${label} finds it only there`;
    throw new AgentError("PROJECT_DIR_GONE", `${only}; create the directory again, or start a new session`);
  }
  return { id: known, isResumed: true, cwd: notes.cwd };
}
