/**
 * The life of a run (ADR 3): one pure function, `next(run, event)`.
 *
 *              PENDING        OFFERED          CLAIMED           RUNNING          STOPPING           final
 * OFFER        → OFFERED      refused          refused           refused          refused            refused
 * OFFER_LAPSED refused        → PENDING        refused           refused          refused            refused
 * OFFER_UNANSWERED refused    → PENDING (1)    refused           refused          refused            refused
 * STOP         → STOPPED      → STOPPED  w     → STOPPING  s     → STOPPING  s    stays  s           stays
 * LEASE_LOST   refused        → PENDING        on_lost           on_lost          → STOPPED          refused
 * UNMATCHED    → FAILED       refused          refused           refused          refused            refused
 * AFFINITY_LOST → FAILED       refused          refused           refused          refused            refused
 *  reports under the lease that counts:
 * ACCEPT       —              → CLAIMED        stays             stays            stays              STALE
 * REFUSE       —              → PENDING (1)    INVALID           INVALID          INVALID            STALE
 * NOT_STARTED  —              → PENDING (1)    → PENDING (1)     INVALID          → STOPPED (2)      STALE
 * STARTED      —              INVALID          → RUNNING         stays            stays              STALE
 * PROGRESS     —              INVALID          stays             stays            stays              STALE
 * COMPLETED    —              INVALID          → COMPLETED       → COMPLETED      → COMPLETED        STALE
 * FAILED       —              INVALID          → FAILED (3)      → FAILED (3)     → FAILED           STALE
 * STOPPED      —              INVALID          → STOPPED         → STOPPED        → STOPPED          STALE
 *  reports under the lease that lapsed last, while the run waits for a newer accept:
 * COMPLETED    → COMPLETED    → COMPLETED  w   STALE             STALE            STALE              STALE
 * FAILED       → FAILED (3)   → FAILED (3) w   STALE             STALE            STALE              STALE
 *  every other report: STALE.
 *
 * w: the open offer is withdrawn. s: the runner is told to stop. on_lost: FAIL → FAILED; RETRY and RESUME → PENDING
 * while attempts remain, RESUME only when the executor has named its session. (1) The tenth refusal fails the run, and
 * from the third on one after which every runner that suits the run has refused it for good.
 * (2) INVALID when it was started. (3) Exit 75 under RETRY → PENDING while attempts remain.
 */

import { isFinalName } from "../../lib/protocol/final.ts";
import type { FinalState } from "../../lib/protocol/final.ts";

/** Offers that may be refused, or accepted and not started, before the run fails with the reasons. */
export const MAX_REFUSALS = 10;

/** Refusals before one for good by everybody fails the run: some 3 s with one runner, in which another may register. */
export const MIN_REFUSALS_FOR_GOOD = 3;

/** Characters of a refusal's reason that are kept. */
const MAX_REFUSAL_REASON = 500;

/** What a runner holds when an offer was made to it. */
export interface Lease {
  readonly leaseId: string;
  readonly runnerId: string;
  readonly bootId: string;
}

export type OnLostPolicy = "FAIL" | "RETRY" | "RESUME";

export type FailureName =
  | "EXECUTOR_EXIT"
  | "ENVIRONMENT"
  | "SIGNAL"
  | "TIMEOUT"
  | "IDLE"
  | "SPAWN"
  | "LOST"
  | "NO_MATCH"
  | "REFUSED"
  | "AFFINITY"
  | "RUNNER_SHUTDOWN"
  | "UNCONFIRMED"
  | "OUTPUT_SCHEMA";

/** Why a run did not complete. `name` is absent for a plain stop. */
export interface Reason {
  readonly name?: FailureName;
  readonly message: string;
}

/** What decides about a run, besides where it stands. */
interface Facts {
  readonly onLost: { readonly policy: OnLostPolicy; readonly maxAttempts: number };
  /** Accepts so far. Never falls. */
  readonly attempt: number;
  /** Accepts that led to nothing and do not count against `maxAttempts`. */
  readonly uncharged: number;
  /** Refusals, and accepts that were not started. */
  readonly refusals: number;
  /** Who refused and why, each once. */
  readonly refusalReasons: readonly string[];
  /** True once an executor of the session has named its own session. */
  readonly resumable: boolean;
  /** True when the next attempt continues an interrupted one with the resume prompt. */
  readonly interrupted: boolean;
}

/** While a run is pending once more: the lease that was lost, whose final report still counts. */
interface Waiting {
  readonly lapsed: Lease | undefined;
}

export type Run = Facts &
  (
    | ({ readonly state: "PENDING" } & Waiting)
    | ({ readonly state: "OFFERED"; readonly lease: Lease } & Waiting)
    | { readonly state: "CLAIMED"; readonly lease: Lease }
    | { readonly state: "RUNNING"; readonly lease: Lease }
    | { readonly state: "STOPPING"; readonly lease: Lease; readonly started: boolean; readonly stop: Stop }
    | { readonly state: FinalState; readonly lease: Lease | undefined; readonly reason: Reason | undefined }
  );

export type RunStateName = Run["state"];

/** A wish to end a run. `graceMs` is the time between SIGTERM and SIGKILL. */
export interface Stop {
  readonly graceMs: number;
  readonly reason: string;
}

/** What the coordinator itself decides about a run. Those of a lease name it, so that a late one changes nothing. */
export type InternalEvent =
  | { readonly type: "OFFER"; readonly lease: Lease }
  /** The coordinator takes the offer back, and the runner is not to blame: it restarts, or another stream counts. */
  | { readonly type: "OFFER_LAPSED"; readonly leaseId: string }
  /** The runner had the offer and did not answer: its stream ended over it, or the deadline passed. Counts as a refusal. */
  | { readonly type: "OFFER_UNANSWERED"; readonly leaseId: string; readonly message: string }
  | { readonly type: "STOP"; readonly stop: Stop }
  | { readonly type: "LEASE_LOST"; readonly leaseId: string; readonly message: string }
  | { readonly type: "UNMATCHED"; readonly message: string }
  | { readonly type: "AFFINITY_LOST"; readonly message: string };

/**
 * How long a refusal holds: until the runner has another slot, for as long as runner and run stay what they are, or that
 * and so did every other runner that suits the run.
 */
export type Finality = "for-now" | "for-good" | "for-good-by-all";

/** What a runner reports under a lease. */
export type ReportEvent = { readonly leaseId: string } & (
  | { readonly type: "ACCEPT" | "STARTED" | "PROGRESS" }
  | { readonly type: "REFUSE"; readonly message: string; readonly finality: Finality }
  | { readonly type: "NOT_STARTED"; readonly message: string }
  | FinalReport
);

/** How an attempt ended. */
export type FinalReport =
  | { readonly type: "COMPLETED" }
  | { readonly type: "FAILED" | "STOPPED"; readonly reason: Reason };

export type RunEvent = InternalEvent | ReportEvent;

/** Something to do outside after the decision is committed. */
export type Effect =
  /** Tell the runner to stop the run. */
  | { readonly type: "stop-runner"; readonly lease: Lease; readonly stop: Stop }
  /** Tell the runner that the offer no longer stands. */
  | { readonly type: "withdraw"; readonly lease: Lease }
  /** Offer the run to this runner less often. */
  | { readonly type: "cool-down"; readonly lease: Lease; readonly message: string; readonly finality: Finality };

/**
 * applied: `run` is the run now, which may be what it was. Everything else changed nothing: stale says that the lease is over,
 * invalid that the report makes no sense here, refused that the coordinator's own event came too late.
 */
export type Decision =
  | { readonly type: "applied"; readonly run: Run; readonly effects: readonly Effect[] }
  | { readonly type: "stale" | "invalid" | "refused"; readonly message: string };

/** True when a runner is responsible for the run: its lease is accepted and not over. */
export function isHeld(run: Run): run is Extract<Run, { state: "CLAIMED" | "RUNNING" | "STOPPING" }> {
  return run.state === "CLAIMED" || run.state === "RUNNING" || run.state === "STOPPING";
}

/** Decides what `event` makes of `run`. Pure; see the table at the head of this file. */
export function next(run: Run, event: RunEvent): Decision {
  switch (event.type) {
    case "OFFER":
      return run.state === "PENDING"
        ? to(run, { state: "OFFERED", lease: event.lease, lapsed: run.lapsed })
        : late(run);
    case "OFFER_LAPSED":
      return run.state === "OFFERED" && run.lease.leaseId === event.leaseId ? to(run, pending(run.lapsed)) : late(run);
    case "OFFER_UNANSWERED":
      if (run.state !== "OFFERED" || run.lease.leaseId !== event.leaseId) return late(run);
      return notTaken(run, run.lease, run.lapsed, event.message);
    case "STOP":
      return stop(run, event.stop);
    case "LEASE_LOST":
      return lost(run, event.leaseId, event.message);
    case "UNMATCHED":
      return run.state === "PENDING" ? to(run, failed("NO_MATCH", event.message)) : late(run);
    case "AFFINITY_LOST":
      return run.state === "PENDING" ? to(run, failed("AFFINITY", event.message)) : late(run);
    default:
      return report(run, event);
  }
}

type Place = DistributiveOmit<Run, keyof Facts>;
type DistributiveOmit<T, K extends PropertyKey> = T extends unknown ? Omit<T, K> : never;

function to(run: Run, place: Place, changed: Partial<Facts> = {}, effects: readonly Effect[] = []): Decision {
  const { onLost, attempt, uncharged, refusals, refusalReasons, resumable, interrupted } = run;
  const facts = { onLost, attempt, uncharged, refusals, refusalReasons, resumable, interrupted, ...changed };
  return { type: "applied", run: { ...facts, ...place } as Run, effects };
}

function stays(run: Run, effects: readonly Effect[] = []): Decision {
  return { type: "applied", run, effects };
}

function late(run: Run): Decision {
  return { type: "refused", message: `the run is ${run.state}` };
}

function stale(run: Run): Decision {
  return { type: "stale", message: `the lease is over; the run is ${run.state}` };
}

function invalid(message: string): Decision {
  return { type: "invalid", message };
}

function pending(lapsed: Lease | undefined): Place {
  return { state: "PENDING", lapsed };
}

function failed(name: FailureName, message: string, lease?: Lease): Place {
  return { state: "FAILED", lease, reason: { name, message } };
}

function stop(run: Run, wish: Stop): Decision {
  switch (run.state) {
    case "PENDING":
      return to(run, { state: "STOPPED", lease: undefined, reason: { message: wish.reason } });
    case "OFFERED":
      return to(run, { state: "STOPPED", lease: undefined, reason: { message: wish.reason } }, {}, withdraw(run));
    case "CLAIMED":
    case "RUNNING":
      return to(run, { state: "STOPPING", lease: run.lease, started: run.state === "RUNNING", stop: wish }, {}, [
        { type: "stop-runner", lease: run.lease, stop: wish },
      ]);
    case "STOPPING": {
      const shorter = wish.graceMs < run.stop.graceMs ? wish : run.stop;
      return to(run, { ...place(run), stop: shorter }, {}, [{ type: "stop-runner", lease: run.lease, stop: shorter }]);
    }
    case "COMPLETED":
    case "FAILED":
    case "STOPPED":
      return stays(run);
    default:
      return never(run);
  }
}

function place(run: Extract<Run, { state: "STOPPING" }>): Extract<Place, { state: "STOPPING" }> {
  return { state: run.state, lease: run.lease, started: run.started, stop: run.stop };
}

function withdraw(run: Run): readonly Effect[] {
  return run.state === "OFFERED" ? [{ type: "withdraw", lease: run.lease }] : [];
}

function lost(run: Run, leaseId: string, message: string): Decision {
  switch (run.state) {
    case "OFFERED":
      return run.lease.leaseId === leaseId ? to(run, pending(run.lapsed)) : late(run);
    case "CLAIMED":
    case "RUNNING":
      return run.lease.leaseId === leaseId ? onLost(run, message) : late(run);
    case "STOPPING":
      if (run.lease.leaseId !== leaseId) return late(run);
      return to(run, {
        state: "STOPPED",
        lease: run.lease,
        reason: { name: "UNCONFIRMED", message: `${run.stop.reason}; the end is unconfirmed: ${message}` },
      });
    case "PENDING":
    case "COMPLETED":
    case "FAILED":
    case "STOPPED":
      return late(run);
    default:
      return never(run);
  }
}

function attemptsRemain(run: Run): boolean {
  return run.attempt - run.uncharged < run.onLost.maxAttempts;
}

function onLost(run: Extract<Run, { state: "CLAIMED" | "RUNNING" }>, message: string): Decision {
  const { policy, maxAttempts } = run.onLost;
  const fail = (why: string): Decision => to(run, failed("LOST", why, run.lease));
  if (policy === "FAIL") return fail(message);
  if (!attemptsRemain(run)) return fail(`${message}; it was attempt ${run.attempt - run.uncharged} of ${maxAttempts}`);
  if (policy === "RETRY") return to(run, pending(run.lease));
  if (!run.resumable) return fail(`${message}; it cannot be resumed, as the executor never named its session`);
  // An executor that was not reported as started may never have read its prompt: it gets that one again.
  return to(run, pending(run.lease), { interrupted: run.interrupted || run.state === "RUNNING" });
}

function report(run: Run, event: ReportEvent): Decision {
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
      return notStarted(run, event.message);
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

function notTaken(
  run: Run,
  lease: Lease,
  lapsed: Lease | undefined,
  message: string,
  finality: Finality = "for-now",
  uncharged = 0,
): Decision {
  const refusals = run.refusals + 1;
  const reason = `${lease.runnerId}: ${message.slice(0, MAX_REFUSAL_REASON)}`;
  const refusalReasons = [...new Set([...run.refusalReasons, reason])];
  const changed = { refusals, refusalReasons, uncharged: run.uncharged + uncharged };
  const why = refusalReasons.join("; ");
  if (finality === "for-good-by-all" && refusals >= MIN_REFUSALS_FOR_GOOD)
    return to(run, failed("REFUSED", `every runner that suits the run refuses it for good; ${why}`), changed);
  if (refusals >= MAX_REFUSALS) return to(run, failed("REFUSED", `refused ${refusals} times; ${why}`), changed);
  return to(run, pending(lapsed), changed, [{ type: "cool-down", lease, message, finality }]);
}

function notStarted(run: Run, message: string): Decision {
  switch (run.state) {
    case "OFFERED":
      return notTaken(run, run.lease, run.lapsed, message);
    case "CLAIMED":
      return notTaken(run, run.lease, undefined, message, "for-now", 1);
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
  return event.type === "COMPLETED" || event.type === "FAILED" || event.type === "STOPPED";
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

function never(value: never): never {
  throw new Error(`bug[RUN1]: not a state or event: ${JSON.stringify(value)}`);
}
