import { fromJson, getOption, isFieldSet, toBinary } from "@bufbuild/protobuf";
import type { DescField, JsonObject, JsonValue } from "@bufbuild/protobuf";
import { field as fieldOption, StringRulesSchema } from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import { ExecutorEventSchema } from "../../gen/agentrunner/v1/executor_pb.ts";
import type { ExecutorEvent } from "../../gen/agentrunner/v1/executor_pb.ts";
import { boundResult } from "../../lib/protocol/bound-result.ts";
import { JSON_MAX_DEPTH } from "../../lib/protocol/limits.ts";

/** Largest event, as a line and as protobuf: four of them fit one message. A longer line is output. */
export const EVENT_MAX_BYTES = 1024 * 1024;

/** A JSON byte grows to at most 5.5 bytes of protobuf (`0,` is a Value of 11), so that shorter lines need no measuring. */
const MEASURED_LINE_BYTES = EVENT_MAX_BYTES / 8;

/** Output and gaps are told by the runner. */
type EventType = Exclude<ExecutorEvent["event"]["case"], "output" | "dropped" | undefined>;

/** The types that an executor may write, and of each group of fields at least one that an event must have (ADR 12). */
const EVENT_FIELDS: Readonly<Record<EventType, readonly (readonly string[])[]>> = {
  session: [["executor_session_id"]],
  message: [["role"], ["text"]],
  tool: [["tool_call_id", "name"]],
  result: [["text", "data"]],
  usage: [["input_tokens", "output_tokens", "cost_usd", "model"]],
  status: [["text"]],
};

interface Lengths {
  /** Name of the field in ExecutorEvent's messages. */
  readonly field: string;
  readonly min: number;
  readonly max: number;
}

/** Shortest and longest strings of each type, by the rules in executor.proto: a coordinator refuses others. */
const LENGTHS: ReadonlyMap<string, readonly Lengths[]> = new Map(
  ExecutorEventSchema.fields.map(({ localName, message }) => [localName, (message?.fields ?? []).flatMap(lengthsOf)]),
);

function lengthsOf(field: DescField): Lengths[] {
  const { type } = getOption(field, fieldOption);
  if (type.case !== "string") return [];
  const { minLen, maxLen } = type.value;
  const max = isFieldSet(type.value, StringRulesSchema.field.maxLen) ? Number(maxLen) : Infinity;
  return [{ field: field.localName, min: Number(minLen), max }];
}

/** What a line is: an event, an event of a known type with the wrong shape, or neither. */
export type Reading =
  | { type: "event"; event: ExecutorEvent }
  | { type: "malformed"; reason: string }
  | { type: "output" };

/**
 * Reads one line of stdout. The field names are those of executor.proto (snake_case), unknown fields are ignored, and the
 * event keeps every rule that a coordinator checks, so that no executor can get a whole batch refused.
 */
export function readEvent(line: Buffer): Reading {
  // Most lines that begin with a brace are not events, and finding that out with JSON.parse costs 7 µs and an error each.
  if (!line.includes('"type"')) return { type: "output" };
  const json = parseObject(line.toString("utf8"));
  const type = json?.["type"];
  if (json === undefined || !isEventType(type)) return { type: "output" };
  const malformed = (reason: string): Reading => ({
    type: "malformed",
    reason: `${type}: ${reason}`.slice(0, 300).toWellFormed(),
  });
  for (const fields of EVENT_FIELDS[type]) {
    if (fields.every((field) => (json[field] ?? null) === null)) return malformed(`needs ${fields.join(" or ")}`);
  }
  let event: ExecutorEvent;
  try {
    event = fromJson(
      ExecutorEventSchema,
      { [type]: json },
      { ignoreUnknownFields: true, recursionLimit: JSON_MAX_DEPTH },
    );
  } catch (error) {
    return malformed(error instanceof Error ? error.message : String(error));
  }
  if (![json["input"], json["output"], json["data"]].every(isSound))
    return malformed("a number or text has no JSON form");
  for (const { field, min, max } of LENGTHS.get(type) ?? []) {
    const text: unknown = Reflect.get(event.event.value ?? {}, field);
    if (typeof text === "string" && (text.length < min || text.length > max)) {
      return malformed(`${field} has ${text.length} characters, ${min} to ${max} are allowed`);
    }
  }
  if (event.event.case === "result") boundResult(event.event.value);
  if (line.length > MEASURED_LINE_BYTES && toBinary(ExecutorEventSchema, event).length > EVENT_MAX_BYTES) {
    return malformed(`larger than ${EVENT_MAX_BYTES} bytes as protobuf`);
  }
  return { type: "event", event };
}

function isEventType(type: JsonValue | undefined): type is EventType {
  return typeof type === "string" && Object.hasOwn(EVENT_FIELDS, type);
}

function parseObject(text: string): JsonObject | undefined {
  try {
    const json = JSON.parse(text) as JsonValue;
    return typeof json === "object" && json !== null && !Array.isArray(json) ? json : undefined;
  } catch {
    // No error: most of what a program prints is not JSON.
    return undefined;
  }
}

/** JSON.parse reads `1e400` as Infinity and `"\\ud800"` as half a character, which no reader of protobuf JSON can write again. */
function isSound(value: JsonValue | undefined): boolean {
  if (typeof value === "number") return Number.isFinite(value);
  if (typeof value === "string") return value.isWellFormed();
  if (typeof value !== "object" || value === null) return true;
  return Object.entries(value).every(([key, item]) => key.isWellFormed() && isSound(item));
}
