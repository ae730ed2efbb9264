/** Names that are shown when one is unknown. */
const MAX_SHOWN = 5;

/** The names that somebody who wrote `name` may have meant, the nearest first: a slip or two away, or longer by more. */
export function nearNames(name: string, names: readonly string[]): string[] {
  const wanted = name.toLowerCase();
  const most = Math.max(1, Math.floor(name.length / 3));
  return names
    .map((candidate) => ({ candidate, distance: distanceOf(wanted, candidate.toLowerCase()) }))
    .filter(({ candidate, distance }) => distance <= most || candidate.toLowerCase().startsWith(wanted))
    .sort((a, b) => a.distance - b.distance)
    .slice(0, MAX_SHOWN)
    .map(({ candidate }) => candidate);
}

/**
 * Characters that must be put in, taken out, replaced, or swapped with their neighbour, to make one text of the other
 * (optimal string alignment).
 */
function distanceOf(from: string, to: string): number {
  const [a, b] = [Array.from(from), Array.from(to)];
  let before: number[] = [];
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (const [i, x] of a.entries()) {
    const next = [i + 1];
    for (const [j, y] of b.entries()) {
      const swapped = i > 0 && j > 0 && x === b[j - 1] && a[i - 1] === y ? (before[j - 1] ?? 0) + 1 : Infinity;
      next.push(Math.min((row[j] ?? 0) + (x === y ? 0 : 1), (row[j + 1] ?? 0) + 1, (next[j] ?? 0) + 1, swapped));
    }
    [before, row] = [row, next];
  }
  return row[b.length] ?? 0;
}
