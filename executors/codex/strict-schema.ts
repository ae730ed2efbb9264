import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { AgentError } from "../lib/agent/agent-error.ts";

/** Levels of a schema that are followed. */
const DEPTH_MAX = 24;

/** Keys with schemas by name, and keys with lists of schemas. */
const MAPS = ["properties", "$defs", "definitions"];
const LISTS = ["anyOf", "prefixItems"];

/** Keys that a strict schema cannot have. */
const REFUSED = [
  "oneOf",
  "allOf",
  "not",
  "if",
  "patternProperties",
  "dependentRequired",
  "dependentSchemas",
  "propertyNames",
];

/**
 * The schema as its provider takes it: every object closed, every property required. A property that need not be there may be
 * null instead, and withoutNulls takes that out again.
 * @throws AgentError OUTPUT_SCHEMA that names the place, for a schema that cannot be made strict.
 */
export function strictSchema(schema: JsonObject): JsonObject {
  const strict = strictOf(schema, "output_schema", 0);
  if (strict["type"] !== "object") refuse("output_schema", 'must be of "type": "object" at its top');
  return strict;
}

function strictOf(value: JsonValue, at: string, depth: number): JsonObject {
  if (depth > DEPTH_MAX) refuse(at, `is nested more than ${DEPTH_MAX} levels deep`);
  if (!isObject(value))
    return refuse(at, "must be a schema that is an object, because everything else lets any value through");
  for (const key of REFUSED)
    if (Object.hasOwn(value, key)) refuse(`${at}.${key}`, "cannot be part of a strict schema; use anyOf");
  const entries = Object.entries(value).map(([key, one]): [string, JsonValue] => [
    key,
    strictPart(key, one, `${at}.${key}`, depth),
  ]);
  const strict: JsonObject = Object.fromEntries(entries);
  return isObjectSchema(value) ? closed(value, strict, at) : strict;
}

function strictPart(key: string, value: JsonValue, at: string, depth: number): JsonValue {
  if (MAPS.includes(key) && isObject(value)) {
    const entries = Object.entries(value).map(([name, one]) => [name, strictOf(one, `${at}.${name}`, depth + 1)]);
    return Object.fromEntries(entries) as JsonObject;
  }
  if (LISTS.includes(key) && Array.isArray(value)) {
    return value.map((one, index) => strictOf(one, `${at}[${index}]`, depth + 1));
  }
  return key === "items" ? strictOf(value, at, depth + 1) : value;
}

function closed(schema: JsonObject, strict: JsonObject, at: string): JsonObject {
  const more = schema["additionalProperties"];
  if (more !== undefined && more !== false)
    refuse(`${at}.additionalProperties`, "must be false: a strict object has no other properties");
  const properties = isObject(strict["properties"]) ? strict["properties"] : {};
  const required = requiredOf(schema);
  const entries = Object.entries(properties).map(([name, one]): [string, JsonValue] => [
    name,
    required.has(name) || !isObject(one) ? one : nullable(one),
  ]);
  return {
    ...strict,
    properties: Object.fromEntries(entries),
    required: Object.keys(properties),
    additionalProperties: false,
  };
}

function nullable(schema: JsonObject): JsonObject {
  return takesNull(schema) ? schema : { anyOf: [schema, { type: "null" }] };
}

/** The data without the nulls that strictSchema had to allow. */
export function withoutNulls(data: JsonObject, schema: JsonObject): JsonObject {
  return cleaned(data, schema, schema) as JsonObject;
}

function cleaned(value: JsonValue, schema: JsonValue | undefined, root: JsonObject): JsonValue {
  const at = resolved(schema, root);
  if (Array.isArray(value)) return value.map((one) => cleaned(one, at["items"], root));
  if (!isObject(value)) return value;
  const properties = isObject(at["properties"]) ? at["properties"] : {};
  const required = requiredOf(at);
  const entries = Object.entries(value).flatMap(([name, one]): [string, JsonValue][] => {
    const below = Object.hasOwn(properties, name) ? properties[name] : undefined;
    const isOurs = one === null && !required.has(name) && below !== undefined && !takesNull(resolved(below, root));
    return isOurs ? [] : [[name, cleaned(one, below, root)]];
  });
  return Object.fromEntries(entries);
}

/** What a reference within the schema stands for. */
function resolved(schema: JsonValue | undefined, root: JsonObject): JsonObject {
  if (!isObject(schema)) return {};
  const reference = schema["$ref"];
  if (typeof reference !== "string" || !reference.startsWith("#/")) return schema;
  let found: JsonValue | undefined = root;
  for (const key of reference.slice(2).split("/")) found = isObject(found) ? found[key] : undefined;
  return isObject(found) ? found : {};
}

function takesNull(schema: JsonObject): boolean {
  const { type, anyOf, enum: values } = schema;
  if (type === "null" || (Array.isArray(type) && type.includes("null"))) return true;
  if (Array.isArray(values) && values.includes(null)) return true;
  return Array.isArray(anyOf) && anyOf.some((one) => isObject(one) && takesNull(one));
}

function isObjectSchema(schema: JsonObject): boolean {
  const { type } = schema;
  return type === "object" || (Array.isArray(type) && type.includes("object")) || isObject(schema["properties"]);
}

function requiredOf(schema: JsonObject): ReadonlySet<JsonValue> {
  return new Set(Array.isArray(schema["required"]) ? schema["required"] : []);
}

function isObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function refuse(at: string, why: string): never {
  throw new AgentError("OUTPUT_SCHEMA", `${at} ${why}`);
}
