/** Longest time for which a runner is not offered a run that it refused. */
/** Longest of those times. */
export const MAX_COOLDOWN_MS = 60_000;

/** Time for which a runner is not offered a run again after its n-th refusal of it, n from 1 (ADR 3). */
export function cooldownMs(refusals: number): number {
  return Math.min(1000 * 2 ** (refusals - 1), MAX_COOLDOWN_MS);
}

/** Runs that may be offered to a runner now. What the runner says can only lower what the coordinator counts. */
export function freeSlots(maxRuns: number, activeRuns: number, withheld: number): number {
  return Math.max(0, maxRuns - activeRuns - withheld);
}

/** Slots that a runner keeps for itself, from what it reported and what the coordinator counted at that time. */
export function withheldSlots(maxRuns: number, activeRuns: number, reported: number | undefined): number {
  return reported === undefined ? 0 : Math.max(0, maxRuns - activeRuns - reported);
}
