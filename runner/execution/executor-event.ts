import { fromJson, getOption, isFieldSet, toBinary } from "@bufbuild/protobuf";
import type { DescField, JsonObject, JsonValue } from "@bufbuild/protobuf";
import { field as fieldOption, StringRulesSchema } from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import { ExecutorEventSchema } from "../../gen/agentrunner/v1/executor_pb.ts";
import type { ExecutorEvent } from "../../gen/agentrunner/v1/executor_pb.ts";
import { boundResult } from "../../lib/protocol/bound-result.ts";
import { jsonProblemIn } from "../../lib/protocol/json-values.ts";
import { heldNumber, numberProblem } from "../../lib/protocol/json-numbers.ts";
import { READ_MAX_DEPTH } from "../../lib/protocol/limits.ts";
import { isPrintable, UNPRINTABLE_RULE } from "../../lib/protocol/printable.ts";

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

interface TextRule {
  /** Name of the field in ExecutorEvent's messages. */
  readonly field: string;
  readonly min: number;
  readonly max: number;
  readonly printable: boolean;
}

/** What strings of each type must be, by the rules in executor.proto: a coordinator refuses others. */
const TEXT_RULES: ReadonlyMap<string, readonly TextRule[]> = new Map(
  ExecutorEventSchema.fields.map(({ localName, message }) => [localName, (message?.fields ?? []).flatMap(textRulesOf)]),
);

function textRulesOf(field: DescField): TextRule[] {
  const { type, cel } = getOption(field, fieldOption);
  if (type.case !== "string") return [];
  const { minLen, maxLen } = type.value;
  const max = isFieldSet(type.value, StringRulesSchema.field.maxLen) ? Number(maxLen) : Infinity;
  const printable = cel.some(({ id }) => id === "printable");
  return [{ field: field.localName, min: Number(minLen), max, printable }];
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
  const { json, unheld } = parseObject(line.toString("utf8"));
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
      { ignoreUnknownFields: true, recursionLimit: READ_MAX_DEPTH },
    );
  } catch (error) {
    return malformed(unheld ?? (error instanceof Error ? error.message : String(error)));
  }
  const problem = jsonProblemIn(ExecutorEventSchema, event);
  if (problem !== undefined) return malformed(unheld ?? problem);
  for (const { field, min, max, printable } of TEXT_RULES.get(type) ?? []) {
    const text: unknown = Reflect.get(event.event.value ?? {}, field);
    if (typeof text !== "string") continue;
    if (printable && !isPrintable(text)) return malformed(`${field} ${UNPRINTABLE_RULE}`);
    if (text.length < min || text.length > max) {
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

/**
 * The object that a line is. `unheld` is what is wrong with a number in it that a double cannot hold; that number is NaN in
 * `json`, so that it counts only where it is used.
 */
function parseObject(text: string): { json: JsonObject | undefined; unheld: string | undefined } {
  try {
    const unheld = numberProblem(text);
    const json = (unheld === undefined ? JSON.parse(text) : JSON.parse(text, held)) as JsonValue;
    const isObject = typeof json === "object" && json !== null && !Array.isArray(json);
    return { json: isObject ? json : undefined, unheld };
  } catch {
    // No error: most of what a program prints is not JSON.
    return { json: undefined, unheld: undefined };
  }
}

const held = (_key: string, value: unknown, { source }: { source?: string } = {}): unknown =>
  typeof value === "number" && source !== undefined ? heldNumber(source) : value;
