import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { InvocationError } from "../lib/invocation.ts";

/** How a list becomes arguments: `--key a,b`, or `--key a --key b`. */
export type ListStyle = "joined" | "repeated";

/** Linux takes no longer argument, its end included. */
const ARGUMENT_MAX_BYTES = 131_071;

/**
 * Parameters of a run as arguments, in the order of their names: `--key value`; true is `--key`; false, null and an empty
 * list are left out; an object is its JSON. A value that begins with "-" is joined to its key, so that none is ever taken
 * for a flag.
 * @throws InvocationError for a name that is no flag, and a value that no argument can hold.
 */
export function argumentsOf(parameters: JsonObject, lists: ListStyle): string[] {
  const keys = Object.keys(parameters).sort();
  return keys.flatMap((key) => {
    if (!/^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$/.test(key)) {
      const is = "a name of letters, digits, _, . and -, which begins with a letter or a digit";
      throw new InvocationError(`parameters: ${JSON.stringify(key.slice(0, 100))} cannot be a flag: expected ${is}`);
    }
    return flagsOf(key, parameters[key] ?? null, lists);
  });
}

function flagsOf(key: string, value: JsonValue, lists: ListStyle): string[] {
  if (value === true) return [`--${key}`];
  if (value === false || value === null) return [];
  if (!Array.isArray(value)) return flagOf(key, textOf(value));
  if (value.length === 0) return [];
  const texts = value.map(textOf);
  return lists === "joined" ? flagOf(key, texts.join(",")) : texts.flatMap((text) => flagOf(key, text));
}

function flagOf(key: string, text: string): string[] {
  if (text.includes("\0")) {
    throw new InvocationError(`parameters.${key}: holds a character NUL, which no argument of a program can hold`);
  }
  const flag = text.startsWith("-") ? [`--${key}=${text}`] : [`--${key}`, text];
  const bytes = Math.max(...flag.map((one) => Buffer.byteLength(one)));
  if (bytes > ARGUMENT_MAX_BYTES) {
    const limit = `an argument of a program has at most ${ARGUMENT_MAX_BYTES}`;
    throw new InvocationError(`parameters.${key}: ${bytes} bytes, and ${limit}; hand over the path of a file instead`);
  }
  return flag;
}

function textOf(value: JsonValue): string {
  return typeof value === "string" ? value : JSON.stringify(value);
}
