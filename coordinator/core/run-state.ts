import type { FinalState } from "../../lib/protocol/final.ts";

/*
 * What a run is, what can happen to it, and how a decision about it is written. The decisions are in run-transitions.ts and reports/reports.ts.
 */

/** Offers that may be refused, or accepted and not started, before the run fails with the reasons. */
export const MAX_REFUSALS = 10;

/** Refusals before one for good by everybody fails the run: some 3 s with one runner, in which another may register. */
export const MIN_REFUSALS_FOR_GOOD = 3;

/** Troubles of runners that a pending run names, one a runner. */
const MAX_TROUBLES = 10;

/** What is said of a refusal whose reason lies in the runner. */
const NOT_COUNTED = " (the runner's own trouble, not counted)";

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
  | "OUTPUT_SCHEMA"
  | "HOOK";

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
  /** Refusals, and accepts that were not started, but for those that were a runner's own trouble. */
  readonly refusals: number;
  /** Who refused and why, each once; at the end, troubles of runners that do not count. */
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
 * and so did every other runner that suits the run. The trouble of a runner says nothing about the run and does not count.
 */
export type Finality = "for-now" | "for-good" | "for-good-by-all" | "runner-trouble";

/** What a runner reports under a lease. */
export type ReportEvent = { readonly leaseId: string } & (
  | { readonly type: "ACCEPT" | "STARTED" | "PROGRESS" }
  | { readonly type: "REFUSE"; readonly message: string; readonly finality: Finality }
  | { readonly type: "NOT_STARTED"; readonly message: string; readonly finality: "for-now" | "runner-trouble" }
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

/** Where a run is, without what is true wherever it is. */
export type Place = DistributiveOmit<Run, keyof Facts>;
type DistributiveOmit<T, K extends PropertyKey> = T extends unknown ? Omit<T, K> : never;

/** The run at another place, with what changed about it. */
export function to(run: Run, place: Place, changed: Partial<Facts> = {}, effects: readonly Effect[] = []): Decision {
  const { onLost, attempt, uncharged, refusals, refusalReasons, resumable, interrupted } = run;
  const facts = { onLost, attempt, uncharged, refusals, refusalReasons, resumable, interrupted, ...changed };
  return { type: "applied", run: { ...facts, ...place } as Run, effects };
}

/** Nothing changes. */
export function stays(run: Run, effects: readonly Effect[] = []): Decision {
  return { type: "applied", run, effects };
}

/** The coordinator's own event came too late. */
export function late(run: Run): Decision {
  return { type: "refused", message: `the run is ${run.state}` };
}

/** The lease of the report is over. */
export function stale(run: Run): Decision {
  return { type: "stale", message: `the lease is over; the run is ${run.state}` };
}

/** The report makes no sense here. */
export function invalid(message: string): Decision {
  return { type: "invalid", message };
}

export function pending(lapsed: Lease | undefined): Place {
  return { state: "PENDING", lapsed };
}

export function failed(name: FailureName, message: string, lease?: Lease): Place {
  return { state: "FAILED", lease, reason: { name, message } };
}

export function place(run: Extract<Run, { state: "STOPPING" }>): Extract<Place, { state: "STOPPING" }> {
  return { state: run.state, lease: run.lease, started: run.started, stop: run.stop };
}

export function withdraw(run: Run): readonly Effect[] {
  return run.state === "OFFERED" ? [{ type: "withdraw", lease: run.lease }] : [];
}

export function attemptsRemain(run: Run): boolean {
  return run.attempt - run.uncharged < run.onLost.maxAttempts;
}

export function notTaken(
  run: Run,
  lease: Lease,
  lapsed: Lease | undefined,
  message: string,
  finality: Finality = "for-now",
  uncharged = 0,
): Decision {
  const reason = `${lease.runnerId}: ${message.slice(0, MAX_REFUSAL_REASON)}`;
  const coolDown: Effect = { type: "cool-down", lease, message, finality };
  if (finality === "runner-trouble") {
    const refusalReasons = withTrouble(run.refusalReasons, lease.runnerId, reason + NOT_COUNTED);
    return to(run, pending(lapsed), { refusalReasons, uncharged: run.uncharged + uncharged }, [coolDown]);
  }
  const refusals = run.refusals + 1;
  const counted = run.refusalReasons.filter((one) => !one.endsWith(NOT_COUNTED));
  const reasons = [...new Set([...counted, reason])];
  const troubles = run.refusalReasons.filter((one) => one.endsWith(NOT_COUNTED));
  const changed = { refusals, refusalReasons: [...reasons, ...troubles], uncharged: run.uncharged + uncharged };
  const why = reasons.join("; ");
  if (finality === "for-good-by-all" && refusals >= MIN_REFUSALS_FOR_GOOD)
    return to(run, failed("REFUSED", `every runner that suits the run refuses it for good; ${why}`), changed);
  if (refusals >= MAX_REFUSALS) return to(run, failed("REFUSED", `refused ${refusals} times; ${why}`), changed);
  return to(run, pending(lapsed), changed, [coolDown]);
}

/** The newest trouble of each runner, the newest runners last. */
function withTrouble(reasons: readonly string[], runnerId: string, reason: string): string[] {
  const troubles = reasons.filter((one) => one.endsWith(NOT_COUNTED) && !one.startsWith(`${runnerId}: `));
  const counted = reasons.filter((one) => !one.endsWith(NOT_COUNTED));
  return [...counted, ...troubles.slice(1 - MAX_TROUBLES), reason];
}

export function never(value: never): never {
  throw new Error(`bug[RUN1]: not a state or event: ${JSON.stringify(value)}`);
}
