import { JSON_MAX_DEPTH } from "../lib/protocol/limits.ts";
import { depthOf } from "../lib/protocol/depth.ts";
import { heldNumber, numberProblem } from "../lib/protocol/json-numbers.ts";

/** Levels that a message of MCP has around the arguments of a call: batch, message, params, arguments. */
const LEVELS_AROUND = 4;

const BODY_MAX_DEPTH = JSON_MAX_DEPTH + LEVELS_AROUND;

/** A number whose text a double does not hold, as `1029384756610293847` or `1e400`: whoever reads it must refuse it. */
export class LostNumber {
  readonly source: string;
  constructor(source: string) {
    this.source = source;
  }
}

/** A text that is JSON, and deeper than anybody may read: `json` is for looking at its first levels. */
export class TooDeep extends RangeError {
  override name = "TooDeep";
  readonly json: unknown;
  constructor(json: unknown) {
    super(`nested more than ${JSON_MAX_DEPTH} levels deep; flatten it or pass it as a text`);
    this.json = json;
  }
}

/**
 * Parses JSON of a client. Numbers that would be changed come out as LostNumber.
 *
 * @throws SyntaxError when it is no JSON, TooDeep when it is nested deeper than a message with arguments may be.
 */
export function parseJson(text: string): unknown {
  const json: unknown = JSON.parse(text);
  if (depthOf(json, BODY_MAX_DEPTH) > BODY_MAX_DEPTH) throw new TooDeep(json);
  // In most texts there is none, and a reviver costs ten times the parsing.
  return numberProblem(text) === undefined ? json : (JSON.parse(text, keepLost) as unknown);
}

function keepLost(_key: string, value: unknown, context?: { source?: string }): unknown {
  const source = context?.source;
  if (typeof value !== "number" || source === undefined) return value;
  return Number.isNaN(heldNumber(source)) ? new LostNumber(source) : value;
}

/** Whether a value is an object of JSON: neither a list nor null. */
export function isObject(json: unknown): json is Record<string, unknown> {
  return typeof json === "object" && json !== null && !Array.isArray(json) && !(json instanceof LostNumber);
}
