import type { DescEnum } from "@bufbuild/protobuf";
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { styleText } from "node:util";
import { fit } from "../../lib/width.ts";

/** What colour says: a name of `util.styleText`. */
export type Style = "bold" | "dim" | "red" | "green" | "yellow" | "cyan" | "magenta";
/** Puts a style on a text, or leaves it as it is. */
export type Paint = (style: Style, text: string) => string;

/** No colour. */
export const plain: Paint = (_style, text) => text;
/** Colour by ANSI sequences, whatever the stream is. */
export const ansi: Paint = (style, text) => styleText(style, text, { validateStream: false });

/** Directions that would show a name in another order than it has. */
const BIDI = /[\u202a-\u202e\u2066-\u2069]/g;

/**
 * One line that is safe in a terminal: line breaks become `⏎`, other control characters `\xNN`, and what turns the direction
 * of text `\u202e`, because names and messages come from programs and could otherwise move the cursor, change the title or
 * read as something else.
 */
export function clean(text: string): string {
  return text
    .trimEnd()
    .replaceAll(/\r?\n|[\u2028\u2029]/g, "⏎")
    .replaceAll(/\p{Cc}/gu, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, "0")}`)
    .replaceAll(BIDI, (c) => `\\u${c.charCodeAt(0).toString(16)}`);
}

/** A text on one line of at most `max` columns, with `…` when there is more. */
export function shorten(text: string, max: number): string {
  return fit(clean(text), max);
}

const SECOND_MS = 1000;
const MINUTE_MS = 60 * SECOND_MS;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;

/** A length of time for people, at most two units: `420 ms`, `1.2 s`, `42 s`, `3 min 20 s`, `5 h 12 min`, `3 d 4 h`. */
export function duration(ms: number): string {
  const t = Math.max(0, Math.round(ms));
  if (t < SECOND_MS) return `${t} ms`;
  if (t < 10 * SECOND_MS) return `${(Math.floor(t / 100) / 10).toFixed(1)} s`;
  if (t < MINUTE_MS) return `${Math.floor(t / SECOND_MS)} s`;
  if (t < HOUR_MS) return units(t, MINUTE_MS, "min", SECOND_MS, "s");
  if (t < 2 * DAY_MS) return units(t, HOUR_MS, "h", MINUTE_MS, "min");
  return units(t, DAY_MS, "d", HOUR_MS, "h");
}

function units(ms: number, bigMs: number, big: string, smallMs: number, small: string): string {
  const rest = Math.floor((ms % bigMs) / smallMs);
  return `${Math.floor(ms / bigMs)} ${big}${rest === 0 ? "" : ` ${rest} ${small}`}`;
}

/** A size for people, in binary units: `512 B`, `1.5 KiB`, `20 GiB`. */
export function bytes(n: number): string {
  const names = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = n;
  let unit = 0;
  while (value >= 1024 && unit < names.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || value >= 10 ? 0 : 1;
  return `${value.toFixed(digits)} ${names[unit]}`;
}

/** Time since a moment, `42 s ago`; empty when there was none. Clocks that disagree give `0 ms ago`. */
export function ago(time: Timestamp | undefined, nowMs: number): string {
  return time === undefined ? "" : `${duration(nowMs - timestampMs(time))} ago`;
}

/** Time between two moments; empty when one is missing. */
export function between(from: Timestamp | undefined, to: Timestamp | undefined): string {
  return from === undefined || to === undefined ? "" : duration(timestampMs(to) - timestampMs(from));
}

/** Time of day in UTC with milliseconds, `07:50:12.123`; empty when there is none. */
export function clock(time: Timestamp | undefined): string {
  return time === undefined ? "" : new Date(timestampMs(time)).toISOString().slice(11, 23);
}

/** Name of an enum value without its prefix, in lower case words: `executor exit`. A number from the future stays a number. */
export function word(desc: DescEnum, value: number): string {
  const name = desc.value[value]?.localName;
  return name === undefined ? String(value) : name.toLowerCase().replaceAll("_", " ");
}
