import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import type { ExecutorInvocation } from "../lib/invocation.ts";

/** How the run takes up its conversation. */
export interface Conversation {
  /** The id that the run's session has from now on. */
  readonly id: string;
  /** Id of the conversation that is continued. Absent: a new one begins under `id`. */
  readonly resume?: string;
  /** It is continued in a copy. */
  readonly fork: boolean;
}

/**
 * A first run begins under an id of ours. A later one continues, unless nothing of the conversation was ever written: the
 * first run was killed before the agent had begun, and it begins now, under the id that was said then.
 * @param home private folder of the session.
 */
export function conversationOf(
  { mode, executor_session_id: known }: Pick<ExecutorInvocation, "mode" | "executor_session_id">,
  home: string,
  fork: boolean,
  newId: () => string,
): Conversation {
  if (mode === "start" || known === undefined) return { id: newId(), fork: false };
  if (!isUuid(known) || hasTranscript(home, known)) {
    return fork ? { id: newId(), resume: known, fork: true } : { id: known, resume: known, fork: false };
  }
  return hasTranscripts(home) ? { id: known, resume: known, fork: false } : { id: known, fork: false };
}

/** The agent keeps each conversation as `projects/<directory>/<id>.jsonl` of its configuration directory. */
function hasTranscript(home: string, id: string): boolean {
  return projectsOf(home).some((project) => existsSync(join(project, `${id}.jsonl`)));
}

function hasTranscripts(home: string): boolean {
  return projectsOf(home).some((project) => readdirSync(project).some((file) => file.endsWith(".jsonl")));
}

function projectsOf(home: string): string[] {
  const root = join(home, "projects");
  return existsSync(root) ? readdirSync(root).map((name) => join(root, name)) : [];
}

function isUuid(text: string): boolean {
  return /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text);
}
