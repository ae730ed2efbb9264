import { existsSync, readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { fileProblem } from "../lib/config/file-problem.ts";
import { UsageError } from "../lib/config/config.ts";
import { readJson } from "../lib/protocol/json-text.ts";
import { utf8Text } from "../lib/text.ts";

/** Name of the file beside a program. */
export const DECLARATION_FILE = "check.json";

const FILE_MAX_BYTES = 64 * 1024;

/** Stands in `prompt` for the text. */
const PLACE = "${prompt}";

/** What an executor says of itself for the check, in `check.json` beside its program. Every field may be left out. */
export interface Declaration {
  /** Form of its prompts: a JSON value in which `${prompt}` stands for the text. Absent: it takes every text. */
  readonly prompt?: JsonValue;
  /** A prompt with which it works for a minute, so that it can be stopped. For one that asks no model. */
  readonly slow?: JsonValue;
  /** A prompt with which it gives its result and does not exit. */
  readonly hang?: JsonValue;
  /** `executor_config` of its runs, under what is given. */
  readonly config?: JsonObject;
  readonly parameters?: JsonObject;
}

const KEYS: Readonly<Record<keyof Declaration, (value: unknown) => boolean>> = {
  prompt: (value) => JSON.stringify(value).includes(PLACE),
  slow: isPrompt,
  hang: isPrompt,
  config: isObject,
  parameters: isObject,
};

const EXPECTED: Readonly<Record<keyof Declaration, string>> = {
  prompt: `a JSON value with ${PLACE} in it`,
  slow: "a text or an object",
  hang: "a text or an object",
  config: "an object",
  parameters: "an object",
};

/** The declaration beside a program; empty when there is none. @throws UsageError that names the file and the key. */
export function declarationOf(program: string): Declaration {
  const file = join(dirname(program), DECLARATION_FILE);
  if (!existsSync(file)) return {};
  return parseDeclaration(textOf(file), file);
}

function textOf(file: string): string {
  try {
    const { size } = statSync(file);
    if (size > FILE_MAX_BYTES) throw new Error(`has ${size} bytes; at most ${FILE_MAX_BYTES} are read`);
    return utf8Text(readFileSync(file));
  } catch (error) {
    throw new UsageError(`${file} cannot be read: ${fileProblem(error, file)}`);
  }
}

/** @throws UsageError */
export function parseDeclaration(text: string, file: string): Declaration {
  let json: unknown;
  try {
    json = readJson(text);
  } catch (error) {
    throw new UsageError(`${file}: ${error instanceof Error ? error.message : String(error)}`);
  }
  if (!isObject(json)) throw new UsageError(`${file}: must be a JSON object`);
  for (const [key, value] of Object.entries(json as object)) {
    if (!Object.hasOwn(KEYS, key))
      throw new UsageError(`${file}: "${key}" is not known; known: ${Object.keys(KEYS).join(", ")}`);
    const known = key as keyof Declaration;
    if (!KEYS[known](value)) throw new UsageError(`${file}: "${key}" must be ${EXPECTED[known]}`);
  }
  return json as Declaration;
}

/** The text in the form that the executor takes. */
export function formed(text: string, form: JsonValue | undefined): string {
  return form === undefined ? text : promptText(replaced(form, text));
}

/** A prompt as a declaration writes it. */
export function promptText(prompt: JsonValue): string {
  return typeof prompt === "string" ? prompt : JSON.stringify(prompt);
}

function replaced(form: JsonValue, text: string): JsonValue {
  if (typeof form === "string") return form.replaceAll(PLACE, () => text);
  if (Array.isArray(form)) return form.map((item) => replaced(item, text));
  if (typeof form !== "object" || form === null) return form;
  return Object.fromEntries(Object.entries(form).map(([key, value]) => [key, replaced(value, text)]));
}

function isObject(value: unknown): boolean {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isPrompt(value: unknown): boolean {
  return typeof value === "string" || isObject(value);
}
