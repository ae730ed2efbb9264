/** The process that has a runner's identity. */
export interface Incumbent {
  readonly bootId: string;
  /** True while its stream is open or it was heard from within two heartbeats. */
  readonly live: boolean;
}

/** NEW: nobody has the identity. SAME: the same process again. REPLACE: the newcomer takes over. TWIN: it may not. */
export type RegistrationKind = "NEW" | "SAME" | "REPLACE" | "TWIN";

/** Decides who has a runner's identity (design §4.1, Twins and restarts). */
export function registration(
  incumbent: Incumbent | undefined,
  newcomer: { readonly bootId: string; readonly previousBootId: string },
): RegistrationKind {
  if (incumbent === undefined) return "NEW";
  if (incumbent.bootId === newcomer.bootId) return "SAME";
  // The state directory is locked by its process: who knows the incumbent's boot_id has taken its place.
  if (incumbent.bootId === newcomer.previousBootId) return "REPLACE";
  return incumbent.live ? "TWIN" : "REPLACE";
}

/** Longest rest of a runner and a run after a refusal. */
const MAX_REST_MS = 60_000;

/** Time that a runner is not offered a run again after its n-th refusal of it, n from 1 (design §4.1, Offers). */
export function restMs(refusals: number): number {
  return Math.min(1000 * 2 ** (refusals - 1), MAX_REST_MS);
}

/** Runs that may be offered to a runner now. What the runner says can only lower what the coordinator counts. */
export function freeSlots(maxRuns: number, activeRuns: number, withheld: number): number {
  return Math.max(0, maxRuns - activeRuns - withheld);
}

/** Slots that a runner keeps for itself, from what it reported and what the coordinator counted at that time. */
export function withheldSlots(maxRuns: number, activeRuns: number, reported: number | undefined): number {
  return reported === undefined ? 0 : Math.max(0, maxRuns - activeRuns - reported);
}
