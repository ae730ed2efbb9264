import type { JsonValue } from "@bufbuild/protobuf";
import { depthOf } from "./depth.ts";
import { numberProblem } from "./json-numbers.ts";
import { READ_MAX_DEPTH } from "./limits.ts";

/**
 * Reads JSON that somebody wrote, and refuses what would not arrive as it was written: numbers that a double cannot hold, and
 * nesting that no reader follows. Whether a value is too deep for the protocol is the business of who knows its place.
 *
 * @throws Error, with what is wrong in words.
 */
export function readJson(text: string): JsonValue {
  const json = JSON.parse(text) as JsonValue;
  const problem = numberProblem(text);
  if (problem !== undefined) throw new Error(problem);
  if (depthOf(json, READ_MAX_DEPTH) > READ_MAX_DEPTH) throw new Error(`nested more than ${READ_MAX_DEPTH} levels deep`);
  return json;
}
