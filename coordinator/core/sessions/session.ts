import type { RunStateName } from "../run-transitions.ts";

export type SessionStatusName = "PENDING" | "RUNNING" | "STOPPING" | "IDLE" | "FAILED" | "STOPPED";

/**
 * Status of a session (ADR 11): that of its active run, else PENDING while a run waits, else that of its newest run.
 * @param active state of the run that a runner holds or is offered, or of the one that waits first.
 * @param newest state of the newest run, when none is active or waits.
 */
export function sessionStatus(active: RunStateName | undefined, newest: RunStateName): SessionStatusName {
  const state = active ?? newest;
  switch (state) {
    case "PENDING":
    case "OFFERED":
      return "PENDING";
    case "CLAIMED":
    case "RUNNING":
      return "RUNNING";
    case "STOPPING":
      return "STOPPING";
    case "COMPLETED":
      return "IDLE";
    case "FAILED":
      return "FAILED";
    case "STOPPED":
      return "STOPPED";
    default:
      return state satisfies never;
  }
}
