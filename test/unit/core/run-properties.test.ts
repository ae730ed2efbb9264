import { isDeepStrictEqual } from "node:util";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { MAX_REFUSALS, next } from "../../../coordinator/core/run-transitions.ts";
import { isFinalName } from "../../../lib/protocol/final.ts";
import type { Run } from "../../../coordinator/core/run-transitions.ts";
import { ended, EVENTS, lapsedOf, leaseOf, live, lives } from "../../support/runs.ts";
import type { Moment, Next } from "../../support/runs.ts";

const SEQUENCES = 5_000;

/** A law that holds at every moment of every life, and a `next` that breaks it. */
interface Law {
  readonly title: string;
  readonly holds: (moment: Moment, next: Next) => boolean;
  readonly fault: Next;
}

/** Leads random lives with `next`; throws, with the shortest life that it found, when one breaks the law. */
function check(law: Law, next: Next): void {
  fc.assert(
    fc.property(lives, (life) => {
      live(next, life, (moment) => {
        if (!law.holds(moment, next)) throw new Error(`broken: ${law.title}`);
      });
    }),
    { numRuns: SEQUENCES, includeErrorInReport: true },
  );
}

const REPORTS = ["ACCEPT", "REFUSE", "NOT_STARTED", "STARTED", "PROGRESS", "COMPLETED", "FAILED", "STOPPED"] as const;

/** `next`, after its answer was tampered with. */
function then(tamper: (run: Run, before: Run) => Run): Next {
  return (run, event) => {
    const decision = next(run, event);
    return decision.type === "applied" ? { ...decision, run: tamper(decision.run, run) } : decision;
  };
}

/** `next` that takes every lease for the current one. */
const blind: Next = (run, event) => {
  const lease = leaseOf(run);
  return next(run, "leaseId" in event && lease !== undefined ? { ...event, leaseId: lease.leaseId } : event);
};

function waits(run: Run): boolean {
  return run.state === "PENDING" || run.state === "OFFERED" || run.state === "CLAIMED";
}

const LAWS: readonly Law[] = [
  {
    title: "a run that is done never changes",
    holds: ({ before, after }) => !isFinalName(before.state) || isDeepStrictEqual(before, after),
    fault: (run, event) => {
      const lease = leaseOf(run);
      return next(isFinalName(run.state) && lease !== undefined ? { ...run, state: "RUNNING", lease } : run, event);
    },
  },
  {
    title: "attempts never fall, and rise by one with an accept only",
    holds: ({ before, after, event }) =>
      after.attempt === before.attempt + (before.state === "OFFERED" && after.state === "CLAIMED" ? 1 : 0) &&
      (after.attempt === before.attempt || event.type === "ACCEPT"),
    fault: then((run) => (run.state === "PENDING" ? { ...run, attempt: Math.max(0, run.attempt - 1) } : run)),
  },
  {
    title: "a report under a lease that is over never moves a run",
    holds: ({ before, event, decision, after }) =>
      !("leaseId" in event) ||
      [leaseOf(before), lapsedOf(before)].some((lease) => lease?.leaseId === event.leaseId) ||
      (decision.type !== "applied" && isDeepStrictEqual(before, after)),
    fault: blind,
  },
  {
    title: "the charged attempts never exceed the most that are allowed",
    holds: ({ after }) =>
      after.attempt - after.uncharged <= after.onLost.maxAttempts && after.uncharged <= after.attempt,
    fault: (run, event) => {
      const { onLost } = run;
      const decision = next({ ...run, onLost: { ...onLost, maxAttempts: Infinity } }, event);
      return decision.type === "applied" ? { ...decision, run: { ...decision.run, onLost } } : decision;
    },
  },
  {
    title: "a report of one kind counts under one lease at most",
    holds: ({ after, offered }, next) =>
      REPORTS.every(
        (kind) => offered.filter((lease) => next(after, EVENTS[kind](lease)).type === "applied").length <= 1,
      ),
    fault: blind,
  },
  {
    title: "the coordinator can end a run from everywhere, by a stop and the loss of its lease",
    holds: ({ after }, next) => isFinalName(ended(next, after).state),
    fault: (run, event) =>
      event.type === "LEASE_LOST" && run.state === "STOPPING"
        ? { type: "refused", message: "planted" }
        : next(run, event),
  },
  {
    title: "a run that is being stopped never waits again",
    holds: ({ after, visited }) => !visited.has("STOPPING") || after.state === "STOPPING" || isFinalName(after.state),
    fault: (run, event) =>
      run.state === "STOPPING" && event.type === "LEASE_LOST"
        ? next({ ...run, state: "RUNNING", onLost: { policy: "RETRY", maxAttempts: 9 } }, event)
        : next(run, event),
  },
  {
    title: "a run under FAIL never waits again once it ran",
    holds: ({ after, visited }) => after.onLost.policy !== "FAIL" || !visited.has("RUNNING") || !waits(after),
    fault: (run, event) => {
      const decision = next({ ...run, onLost: { ...run.onLost, policy: "RETRY" } }, event);
      return decision.type === "applied" ? { ...decision, run: { ...decision.run, onLost: run.onLost } } : decision;
    },
  },
  {
    title: "ten refusals are the most, and fail the run",
    holds: ({ after }) => after.refusals < MAX_REFUSALS || (after.refusals === 10 && after.state === "FAILED"),
    fault: (run, event) => {
      const decision = next({ ...run, refusals: 0 }, event);
      return decision.type === "applied"
        ? { ...decision, run: { ...decision.run, refusals: run.refusals + decision.run.refusals } }
        : decision;
    },
  },
  {
    title: "effects go to the lease that the run had, and only with an event that was taken",
    holds: ({ before, decision }) =>
      decision.type !== "applied" ||
      decision.effects.every(
        (effect) => isDeepStrictEqual(effect.lease, leaseOf(before)) && !isFinalName(before.state),
      ),
    fault: (run, event) =>
      next(isFinalName(run.state) && event.type === "STOP" ? ({ ...run, state: "RUNNING" } as Run) : run, event),
  },
];

describe(`over ${SEQUENCES * LAWS.length} random sequences of events`, () => {
  it.each(LAWS)("$title", (law) => {
    check(law, next);
  });

  it("every state is reached, every event taken, and every verdict given", () => {
    const seen = new Set<string>();
    for (const life of fc.sample(lives, SEQUENCES)) {
      live(next, life, ({ event, decision, after }) => {
        seen.add(after.state).add(decision.type);
        if (decision.type === "applied") seen.add(event.type);
        if (after.refusals === MAX_REFUSALS) seen.add("ten refusals");
        if (after.attempt > 1) seen.add("attempts");
      });
    }
    const states = ["PENDING", "OFFERED", "CLAIMED", "RUNNING", "STOPPING", "COMPLETED", "FAILED", "STOPPED"];
    const verdicts = ["applied", "stale", "invalid", "refused"];
    expect([...seen].toSorted()).toEqual(
      [...new Set([...states, ...verdicts, ...Object.keys(EVENTS), "ten refusals", "attempts"])].toSorted(),
    );
  });
});

describe("a planted fault is found against the law that", () => {
  it.each(LAWS)("$title", (law) => {
    expect(() => check(law, law.fault)).toThrow(`broken: ${law.title}`);
  });
});
