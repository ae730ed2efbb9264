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
 * from the third on one after which every runner that suits the run has refused it for good; what is the runner's own
 * trouble is not counted.
 * (2) INVALID when it was started. (3) Exit 75 under RETRY → PENDING while attempts remain.
 */

import { report } from "./reports/reports.ts";
import { attemptsRemain, failed, late, never, notTaken, pending, place, stays, to, withdraw } from "./run-state.ts";
import type { Decision, Run, RunEvent, Stop } from "./run-state.ts";

export { isHeld, MAX_REFUSALS, MIN_REFUSALS_FOR_GOOD } from "./run-state.ts";
export type * from "./run-state.ts";

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
