import type { JsonObject } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import type { Demands } from "../../gen/agentrunner/v1/run_pb.ts";
import type { Paint, Style } from "./format.ts";
import { ago, shorten } from "./format.ts";
import { table } from "./table.ts";
import type { Cell } from "./table.ts";

/*
 * The texts of `ao` are pure functions of messages and of the time. Lists are tables, single things are pages of
 * `name  value` lines without the empty ones; both fit the columns that there are (Infinity in a pipe). Ids of a page are never
 * cut, those of a list only when the terminal is narrow. This file has what the pages share; the others are named after what
 * they show.
 */

/** `name  value` lines, aligned; lines without a value are left out, long values go on below. */
export function fields(pairs: readonly (readonly [string, string])[], paint: Paint, columns = Infinity): string {
  const rows = pairs.filter(([, value]) => value !== "").map(([name, value]): Cell[] => [["dim", name], value]);
  return table(["", { title: "", min: 20, wraps: true }], rows, paint, columns);
}

/** A time with its age; empty when it is not known. */
export function moment(time: Timestamp | undefined, nowMs: number): string {
  return time === undefined ? "" : `${new Date(timestampMs(time)).toISOString()}  ${ago(time, nowMs)}`;
}

/** `profile p · tags a, b`; empty for no demands. */
export function demandsText(demands: Demands | undefined): string {
  if (demands === undefined) return "";
  const { executorProfile, hostname, projectDir, tags } = demands;
  return [
    executorProfile && `profile ${executorProfile}`,
    hostname && `host ${hostname}`,
    projectDir && `directory ${projectDir}`,
    tags.length > 0 && `tags ${tags.join(", ")}`,
  ]
    .filter(Boolean)
    .join(" · ");
}

/** The head of an object's JSON. */
export function objectText(object: JsonObject | undefined): string {
  return object === undefined ? "" : shorten(JSON.stringify(object), 200);
}

/** A cell as style and text; one without a style is bold. */
export const styled = (cell: Cell): readonly [Style, string] => (typeof cell === "string" ? ["bold", cell] : cell);
