import { formatTable } from "./stats.ts";

export type Unit = "ms" | "/s" | "KiB";

/** What one row of the table says. Values are in `unit`. */
export interface Figure {
  readonly row: number;
  readonly what: string;
  readonly unit: Unit;
  readonly median: number;
  /** Absent where a value is already the mean of many, such as a rate. */
  readonly p99?: number;
  /** What the machine gives without us, measured in the same run. */
  readonly raw: { readonly what: string; readonly value: number };
  /** Absent for a value that is only information. */
  readonly target?: { readonly says: string; readonly met: boolean };
}

/** What a row has measured. */
export interface Measured {
  readonly figures: readonly Figure[];
  /** Sentences under the table: what is included, and what was seen on the way. */
  readonly notes: readonly string[];
}

/** The figures for people, with their notes below. */
export function formatMeasured(measured: readonly Measured[]): string {
  const head = ["row", "what", "median", "p99", "raw limit", "of raw", "target", "", "raw limit is"];
  const rows = measured.flatMap(({ figures }) => figures.map(cells));
  const notes = measured.flatMap(({ notes }) => notes.map((note) => `  ${note}`));
  return [formatTable(head, rows), "", ...notes, ""].join("\n");
}

function cells({ row, what, unit, median, p99, raw, target }: Figure): string[] {
  return [
    String(row),
    what,
    quantity(median, unit),
    p99 === undefined ? "" : quantity(p99, unit),
    quantity(raw.value, unit),
    unit === "/s" ? `${Math.round((100 * median) / raw.value)} %` : `${(median / raw.value).toFixed(1)} ×`,
    target?.says ?? "",
    target === undefined ? "" : target.met ? "met" : "NOT MET",
    raw.what,
  ];
}

/** A value with its unit, in three digits or so. */
export function quantity(value: number, unit: Unit): string {
  const digits = value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return unit === "/s" ? `${Math.round(value)} /s` : `${value.toFixed(digits)} ${unit}`;
}
