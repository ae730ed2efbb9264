/**
 * When something may be deleted for its age: runs in a store (ADR 4), reports in an outbox (ADR 3). A wall clock that is wrong
 * makes everything old at once, and what is deleted does not come back when the clock does.
 */

/** How long nothing is deleted for its age after the wall clock was found to be elsewhere: it may jump back. */
export const NO_PRUNE_MS = 86_400_000;

/** What is kept of the wall clock from one process to the next, in epoch milliseconds. */
export interface ClockNote {
  /** The clock when it was last looked at. */
  readonly seenAt: number;
  /** Nothing is deleted for its age before. */
  readonly pruneFrom: number;
}

/**
 * The note of a process that starts, or that looks seldom. A clock that is behind the last look, or ahead of it by more than a
 * day or a tenth of what is retained, may have jumped while nobody looked; that nothing ran for so long looks the same. Where
 * that was said before, and its day has passed by now, it is not said again: a machine that is on for some hours every other
 * day would never delete anything. `retainMs` 0 keeps for ever.
 */
export function clockAtStart(last: ClockNote, nowMs: number, retainMs: number): ClockNote {
  const aheadMs = nowMs - last.seenAt;
  const awayMs = retainMs === 0 ? NO_PRUNE_MS : Math.min(NO_PRUNE_MS, retainMs / 10);
  const waitedFor = last.pruneFrom > last.seenAt && last.pruneFrom <= nowMs;
  if (aheadMs < 0 || (aheadMs > awayMs && !waitedFor)) return clockAfterJump(nowMs);
  return clockSeen(last, nowMs);
}

export function clockAfterJump(nowMs: number): ClockNote {
  return { seenAt: nowMs, pruneFrom: nowMs + NO_PRUNE_MS };
}

export function clockSeen(last: ClockNote, nowMs: number): ClockNote {
  return { seenAt: nowMs, pruneFrom: last.pruneFrom };
}
