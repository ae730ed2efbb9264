import { isFinalName } from "../../../lib/protocol/final.ts";
import { attemptsRemain, invalid, never, notTaken, pending, place, stale, stays, to, withdraw } from "../run-state.ts";
import type { Decision, FinalReport, Lease, ReportEvent, Run } from "../run-state.ts";

/*
 * What a report of a runner makes of a run: accepted, refused, started, ended; stale when its lease is over, invalid when it makes
 * no sense. The table of every case is in ../run-transitions.ts.
 */

/** Decides about a report. Pure. */
export function report(run: Run, event: ReportEvent): Decision {
  if (run.state === "PENDING" || run.state === "OFFERED") {
    if (run.lapsed?.leaseId === event.leaseId) return reportOfLapsed(run, run.lapsed, event);
  }
  if (run.state === "PENDING" || isFinalName(run.state) || run.lease?.leaseId !== event.leaseId) return stale(run);
  switch (event.type) {
    case "ACCEPT":
      return run.state === "OFFERED"
        ? to(run, { state: "CLAIMED", lease: run.lease }, { attempt: run.attempt + 1 })
        : stays(run);
    case "REFUSE":
      return run.state === "OFFERED"
        ? notTaken(run, run.lease, run.lapsed, event.message, event.finality)
        : invalid(`the offer was accepted and the run is ${run.state}: report NOT_STARTED or how it ended`);
    case "NOT_STARTED":
      return notStarted(run, event);
    case "STARTED":
      if (run.state === "OFFERED") return acceptFirst(event);
      if (run.state === "CLAIMED") return to(run, { state: "RUNNING", lease: run.lease });
      // A stop may overtake the report that the executor runs.
      return run.state === "STOPPING" ? to(run, { ...place(run), started: true }) : stays(run);
    case "PROGRESS":
      return run.state === "OFFERED" ? acceptFirst(event) : stays(run);
    case "COMPLETED":
    case "FAILED":
    case "STOPPED":
      return run.state === "OFFERED" ? acceptFirst(event) : finish(run, run.lease, event);
    default:
      return never(event);
  }
}

function acceptFirst(event: ReportEvent): Decision {
  return invalid(`${event.type} under an offer that is not accepted: send ACCEPT and wait until it is answered OK`);
}

function notStarted(run: Run, { message, finality }: Extract<ReportEvent, { type: "NOT_STARTED" }>): Decision {
  switch (run.state) {
    case "OFFERED":
      return notTaken(run, run.lease, run.lapsed, message, finality);
    case "CLAIMED":
      return notTaken(run, run.lease, undefined, message, finality, 1);
    case "RUNNING":
      return invalid("the executor was reported as started: report how it ended");
    case "STOPPING":
      if (run.started) return invalid("the executor was reported as started: report how it ended");
      return to(
        run,
        { state: "STOPPED", lease: run.lease, reason: { message: run.stop.reason } },
        { uncharged: run.uncharged + 1 },
      );
    case "PENDING":
    case "COMPLETED":
    case "FAILED":
    case "STOPPED":
      return stale(run);
    default:
      return never(run);
  }
}

function isFinalReport(event: ReportEvent): event is ReportEvent & FinalReport {
  return isFinalName(event.type);
}

function finish(run: Run, lease: Lease, event: FinalReport): Decision {
  const effects = withdraw(run);
  if (event.type === "COMPLETED") return to(run, { state: "COMPLETED", lease, reason: undefined }, {}, effects);
  const environment = event.type === "FAILED" && event.reason.name === "ENVIRONMENT";
  if (environment && run.state !== "STOPPING" && run.onLost.policy === "RETRY" && attemptsRemain(run)) {
    return to(run, pending(undefined), {}, effects);
  }
  return to(run, { state: event.type, lease, reason: event.reason }, {}, effects);
}

/**
 * Until a newer accept, what the lost attempt achieved is worth more than doing it again. That it was stopped is no
 * achievement: a runner that comes back is told to stop what it lost.
 */
function reportOfLapsed(run: Run, lapsed: Lease, event: ReportEvent): Decision {
  return isFinalReport(event) && event.type !== "STOPPED" ? finish(run, lapsed, event) : stale(run);
}
