import { toJson } from "@bufbuild/protobuf";
import type { DescField, DescMessage, Message } from "@bufbuild/protobuf";
import { DurationSchema, TimestampSchema } from "@bufbuild/protobuf/wkt";
import type { Value } from "@bufbuild/protobuf/wkt";
import { depthOf } from "./depth.ts";
import { JSON_MAX_DEPTH } from "./limits.ts";

/**
 * What is wrong with a JSON value that stands at `at`; undefined when every reader of the protocol can have it, as protobuf and
 * as JSON.
 */
export function jsonProblem(json: unknown, at: string): string | undefined {
  if (depthOf(json) > JSON_MAX_DEPTH) return tooDeep(at);
  return isSound(json) ? undefined : unsound(at);
}

function tooDeep(at: string): string {
  return `${at}: nested more than ${JSON_MAX_DEPTH} levels deep; many readers of protobuf stop there: flatten it or pass it as a string`;
}

function unsound(at: string): string {
  return `${at}: holds what JSON has no form for: NaN, an infinite number, half a character (a lone surrogate), or a Value without kind`;
}

/** The other half of what is asked of a value; called when its depth is known to be bounded. */
function isSound(json: unknown): boolean {
  if (typeof json === "number") return Number.isFinite(json);
  if (typeof json === "string") return json.isWellFormed();
  if (typeof json !== "object" || json === null) return json !== undefined;
  return Object.entries(json).every(([key, item]) => key.isWellFormed() && isSound(item));
}

/**
 * The same for every google.protobuf.Struct and Value in a message, and for its times: a Duration of more than 10,000 years has no
 * form in JSON, and would spoil every list that it is in. The problem names the field by its path.
 */
export function jsonProblemIn(schema: DescMessage, message: Message, at = ""): string | undefined {
  for (const field of jsonFields(schema)) {
    const value = valueOf(message, field);
    if (value === undefined) continue;
    const path = at === "" ? field.name : `${at}.${field.name}`;
    for (const [place, one] of placesOf(field, value, path)) {
      const problem = problemOf(field, one, place);
      if (problem !== undefined) return problem;
    }
  }
  return undefined;
}

function problemOf({ message: schema }: DescField, value: unknown, at: string): string | undefined {
  if (schema?.typeName === "google.protobuf.Struct") return jsonProblem(value, at);
  if (schema?.typeName === "google.protobuf.Value") {
    if (valueDepth(value as Value, JSON_MAX_DEPTH) > JSON_MAX_DEPTH) return tooDeep(at);
    return isSoundValue(value as Value) ? undefined : unsound(at);
  }
  const time = TIMES.get(schema?.typeName ?? "");
  if (time !== undefined) return timeProblem(time, value as Message, at);
  return schema === undefined ? undefined : jsonProblemIn(schema, value as Message, at);
}

const TIMES: ReadonlyMap<string, DescMessage> = new Map(
  [DurationSchema, TimestampSchema].map((schema) => [schema.typeName, schema]),
);

function timeProblem(schema: DescMessage, value: Message, at: string): string | undefined {
  try {
    toJson(schema, value);
    return undefined;
  } catch (error) {
    return `${at}: has no form in JSON: ${error instanceof Error ? error.message : String(error)}`;
  }
}

function valueDepth({ kind }: Value, max: number): number {
  if (kind.case !== "structValue" && kind.case !== "listValue") return 0;
  if (max === 0) return 1;
  const items = kind.case === "structValue" ? Object.values(kind.value.fields) : kind.value.values;
  return 1 + items.reduce((deepest, item) => Math.max(deepest, valueDepth(item, max - 1)), 0);
}

function isSoundValue({ kind }: Value): boolean {
  if (kind.case === "listValue") return kind.value.values.every(isSoundValue);
  if (kind.case === "structValue") {
    return Object.entries(kind.value.fields).every(([key, item]) => key.isWellFormed() && isSoundValue(item));
  }
  return kind.case !== undefined && isSound(kind.value);
}

/** The value of a field; of a oneof only the one that is set. */
function valueOf(message: Message, field: DescField): unknown {
  if (field.oneof === undefined) return Reflect.get(message, field.localName);
  const chosen = Reflect.get(message, field.oneof.localName) as { case?: string; value?: unknown };
  return chosen.case === field.localName ? chosen.value : undefined;
}

function placesOf({ fieldKind }: DescField, value: unknown, at: string): [string, unknown][] {
  if (fieldKind === "list") return (value as unknown[]).map((item, i) => [`${at}[${i}]`, item]);
  if (fieldKind === "map") {
    return Object.entries(value as Record<string, unknown>).map(([key, item]) => [`${at}[${key}]`, item]);
  }
  return [[at, value]];
}

const known = new Map<string, readonly DescField[]>();

/** Fields of a message that are JSON or hold some. Most messages have none, and calls with much output must stay cheap. */
function jsonFields(schema: DescMessage): readonly DescField[] {
  const before = known.get(schema.typeName);
  if (before !== undefined) return before;
  // A message that holds itself ends here; none of the protocol's does.
  known.set(schema.typeName, []);
  const fields = schema.fields.filter(({ message }) => message !== undefined && holdsJson(message));
  known.set(schema.typeName, fields);
  return fields;
}

function holdsJson(schema: DescMessage): boolean {
  if (schema.typeName === "google.protobuf.Struct" || schema.typeName === "google.protobuf.Value") return true;
  if (TIMES.has(schema.typeName)) return true;
  return jsonFields(schema).length > 0;
}
