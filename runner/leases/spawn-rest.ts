/*
 * What a runner does when its machine can start no executor: no processes, memory, files or disk are left. Pure.
 *
 * It takes no run for a while, longer each time, and then only as many at once as ran when it failed. Every executor that
 * starts at that bound doubles it. Nothing that failed has been executed, so its runs go to other runners.
 */

/** First pause, and the longest. */
const PAUSE_MS = { shortest: 2_000, longest: 60_000 };

/** Quiet time after a pause that ends the matter. */
const CALM_MS = 60_000;

export interface SpawnRest {
  /** Pauses in a row. */
  readonly pauses: number;
  /** No run is taken before. */
  readonly untilMs: number;
  /** Runs at a time after the pause. */
  readonly limit: number;
  /** What was short. */
  readonly reason: string;
}

/** An executor could not be started while `others` ran. Failures during a pause are of the same moment and lengthen nothing. */
export function afterShortage(rest: SpawnRest | undefined, reason: string, others: number, nowMs: number): SpawnRest {
  const before = rest !== undefined && isCalm(rest, nowMs) ? undefined : rest;
  const limit = Math.max(1, Math.min(others, before?.limit ?? Infinity));
  if (before !== undefined && nowMs < before.untilMs) return { ...before, limit };
  const pauses = (before?.pauses ?? 0) + 1;
  const pauseMs = Math.min(PAUSE_MS.shortest * 2 ** (pauses - 1), PAUSE_MS.longest);
  return { pauses, untilMs: nowMs + pauseMs, limit, reason };
}

/** An executor was started, and `running` run now. */
export function afterStart(rest: SpawnRest | undefined, running: number, nowMs: number): SpawnRest | undefined {
  if (rest === undefined || nowMs < rest.untilMs || running < rest.limit) return rest;
  return { ...rest, limit: rest.limit * 2 };
}

/** Runs at a time that may be taken now. */
export function slotsOf(rest: SpawnRest | undefined, maxRuns: number, nowMs: number): number {
  if (rest === undefined || isCalm(rest, nowMs)) return maxRuns;
  return nowMs < rest.untilMs ? 0 : Math.min(maxRuns, rest.limit);
}

function isCalm({ untilMs }: SpawnRest, nowMs: number): boolean {
  return nowMs >= untilMs + CALM_MS;
}
