import type { FailureName } from "../run-transitions.ts";
import type { FinalState } from "../../../lib/protocol/final.ts";

/** Runs that may be lost before a notification is given up (ADR 11). */
export const MAX_DELIVERIES = 3;

/** What decides about a session that has no active or queued run. */
export interface QuietSession {
  readonly lastRun: FinalState;
  /** Whether notifications of its children wait. */
  readonly waiting: boolean;
  /** Whether there are sessions below it whose end is still to be told to it. */
  readonly unsettledChildren: boolean;
}

/**
 * Whether the session has settled, so that its parent is told: a failed or stopped run settles it at once, a completed one
 * when it waits for nothing (ADR 11).
 */
export function hasSettled({ lastRun, waiting, unsettledChildren }: QuietSession): boolean {
  return lastRun !== "COMPLETED" || (!waiting && !unsettledChildren);
}

/** Whether the waiting notifications resume the session now. A stopped session waits for a person. */
export function isResumed({ lastRun, waiting }: QuietSession): boolean {
  return waiting && lastRun !== "STOPPED";
}

/** Failures of runs whose executor never came to an end of its own, or never began. */
const NO_OUTCOME: ReadonlySet<FailureName> = new Set(["LOST", "NO_MATCH", "REFUSED", "AFFINITY", "SPAWN"]);

/** How a run that was to deliver notifications ended. */
export interface Delivery {
  readonly state: FinalState;
  readonly failure: FailureName | undefined;
  /** Whether its last attempt was reported as started. */
  readonly started: boolean;
}

/**
 * What becomes of a notification when the run ends that it was part of. It is consumed by an outcome of the executor;
 * otherwise it is waiting once more, and is given up when it was part of three such runs.
 * @param deliveries runs that it was part of, this one included.
 */
export function afterDelivery(
  { state, failure, started }: Delivery,
  deliveries: number,
): "CONSUMED" | "WAITING" | "GIVEN_UP" {
  if (state === "STOPPED" && !started) return "WAITING";
  if (state !== "FAILED" || failure === undefined || !NO_OUTCOME.has(failure)) return "CONSUMED";
  return deliveries < MAX_DELIVERIES ? "WAITING" : "GIVEN_UP";
}
