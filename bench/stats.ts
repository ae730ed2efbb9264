/** Sample at or above a share `q` (0 to 1) of all samples: the nearest rank, so always a value that was measured. NaN without samples. */
export function percentile(samples: readonly number[], q: number): number {
  if (samples.length === 0) return NaN;
  const sorted = Float64Array.from(samples).sort();
  const rank = Math.ceil(q * sorted.length);
  return sorted[Math.min(Math.max(rank, 1), sorted.length) - 1] ?? NaN;
}

/** The middle sample, or the mean of the two in the middle. NaN without samples. */
export function median(samples: readonly number[]): number {
  const sorted = Float64Array.from(samples).sort();
  const half = Math.floor(sorted.length / 2);
  const upper = sorted[half] ?? NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[half - 1] ?? NaN) + upper) / 2;
}

/** Samples of a Prometheus text page by their name with labels. */
export function parseSamples(page: string): Map<string, number> {
  const samples = new Map<string, number>();
  for (const line of page.split("\n")) {
    const [, name, value] = /^([^#\s][^\s{]*(?:\{[^}]*\})?) (\S+)/.exec(line) ?? [];
    if (name !== undefined) samples.set(name, Number(value));
  }
  return samples;
}

/**
 * Upper bound of the bucket that holds the share `q` of what a Prometheus histogram counted between two scrapes. Infinity
 * beyond the last bucket, NaN when nothing was counted.
 */
export function bucketBound(
  before: ReadonlyMap<string, number>,
  after: ReadonlyMap<string, number>,
  histogram: string,
  q: number,
): number {
  const buckets = [...after]
    .flatMap(([name, count]) => {
      if (!name.startsWith(`${histogram}_bucket{`)) return [];
      const bound = /le="([^"]+)"/.exec(name)?.[1];
      return [{ bound: bound === "+Inf" ? Infinity : Number(bound), count: count - (before.get(name) ?? 0) }];
    })
    .sort((a, b) => a.bound - b.bound);
  const total = buckets.at(-1)?.count ?? 0;
  if (total === 0) return NaN;
  return buckets.find(({ count }) => count >= q * total)?.bound ?? Infinity;
}

/** Lines of equal columns: to the right those of which every cell is a number, with or without a unit, but never the first. */
export function formatTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const columns = head.map((title, i) => {
    const cells = rows.map((row) => row[i] ?? "");
    const numeric = i > 0 && cells.every((cell) => /^(?:\d|$)/.test(cell));
    return { width: Math.max(...[title, ...cells].map((cell) => cell.length)), numeric };
  });
  const line = (cells: readonly string[]): string =>
    columns
      .map(({ width, numeric }, i) => (numeric ? (cells[i] ?? "").padStart(width) : (cells[i] ?? "").padEnd(width)))
      .join("  ")
      .trimEnd();
  return [line(head), columns.map(({ width }) => "─".repeat(width)).join("──"), ...rows.map(line)].join("\n");
}
