import { clean } from "./format.ts";
import type { Paint, Style } from "./format.ts";
import { fit, fitEnd, width, wrap } from "../../lib/width.ts";

/** A cell of a table: a text, or a text with its style. */
export type Cell = string | readonly [Style, string];

/** A column of a table. A text alone is a column that is not made narrower. */
export interface Column {
  readonly title: string;
  /** How long it stays when the terminal is narrow: the column with the lowest number goes first. Default 5. */
  readonly keep?: number;
  /** Holds ids or names: ids are cut to what tells them apart. */
  readonly ids?: true;
  /** Columns under which it is not cut. Without one it is not cut at all. */
  readonly min?: number;
  /** What is left of a text that is cut. Default: its start. */
  readonly shows?: "start" | "end";
  /** Only of the last column: a longer text goes on below instead of being cut. */
  readonly wraps?: true;
}

/** Digits that the cut id of a run or session keeps: its time and 16 random bits. */
const ID_DIGITS = 16;
const GAP = 2;
/** Ids that any verb takes by their beginning; those of runners are short and have to be typed whole. */
const ID = /^(run|ses)_(?=[0-9a-f]{20,}$)/;

const cellText = (cell: Cell | undefined): string =>
  cell === undefined ? "" : typeof cell === "string" ? cell : cell[1];

/**
 * Lines of aligned columns, two spaces apart, without spaces at line ends, at most `max` columns wide: ids and texts are cut,
 * then columns left out, the least important first. The titles come first, in bold, when there are any. Every cell is cleaned.
 */
export function table(
  columns: readonly (string | Column)[],
  rows: readonly (readonly Cell[])[],
  paint: Paint,
  max = Infinity,
): string {
  const specs = columns.map((column): Column => (typeof column === "string" ? { title: column } : column));
  const texts = rows.map((row) => specs.map((_, i) => clean(cellText(row[i]))));
  const sized = specs.map((spec, i) => measure(spec, i, texts));
  const shown = layOut(sized, max);
  const head = specs.some(({ title }) => title !== "") ? [specs.map(({ title }): Cell => ["bold", title])] : [];
  return [...head, ...rows].map((row) => rowText(row, shown, paint)).join("\n");
}

interface Sized {
  readonly spec: Column;
  readonly index: number;
  /** Columns that it takes uncut, and cut as far as it may be. */
  readonly natural: number;
  readonly least: number;
  /** Characters that an id is cut to. */
  readonly idLength: number;
  /** Columns that it gets. */
  given: number;
}

function measure(spec: Column, index: number, texts: readonly (readonly string[])[]): Sized {
  const cells = texts.map((row) => row[index] ?? "");
  const titled = width(spec.title);
  const natural = Math.max(titled, ...cells.map(width));
  const idLength = spec.ids === true ? uniqueLength(cells) : 0;
  const cut = cells.map((cell) =>
    spec.ids === true && ID.test(cell) ? idLength : Math.min(width(cell), spec.min ?? Infinity),
  );
  const least = Math.min(natural, spec.ids === true || spec.min !== undefined ? Math.max(titled, ...cut) : natural);
  return { spec, index, natural, least, idLength, given: natural };
}

/** Length at which no two different ids of a column are the same. */
function uniqueLength(cells: readonly string[]): number {
  const ids = [...new Set(cells.filter((cell) => ID.test(cell)))];
  const prefix = Math.max(0, ...ids.map((id) => id.indexOf("_") + 1));
  let length = prefix + ID_DIGITS;
  while (new Set(ids.map((id) => id.slice(0, length))).size < ids.length) length += 1;
  return length;
}

/** The columns that are shown, with what each gets. */
function layOut(all: readonly Sized[], max: number): Sized[] {
  let shown = all.filter(({ natural }) => natural > 0);
  const room = (): number => max - shown.reduce((sum, { least }) => sum + least + GAP, -GAP);
  while (shown.length > 1 && room() < 0) {
    const least = Math.min(...shown.map(({ spec }) => spec.keep ?? 5));
    const dropped = shown.findLast(({ spec }) => (spec.keep ?? 5) === least);
    shown = shown.filter((column) => column !== dropped);
  }
  let left = Math.max(0, room());
  // Texts say more with the room that is left than the rest of an id does.
  const order = shown.toSorted(
    (a, b) => Number(a.spec.ids ?? false) - Number(b.spec.ids ?? false) || (b.spec.keep ?? 5) - (a.spec.keep ?? 5),
  );
  for (const column of order) {
    const wanted = column.natural - column.least;
    const more = column.spec.ids === true && wanted > left ? 0 : Math.min(wanted, left);
    column.given = shown.length === 1 ? Math.min(max, column.natural) : column.least + more;
    left -= more;
  }
  return shown;
}

function rowText(row: readonly Cell[], shown: readonly Sized[], paint: Paint): string {
  const last = shown.findLastIndex(({ index }) => cellText(row[index]) !== "");
  let offset = 0;
  const cells = shown.slice(0, last + 1).map((column, i) => {
    const cell = row[column.index] ?? "";
    const lines = cellLines(clean(cellText(cell)), column, " ".repeat(offset));
    const painted = lines.map((line) => (typeof cell === "string" ? line : paint(cell[0], line)));
    offset += column.given + GAP;
    return painted.join("\n") + (i === last ? "" : " ".repeat(Math.max(0, column.given - width(lines[0] ?? ""))));
  });
  return cells.join(" ".repeat(GAP));
}

/** The text of a cell on the columns that it gets; a second line stands under the first. */
function cellLines(text: string, { spec, given, idLength }: Sized, indent: string): string[] {
  if (width(text) <= given) return [text];
  if (spec.ids === true && ID.test(text)) return [text.slice(0, idLength)];
  if (spec.wraps === true)
    return wrap(text, given)
      .split("\n")
      .map((line, i) => (i === 0 ? line : indent + line));
  return [spec.shows === "end" ? fitEnd(text, given) : fit(text, given)];
}

/** An id on as many characters as a narrow table gives it. */
export function shortId(id: string): string {
  return ID.test(id) ? id.slice(0, id.indexOf("_") + 1 + ID_DIGITS) : id;
}

/** `1 run`, `12 runs`. */
export function total(n: number, noun: string): string {
  return `${n} ${noun}${n === 1 ? "" : "s"}`;
}
