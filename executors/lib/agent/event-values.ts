import { createHash } from "node:crypto";
import type { JsonValue } from "@bufbuild/protobuf";
import { cutText } from "../../../lib/protocol/limits.ts";

/*
 * What an agent says, as an event may hold it (executor.proto): a runner takes a line that does not keep these rules for
 * output, and the call would be missing in the transcript.
 */

/** Longest name and id of a tool call, in characters. */
const NAME_MAX = 256;

/** Deepest nesting of a value; an event of 24 levels has some of its own. */
const DEPTH_MAX = 16;

// oxlint-disable-next-line no-control-regex
const UNPRINTABLE = /[\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]+/g;

/** A name on one line, at most 256 characters long. */
export function eventName(text: string): string {
  const line = text.replaceAll(UNPRINTABLE, " ").trim();
  return (line.length <= NAME_MAX ? line : `${line.slice(0, NAME_MAX - 1)}…`).toWellFormed();
}

/** An id that is equal for equal ids; those that an event cannot hold become the hash of them. */
export function eventId(id: string): string {
  const fits = id.length <= NAME_MAX && eventName(id) === id;
  return fits ? id : createHash("sha256").update(id).digest("hex");
}

/** The value, or its beginning as text when it is too large or too deep. */
export function eventValue(value: unknown, maxBytes: number): JsonValue {
  if (!isWithin(value, DEPTH_MAX)) return "[nested too deeply to be shown]";
  // An integer that a double cannot hold was rounded already; as text it is at least no malformed event.
  const json = JSON.stringify(value, (_, one: unknown) =>
    typeof one === "number" && Number.isInteger(one) && !Number.isSafeInteger(one) ? String(one) : one,
  ) as string | undefined;
  if (json === undefined) return {};
  return Buffer.byteLength(json) <= maxBytes ? (JSON.parse(json) as JsonValue) : cutText(json, maxBytes);
}

function isWithin(value: unknown, levels: number): boolean {
  if (typeof value !== "object" || value === null) return true;
  return levels > 0 && Object.values(value).every((one) => isWithin(one, levels - 1));
}
