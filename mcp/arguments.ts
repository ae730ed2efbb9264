import type { JsonObject } from "@bufbuild/protobuf";
import { z } from "zod";
import { nearNames } from "../lib/near-names.ts";
import { depthOf } from "../lib/protocol/depth.ts";
import { JSON_MAX_DEPTH } from "../lib/protocol/limits.ts";
import { jsonIn } from "./body.ts";
import { ToolError } from "./errors.ts";
import { isObject, LostNumber } from "./json.ts";

/*
 * Arguments as models write them. What is meant is taken: null and "" are what is left out, "5" is a number where one is
 * wanted, one text is a list where a list is. The rest is refused in words that name the argument and what it takes.
 */

/** Wrong arguments that one error names, and unknown ones that one answer names. */
const MAX_NAMED = 5;
/** Characters of a wrong value or key that are shown. */
const MAX_SHOWN = 60;

/** An object of JSON, passed on unread: `z.json()` would publish a schema that refers to itself. */
export const jsonObject = z
  .custom<JsonObject>((value) => isObject(value))
  .meta({ type: "object", additionalProperties: true });

/** The part of JSON Schema in which tools say what they take. */
interface ArgumentSchema {
  readonly type?: string;
  readonly enum?: readonly string[];
  readonly items?: ArgumentSchema;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly minItems?: number;
  readonly maxItems?: number;
  readonly minimum?: number;
  readonly maximum?: number;
}

/** What a tool takes, as it is published: flat, because several models' APIs refuse $ref, $defs, $schema and propertyNames. */
export interface ObjectSchema {
  readonly type: "object";
  readonly properties: Readonly<Record<string, ArgumentSchema>>;
}

export function schemaOf(input: z.ZodObject): ObjectSchema {
  const { $schema: _, ...schema } = z.toJSONSchema(input, { io: "input", unrepresentable: "any" });
  return schema as unknown as ObjectSchema;
}

/** Where the values of an argument come from, by its name. */
const SOURCES: Readonly<Record<string, string>> = {
  session_id: "start_agent_session returns it, list_agent_sessions lists those there are",
  session_ids: "start_agent_session returns them, list_agent_sessions lists those there are",
  parent_session_id: "list_agent_sessions lists those there are",
  run_id: "a start returns it, get_agent_session_status shows the last",
  agent_name: "list_agent_blueprints lists those there are",
  page_token: "it is the next_page_token of the page before",
};

/** A tool, as far as its arguments go. */
export interface Takes<Input extends z.ZodObject> {
  readonly name: string;
  readonly input: Input;
  readonly schema: ObjectSchema;
}

/**
 * The arguments of a call, and what is to be said of those that the tool does not have.
 *
 * @throws ToolError that names each wrong argument, what it takes, and where its values come from.
 */
export function readArguments<Input extends z.ZodObject>(
  { name, input, schema }: Takes<Input>,
  given: Readonly<Record<string, unknown>>,
): { args: z.output<Input>; ignored: string[] } {
  const known = Object.keys(schema.properties);
  const ignored = ignoredOf(name, Object.keys(given), known);
  const refuse = (problems: readonly string[]): never => {
    throw new ToolError(
      [
        `${name}: ${problems.slice(0, MAX_NAMED).join("; ")}. Nothing was done.`,
        ...ignored,
        `${name} takes ${known.join(", ")}.`,
      ].join(" "),
    );
  };
  const taken: Record<string, unknown> = {};
  for (const [key, property] of Object.entries(schema.properties)) {
    const value = Object.hasOwn(given, key) ? meantBy(given[key], property) : undefined;
    if (value !== undefined) taken[key] = value;
  }
  const bad = Object.entries(taken).flatMap(([key, value]) => unreadable(value, key) ?? []);
  if (bad.length > 0) return refuse(bad);
  const read = input.safeParse(taken);
  if (read.success) return { args: read.data, ignored };
  const wrong = new Map(read.error.issues.map(({ path }) => [path.join("."), path]));
  return refuse([...wrong.values()].map((path) => problemAt(path, taken, schema)));
}

/** Depth, numbers and whole characters, which every reader of JSON after this one takes for granted. */
function unreadable(value: unknown, at: string): string | undefined {
  if (depthOf(value) > JSON_MAX_DEPTH) {
    return `${at}: nested more than ${JSON_MAX_DEPTH} levels deep; flatten it or pass it as a text`;
  }
  return spoiltIn(value, at);
}

function spoiltIn(value: unknown, at: string): string | undefined {
  if (value instanceof LostNumber) {
    const source = shorten(value.source);
    return `${at}: ${source} is more than a number of JSON holds and would be changed; pass it as a text, "${source}"`;
  }
  if (typeof value === "string") return halved(value, at);
  if (typeof value !== "object" || value === null) return undefined;
  for (const [key, item] of Object.entries(value)) {
    const place = `${at}.${shorten(key)}`;
    const problem = halved(key, place) ?? spoiltIn(item, place);
    if (problem !== undefined) return problem;
  }
  return undefined;
}

function halved(text: string, at: string): string | undefined {
  if (text.isWellFormed()) return undefined;
  return `${at}: holds half a character (a lone surrogate), as a text does that was cut in the middle of one; send it whole`;
}

/** The value that a model meant; undefined when it meant to leave the argument out. */
function meantBy(value: unknown, schema: ArgumentSchema): unknown {
  if (value === null || value === "") return undefined;
  if (schema.type === "array") return listMeantBy(value, schema.items ?? {});
  if (typeof value !== "string") return value;
  if (schema.enum !== undefined) return wordOf(value, schema.enum);
  switch (schema.type) {
    case "integer":
      return /^\s*-?\d+(?:\.0+)?\s*$/.test(value) ? Number(value) : value;
    case "boolean":
      return ({ true: true, false: false } as Record<string, boolean>)[value.trim().toLowerCase()] ?? value;
    case "object":
      return jsonIn(value) ?? value;
    default:
      return value;
  }
}

/** A word as the tool spells it: ASYNC_POLL and async-poll are async_poll. */
function wordOf(value: string, words: readonly string[]): string {
  const spelt = value.trim().toLowerCase().replaceAll("-", "_");
  return words.includes(spelt) ? spelt : value;
}

function listMeantBy(value: unknown, items: ArgumentSchema): unknown {
  const held = typeof value === "string" && value.trimStart().startsWith("[") ? jsonIn(value) : undefined;
  const list = held ?? (typeof value === "string" ? [value] : value);
  if (!Array.isArray(list)) return list;
  return list.map((item: unknown) => meantBy(item, items)).filter((item) => item !== undefined);
}

function problemAt(path: readonly PropertyKey[], taken: Readonly<Record<string, unknown>>, root: ObjectSchema): string {
  const [key = "", item] = path;
  const name = String(key);
  const property = root.properties[name] ?? {};
  const source = SOURCES[name] === undefined ? "" : ` (${SOURCES[name]})`;
  const value = taken[name];
  if (value === undefined) return `${name} is needed: ${wanted(property)}${source}`;
  if (item === undefined) return `${name} must be ${wanted(property)}${source}, not ${shown(value)}`;
  const part = (value as Record<PropertyKey, unknown>)[item];
  return `${name}[${String(item)}] must be ${wanted(property.items ?? {})}${source}, not ${shown(part)}`;
}

/** What a value must be, in words. */
function wanted(schema: ArgumentSchema): string {
  if (schema.enum !== undefined) return `one of ${schema.enum.join(", ")}`;
  switch (schema.type) {
    case "string":
      return `a text${range("of", schema.minLength, schema.maxLength, " characters")}`;
    case "integer":
      return `a whole number${range("from", schema.minimum, schema.maximum, "")}`;
    case "boolean":
      return "true or false";
    case "array":
      return `a list${range("of", schema.minItems, schema.maxItems, " entries")}`;
    default:
      return "an object of JSON";
  }
}

function range(word: string, least: number | undefined, most: number | undefined, unit: string): string {
  if (most === undefined || most === Number.MAX_SAFE_INTEGER) {
    return least === undefined ? "" : ` of at least ${least}${unit}`;
  }
  return least === undefined ? ` of at most ${most}${unit}` : ` ${word} ${least} to ${most}${unit}`;
}

function shown(value: unknown): string {
  if (typeof value === "string" && value.length > MAX_SHOWN) return `a text of ${value.length} characters`;
  if (Array.isArray(value)) return `a list of ${value.length}`;
  return typeof value === "object" ? "an object" : shorten(JSON.stringify(value) ?? "nothing");
}

/** Sentences about the arguments that a tool does not have. A misspelt one changes what happens, so its sender must hear of it. */
function ignoredOf(tool: string, given: readonly string[], known: readonly string[]): string[] {
  const unknown = given.filter((key) => !known.includes(key));
  const sentences = unknown.slice(0, MAX_NAMED).map((key) => {
    const [near] = nearNames(shorten(key), known);
    const hint = near === undefined ? "" : `; did you mean ${near}?`;
    return `${JSON.stringify(shorten(key))} is no argument of ${tool} and was ignored${hint || "."}`;
  });
  const more = unknown.length - sentences.length;
  return more > 0 ? [...sentences, `So were ${more} others.`] : sentences;
}

function shorten(text: string): string {
  // Not between the two halves of a character.
  return text.length <= MAX_SHOWN ? text : `${text.slice(0, MAX_SHOWN).replace(/[\uD800-\uDBFF]$/, "")}…`;
}
