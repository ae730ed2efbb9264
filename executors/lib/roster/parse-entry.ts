import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import type * as Ajv from "ajv/dist/2020.js";
import type { ErrorObject, ValidateFunction } from "ajv/dist/2020.js";
import { parse as parseYaml } from "yaml";
import { nearNames } from "../../../lib/near-names.ts";
import { inPackage } from "../../../lib/package-root.ts";
import type { RosterEntry } from "./roster-entry.ts";
import { ROSTER_VERSION } from "./roster-entry.ts";

/** What a file of the roster holds, before it is held against the schema: a user's may be a part of an entry. */
export type RosterPart = Readonly<Record<string, unknown>>;

/** The text is no entry of the roster. The message names the key, and what is expected; it goes on after the name of the file. */
export class RosterError extends Error {
  override readonly name = "RosterError";
}

/** Names of agents, of their files and folders. */
export const AGENT_NAME = /^[a-z][a-z0-9-]{0,62}$/;

/** Levels of maps that are merged; an entry has five. */
const DEPTH_MAX = 24;

/**
 * An entry from the text of its file.
 * @param partOf the file of the agent that this one extends.
 * @throws RosterError
 */
export function parseRosterEntry(
  text: string,
  name: string,
  partOf: (name: string) => RosterPart | undefined = () => undefined,
): RosterEntry {
  const part = parsePart(text);
  const base = part["extends"];
  if (base === undefined) return entryOf(part, name);
  const found = typeof base === "string" ? partOf(base) : undefined;
  if (found === undefined) throw new RosterError(`extends must name an agent of the roster, not ${shown(base)}`);
  return entryOf(mergeEntries(found, part), name);
}

/** What the text of a file holds. @throws RosterError when that is no map, or of another version. */
export function parsePart(text: string): RosterPart {
  const part = yaml(text);
  if (!isMap(part)) throw new RosterError(`must be a map of keys, not ${shown(part)}`);
  const version = part["roster_version"];
  if (version !== undefined && version !== ROSTER_VERSION) {
    throw new RosterError(`roster_version must be ${ROSTER_VERSION}, not ${shown(version)}`);
  }
  return part;
}

function yaml(text: string): unknown {
  try {
    return parseYaml(text) as unknown;
  } catch (error) {
    // The rest of the message is a picture of the line.
    const [reason = ""] = (error as Error).message.split("\n");
    throw new RosterError(`is not YAML: ${reason.replace(/:$/, "")}`, { cause: error });
  }
}

/** The override over the base: maps are merged key by key, everything else, lists too, is replaced. */
export function mergeEntries(base: RosterPart, override: RosterPart): RosterPart {
  return merged(base, override, 0);
}

function merged(base: RosterPart, override: RosterPart, depth: number): RosterPart {
  if (depth > DEPTH_MAX) throw new RosterError(`is nested more than ${DEPTH_MAX} levels deep`);
  const both = Object.entries(override).map(([key, value]): [string, unknown] => {
    const below = Object.hasOwn(base, key) ? base[key] : undefined;
    return [key, isMap(below) && isMap(value) ? merged(below, value, depth + 1) : value];
  });
  return Object.fromEntries([...Object.entries(base), ...both]);
}

/** The whole of an entry, held against the schema. @throws RosterError */
export function entryOf(part: RosterPart, name: string): RosterEntry {
  if (!AGENT_NAME.test(name)) {
    throw new RosterError(`"${name}" is no name of an agent: small letters, digits and -, a letter first, at most 63`);
  }
  const validate = validator();
  if (!validate(part)) {
    const errors = validate.errors ?? [];
    // A key that is written wrong is missing as well: its own name is what helps.
    const unknown = errors.find(({ keyword }) => keyword === "additionalProperties");
    throw new RosterError(explained(unknown ?? errors[0], part));
  }
  return checkedEntry(part, name);
}

/** The same for a part that is known to fit: one of ours, which a test holds against the schema. */
export function checkedEntry(part: RosterPart, name: string): RosterEntry {
  const { roster_version: _, extends: __, ...rest } = part;
  const entry = rest as unknown as Omit<RosterEntry, "name">;
  return {
    ...entry,
    name,
    start: { ...entry.start, env: texts(entry.start.env) },
    approval: { ...entry.approval, env: texts(entry.approval.env) },
  };
}

/** Variables that are written as maps and lists are JSON to the agent. */
function texts(env: Readonly<Record<string, unknown>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(env).map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)]),
  );
}

let compiled: ValidateFunction | undefined;

/** Loaded and compiled when it is needed: the entries of the package do without, and executors start often. */
function validator(): ValidateFunction {
  if (compiled !== undefined) return compiled;
  const schema = JSON.parse(readFileSync(inPackage("executors/roster/roster.schema.json"), "utf8")) as object;
  const { Ajv2020 } = createRequire(import.meta.url)("ajv/dist/2020.js") as typeof Ajv;
  const options = { verbose: true, allErrors: true, allowUnionTypes: true, formats: { regex: isRegex } };
  compiled = new Ajv2020(options).compile(schema);
  return compiled;
}

function isRegex(text: string): boolean {
  try {
    return new RegExp(text) instanceof RegExp;
  } catch {
    return false;
  }
}

/** `start.prompt must be one of stdin, argument, acp, not "file"`. */
function explained(error: ErrorObject | undefined, part: RosterPart): string {
  if (error === undefined) return "does not fit roster.schema.json";
  const { keyword, params, instancePath, propertyName, message = "" } = error;
  const key = instancePath.slice(1).split("/").map(unescaped).join(".");
  const inKey = key === "" ? "" : `${key}.`;
  const { description } = error.parentSchema as { description?: string };
  const meaning = description === undefined ? "" : ` (${description})`;
  const value = shown(at(part, instancePath));
  switch (keyword) {
    case "required":
      return `${inKey}${String(params["missingProperty"])} is missing`;
    case "additionalProperties":
      return unknownKey(inKey, String(params["additionalProperty"]), error.parentSchema);
    case "enum":
      return `${key} must be one of ${(params["allowedValues"] as unknown[]).join(", ")}, not ${value}`;
    case "const":
      return `${key} must be ${shown(params["allowedValue"])}, not ${value}`;
    case "type":
      return `${key} must be ${typeNames(params["type"])}, not ${value}${meaning}`;
    default:
      if (propertyName !== undefined) return `${inKey}${propertyName}: the key ${message}`;
      return `${key} ${message}, and is ${value}${meaning}`;
  }
}

function unknownKey(inKey: string, key: string, schema: unknown): string {
  const known = Object.keys((schema as { properties: object }).properties);
  const near = nearNames(key, known);
  const hint = near.length > 0 ? `did you mean ${near.join(" or ")}?` : `known: ${known.join(", ")}`;
  return `${inKey}${key} is not known; ${hint}`;
}

function typeNames(type: unknown): string {
  const names: Readonly<Record<string, string>> = { object: "a map", array: "a list", string: "a text" };
  return String(type)
    .split(",")
    .map((one) => names[one] ?? `a ${one}`)
    .join(" or ");
}

function at(part: RosterPart, pointer: string): unknown {
  const keys = pointer.split("/").slice(1).map(unescaped);
  return keys.reduce<unknown>((value, key) => (value as Readonly<Record<string, unknown>>)[key], part);
}

const unescaped = (key: string): string => key.replaceAll("~1", "/").replaceAll("~0", "~");

function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? "nothing";
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}

function isMap(value: unknown): value is RosterPart {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
