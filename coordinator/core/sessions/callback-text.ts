import { cutText } from "../../../lib/protocol/limits.ts";
import type { FailureName } from "../run-transitions.ts";
import type { FinalState } from "../../../lib/protocol/final.ts";

/** Largest text of one child, and of all of them in one resume (ADR 11). */
export const CHILD_TEXT_MAX_BYTES = 32 * 1024;
export const CALLBACK_PROMPT_MAX_BYTES = 512 * 1024;

/** A child session that has settled, and how its last run ended. */
export interface SettledChild {
  readonly sessionId: string;
  readonly sessionName: string;
  readonly agentName: string;
  readonly runId: string;
  readonly state: FinalState;
  readonly failure: FailureName | undefined;
  readonly message: string;
  readonly resultText: string;
  /** JSON of the result's data; empty when it has none. */
  readonly resultData: string;
  /** True when an earlier run that was to deliver this was lost. */
  readonly redelivered: boolean;
}

/**
 * What a parent reads of one child, as an element that a model takes for what it is; at most 32 KiB. Where it is cut it names
 * the tool that fetches the rest.
 */
export function notificationText(child: SettledChild): string {
  const attributes = [
    ["session", child.sessionId],
    ...(child.sessionName === child.sessionId ? [] : [["name", child.sessionName]]),
    ...(child.agentName === "" ? [] : [["agent", child.agentName]]),
    ["run", child.runId],
    ["status", child.state.toLowerCase()],
    ...(child.failure === undefined ? [] : [["failure", child.failure.toLowerCase()]]),
    ...(child.redelivered ? [["redelivered", "true"]] : []),
  ].map(([name, value]) => `${name}="${attribute(value ?? "")}"`);
  const head = `<agent-callback ${attributes.join(" ")}>\n`;
  const tail = "\n</agent-callback>";
  const rest = `\nUse get_agent_session_result with session_id ${child.sessionId} to read all of it.`;
  const room = CHILD_TEXT_MAX_BYTES - Buffer.byteLength(head + tail + rest);
  const body = bodyOf(child);
  return head + (Buffer.byteLength(body) <= room ? body : cutText(body, room) + rest) + tail;
}

function bodyOf({ state, message, resultText, resultData }: SettledChild): string {
  const parts = [
    ...(state === "COMPLETED" || message === "" ? [] : [message]),
    ...(resultText === "" ? [] : [resultText]),
    ...(resultData === "" ? [] : [resultData]),
  ];
  return escaped(parts.join("\n\n") || "(no result)");
}

/** A child's text must not end its own element. */
function escaped(text: string): string {
  return text.replaceAll(/<(\/?agent-callback)/gi, "&lt;$1");
}

function attribute(value: string): string {
  return value.replaceAll("&", "&amp;").replaceAll('"', "&quot;").replaceAll("<", "&lt;").replaceAll(/\s+/g, " ");
}

/** Prompt of the run that delivers these notifications. */
export function callbackPrompt(texts: readonly string[]): string {
  const head =
    texts.length === 1
      ? "An agent session that you started has ended."
      : `${texts.length} agent sessions that you started have ended.`;
  return [head, ...texts].join("\n\n");
}

/** How many of the texts, in their order, fit in one prompt; at least one. */
export function fitting(texts: readonly string[]): number {
  let bytes = 256;
  for (const [i, text] of texts.entries()) {
    bytes += Buffer.byteLength(text) + 2;
    if (i > 0 && bytes > CALLBACK_PROMPT_MAX_BYTES) return i;
  }
  return texts.length;
}
