import type { DescEnum, JsonObject, JsonValue } from "@bufbuild/protobuf";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import type { AgentBlueprint } from "../gen/agentrunner/v1/blueprint_pb.ts";
import type { ExecutorResult } from "../gen/agentrunner/v1/executor_pb.ts";
import { FailureReason, FailureReasonSchema, RunStateSchema } from "../gen/agentrunner/v1/run_pb.ts";
import type { Run } from "../gen/agentrunner/v1/run_pb.ts";
import { SessionStatusSchema } from "../gen/agentrunner/v1/session_pb.ts";
import type { Session } from "../gen/agentrunner/v1/session_pb.ts";
import { cutText } from "../lib/protocol/limits.ts";

/*
 * What tools return: plain JSON in snake_case without empty fields, every text bounded. All of it is for models, which pay
 * for each character.
 */

/** Characters of a result that a tool returns unless it is asked for more. */
export const RESULT_SHOWN_CHARS = 32_000;

/** Bytes of a message, of a description, of a list of reasons and of a schema. */
const TEXT_MAX_BYTES = 4_096;
const SCHEMA_MAX_BYTES = 8_192;
const MAX_CHILDREN = 100;

/** Facts without those that are undefined, empty or an empty list. */
export function facts(entries: Readonly<Record<string, JsonValue | undefined>>): JsonObject {
  const isSaid = ([, value]: [string, JsonValue | undefined]): boolean =>
    value !== undefined && value !== "" && !(Array.isArray(value) && value.length === 0);
  return Object.fromEntries(Object.entries(entries).filter(isSaid)) as JsonObject;
}

/** Name of an enum's value as models read it: `running`, `executor_exit`. */
export function word(names: DescEnum, value: number): string {
  return (names.value[value]?.localName ?? `unknown_${value}`).toLowerCase();
}

export function sessionView(session: Session): JsonObject {
  return facts({
    session_id: session.sessionId,
    session_name: nameOf(session),
    status: word(SessionStatusSchema, session.status),
    agent_name: session.agentName,
    parent_session_id: session.parentSessionId,
    last_run_id: session.lastRunId,
    created_at: iso(session.createdAt),
    updated_at: iso(session.updatedAt),
  });
}

/** The name that somebody gave a session; undefined when it has only its id. */
export function nameOf({ sessionId, sessionName }: Pick<Session, "sessionId" | "sessionName">): string | undefined {
  return sessionName === sessionId ? undefined : sessionName;
}

/** Sessions below, and notifications that wait: what GetSession knows besides. */
export function treeView({ childSessionIds, notifications }: Session): JsonObject {
  const hidden = childSessionIds.length - MAX_CHILDREN;
  return facts({
    child_session_ids: childSessionIds.slice(0, MAX_CHILDREN),
    further_children: hidden > 0 ? `${hidden} more; list_agent_sessions with parent_session_id lists all` : undefined,
    notifications: notifications.length || undefined,
  });
}

/** A run that may go on. */
export function runView(run: Run): JsonObject {
  return facts({
    run_id: run.runId,
    state: word(RunStateSchema, run.state),
    attempt: run.attempt || undefined,
    runner_id: run.runnerId,
    started_at: iso(run.startedAt),
    ...endView(run),
    pending_reasons: run.pendingReasons.map((reason) => cutText(reason, TEXT_MAX_BYTES)),
  });
}

/** Why a run did not complete. */
export function endView({ failure, message }: Pick<Run, "failure" | "message">): JsonObject {
  return facts({
    failure: failure === FailureReason.UNSPECIFIED ? undefined : word(FailureReasonSchema, failure),
    message: message === "" ? undefined : cutText(message, TEXT_MAX_BYTES),
  });
}

/** The head of a result, with a marker that says how to get the rest. */
export function resultView(result: ExecutorResult | undefined, maxChars = RESULT_SHOWN_CHARS): JsonObject {
  if (result === undefined) return {};
  const { text, data } = result;
  const page = pageOf(text, 0, maxChars);
  const marker = (next: number) =>
    `…[cut: ${next} of ${text.length} characters shown; get_agent_session_result with offset ${next} gives the rest]`;
  const size = data === undefined ? 0 : JSON.stringify(data).length;
  return facts({
    result_text: page.next === undefined ? text : page.text + marker(page.next),
    result_data: size > maxChars ? undefined : data,
    result_data_cut:
      size > maxChars ? `${size} characters; get_agent_session_result with part "data" gives them` : undefined,
  });
}

/**
 * A piece of a text, and the offset of the next one; undefined after the last. Offsets count UTF-16 units. No character is
 * split: a piece may be one unit short for it, or, where `maxChars` is 1, long.
 */
export function pageOf(text: string, offset: number, maxChars: number): { text: string; next: number | undefined } {
  const splits = (at: number): boolean => /^[\uD800-\uDBFF][\uDC00-\uDFFF]/.test(text.slice(at - 1, at + 1));
  const full = offset + maxChars;
  const end = !splits(full) ? full : maxChars > 1 ? full - 1 : full + 1;
  return { text: text.slice(offset, end), next: end < text.length ? end : undefined };
}

export function blueprintView({ name, description, tags, demands, parametersSchema }: AgentBlueprint): JsonObject {
  const size = parametersSchema === undefined ? 0 : JSON.stringify(parametersSchema).length;
  return facts({
    name,
    description: description === "" ? undefined : cutText(description, TEXT_MAX_BYTES),
    tags,
    executor_profile: demands?.executorProfile,
    runner_tags: demands?.tags,
    parameters_schema: size > SCHEMA_MAX_BYTES ? undefined : parametersSchema,
    parameters_schema_cut:
      size > SCHEMA_MAX_BYTES ? `${size} characters; a start with wrong parameters says what is wrong` : undefined,
  });
}

function iso(time: Timestamp | undefined): string | undefined {
  return time === undefined ? undefined : timestampDate(time).toISOString();
}
