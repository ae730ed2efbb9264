import type { Run } from "./run-transitions.ts";
import { isHeld } from "./run-transitions.ts";

/** What a runner says of a lease that it holds. */
export interface Held {
  readonly runId: string;
  readonly leaseId: string;
  /** True when the executor has ended and only the final report is open. */
  readonly final: boolean;
}

export interface LeaseVerdict {
  readonly kind: "RENEWED" | "STOP" | "UNKNOWN" | "RESEND_FINAL";
  readonly reason: string;
}

/**
 * What a runner is told about a lease that a runner says it holds (ADR 3).
 *
 * @param run the run, or undefined when the store does not know it.
 */
export function leaseVerdict(run: Run | undefined, held: Held): LeaseVerdict {
  if (run === undefined) return { kind: "UNKNOWN", reason: "the run is not known" };
  if (held.final) return { kind: "RESEND_FINAL", reason: "the final report is not committed" };
  const current = run.state !== "PENDING" && run.lease?.leaseId === held.leaseId;
  if (!current) return { kind: "STOP", reason: `the lease is over; the run is ${run.state}` };
  if (run.state === "STOPPING") return { kind: "RENEWED", reason: `to be stopped: ${run.stop.reason}` };
  // An offer whose accept is on its way is not over; its own deadline decides.
  if (isHeld(run) || run.state === "OFFERED") return { kind: "RENEWED", reason: "" };
  return { kind: "STOP", reason: `the run is ${run.state}` };
}
