import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { readJson } from "../../../lib/protocol/json-text.ts";
import { isPrintable, UNPRINTABLE_RULE } from "../../../lib/protocol/printable.ts";

/** A blueprint cannot be used. The message names the file, the key and what belongs there. */
export class BlueprintError extends Error {
  override readonly name = "BlueprintError";
}

/** Takes the value that stands at a place, or throws BlueprintError. */
export type Read<T> = (value: JsonValue | undefined, at: string) => T;

/** The object that a file holds. */
export function parseObject(text: string, file: string): JsonObject {
  let value: JsonValue;
  try {
    value = readJson(text);
  } catch (error) {
    throw new BlueprintError(`${file}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
  return object(value, file);
}

export function object(value: JsonValue | undefined, at: string): JsonObject {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
  return refuse(at, "an object", value);
}

export function string(value: JsonValue | undefined, at: string): string {
  return typeof value === "string" ? value : refuse(at, "a string", value);
}

/** A string that is shown to people and compared, as the names in run.proto are. */
export function name(max: number): Read<string> {
  return (value, at) => {
    const text = string(value, at);
    if (text.length > max) return refuse(at, `a string of at most ${max} characters`, value);
    return printable(text, at);
  };
}

export function printable(text: string, at: string): string {
  if (isPrintable(text)) return text;
  throw new BlueprintError(`${at}: ${UNPRINTABLE_RULE}: ${JSON.stringify(text).slice(0, 60)}`);
}

export function optional<T>(read: Read<T>): Read<T | undefined> {
  return (value, at) => (value === undefined || value === null ? undefined : read(value, at));
}

export function list<T>(read: Read<T>): Read<T[]> {
  return (value, at) =>
    Array.isArray(value) ? value.map((item, i) => read(item, `${at}[${i}]`)) : refuse(at, "a list", value);
}

/** Tags as a run may name them (run.proto), each once. */
export function tagList(value: JsonValue | undefined, at: string): string[] {
  const tags = [...new Set(list(string)(value, at))];
  const fits = tags.length <= 64 && tags.every((tag) => tag.length > 0 && tag.length <= 128);
  if (!fits) return refuse(at, "at most 64 strings of 1 to 128 characters", value);
  return tags.map((tag) => printable(tag, at));
}

/** False for what says as much as leaving it out. */
export function isFilled(value: JsonValue | undefined): boolean {
  if (value === undefined || value === null || value === "" || value === false) return false;
  return typeof value !== "object" || Object.keys(value).length > 0;
}

export function refuse(at: string, expected: string, value: JsonValue | undefined): never {
  const text = value === undefined ? "nothing" : JSON.stringify(value);
  throw new BlueprintError(`${at}: expected ${expected}, found ${text.length > 60 ? `${text.slice(0, 60)}…` : text}`);
}
