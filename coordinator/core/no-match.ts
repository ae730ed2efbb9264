/**
 * The no-match clock (ADR 10): a demand class is unmatched since a moment, and each of its runs since then or since it became
 * pending, whichever is later. So one row starts and ends the clock of any number of runs. Times are epoch milliseconds.
 */

/** Since when nothing matches a run; undefined while something does. */
export function unmatchedSince(classSince: number | undefined, pendingSince: number): number | undefined {
  return classSince === undefined ? undefined : Math.max(classSince, pendingSince);
}

/**
 * True when that was before `before`. A moment that lies further ahead than the time in which a run fails was written by a clock
 * that has been set back since, and nobody knows how long ago it was.
 */
export function isOverdue(since: number, before: number, now: number): boolean {
  return since < before || since - now > now - before;
}
