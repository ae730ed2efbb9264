import fc from "fast-check";
import { isHeld } from "../../coordinator/core/run-transitions.ts";
import { isFinalName } from "../../lib/protocol/final.ts";
import type { Decision, Lease, OnLostPolicy, Run, RunEvent, Stop } from "../../coordinator/core/run-transitions.ts";

/** What a run carries whatever its state. */
export type RunFacts = Pick<
  Run,
  "onLost" | "attempt" | "uncharged" | "refusals" | "refusalReasons" | "resumable" | "interrupted"
>;

export type Next = (run: Run, event: RunEvent) => Decision;

/** A lease whose ids all end in `name`. */
export function aLease(name: string): Lease {
  return { leaseId: `lease_${name}`, runnerId: `lnch_${name}`, bootId: `boot_${name}` };
}

/** The lease that `aRun` is offered or held under, or ended under. */
export const CURRENT = aLease("current");
/** The lease that lapsed last, in the runs of `aRun` that wait. */
export const LAPSED = aLease("lapsed");
/** A lease that no run of `aRun` knows. */
export const FOREIGN = aLease("foreign");

export const STOP: Stop = { graceMs: 10_000, reason: "stopped by ada" };

/** Facts of a run that nobody has taken: on_lost FAIL. */
export const NEW_FACTS: RunFacts = {
  onLost: { policy: "FAIL", maxAttempts: 3 },
  attempt: 0,
  uncharged: 0,
  refusals: 0,
  refusalReasons: [],
  resumable: false,
  interrupted: false,
};

type DistributiveOmit<T, K extends PropertyKey> = T extends unknown ? Omit<T, K> : never;

/** Where a run can stand; STOPPING twice, as it remembers whether the executor was started. */
export const PLACES = {
  PENDING: { state: "PENDING", lapsed: LAPSED },
  OFFERED: { state: "OFFERED", lease: CURRENT, lapsed: LAPSED },
  CLAIMED: { state: "CLAIMED", lease: CURRENT },
  RUNNING: { state: "RUNNING", lease: CURRENT },
  STOPPING: { state: "STOPPING", lease: CURRENT, started: true, stop: STOP },
  UNSTARTED: { state: "STOPPING", lease: CURRENT, started: false, stop: STOP },
  COMPLETED: { state: "COMPLETED", lease: CURRENT, reason: undefined },
  FAILED: { state: "FAILED", lease: CURRENT, reason: { name: "EXECUTOR_EXIT", message: "exit 1" } },
  STOPPED: { state: "STOPPED", lease: CURRENT, reason: { message: "stopped by ada" } },
} as const satisfies Record<Run["state"] | "UNSTARTED", DistributiveOmit<Run, keyof RunFacts>>;

export type PlaceName = keyof typeof PLACES;

/** A run at a place, at its first attempt unless `facts` says otherwise. */
export function aRun(at: PlaceName, facts: Partial<RunFacts> = {}): Run {
  return { ...NEW_FACTS, attempt: 1, ...facts, ...PLACES[at] };
}

/** One event of every type; those of a lease name the one given. */
export const EVENTS: { readonly [T in RunEvent["type"]]: (lease: Lease) => RunEvent } = {
  OFFER: (lease) => ({ type: "OFFER", lease }),
  OFFER_LAPSED: ({ leaseId }) => ({ type: "OFFER_LAPSED", leaseId }),
  OFFER_UNANSWERED: ({ leaseId }) => ({ type: "OFFER_UNANSWERED", leaseId, message: "its stream ended" }),
  STOP: () => ({ type: "STOP", stop: STOP }),
  LEASE_LOST: ({ leaseId }) => ({ type: "LEASE_LOST", leaseId, message: "not heard from for 45 s" }),
  UNMATCHED: () => ({ type: "UNMATCHED", message: "no runner matches" }),
  AFFINITY_LOST: () => ({ type: "AFFINITY_LOST", message: "lnch_a was removed" }),
  ACCEPT: ({ leaseId }) => ({ type: "ACCEPT", leaseId }),
  REFUSE: ({ leaseId }) => ({ type: "REFUSE", leaseId, message: "draining", finality: "for-now" }),
  NOT_STARTED: ({ leaseId }) => ({
    type: "NOT_STARTED",
    leaseId,
    message: "restarted before the spawn",
    finality: "for-now",
  }),
  STARTED: ({ leaseId }) => ({ type: "STARTED", leaseId }),
  PROGRESS: ({ leaseId }) => ({ type: "PROGRESS", leaseId }),
  COMPLETED: ({ leaseId }) => ({ type: "COMPLETED", leaseId }),
  FAILED: ({ leaseId }) => ({ type: "FAILED", leaseId, reason: { name: "EXECUTOR_EXIT", message: "exit 3" } }),
  STOPPED: ({ leaseId }) => ({ type: "STOPPED", leaseId, reason: { message: "SIGTERM" } }),
};

/** The report of an executor that exited 75. */
export function exit75({ leaseId }: Lease): RunEvent {
  return { type: "FAILED", leaseId, reason: { name: "ENVIRONMENT", message: "exit 75" } };
}

/** The lease that a run is offered, held, or ended under. */
export function leaseOf(run: Run): Lease | undefined {
  return run.state === "PENDING" ? undefined : run.lease;
}

/** The lease that lapsed last, while the run waits. */
export function lapsedOf(run: Run): Lease | undefined {
  return run.state === "PENDING" || run.state === "OFFERED" ? run.lapsed : undefined;
}

/** One step of a random life, and what came of it. `offered` are all leases so far, the newest last. */
export interface Moment {
  readonly before: Run;
  readonly event: RunEvent;
  readonly decision: Decision;
  readonly after: Run;
  readonly offered: readonly Lease[];
  readonly visited: ReadonlySet<Run["state"]>;
}

interface Step {
  readonly what: RunEvent["type"] | "EXIT_75" | "ONWARD";
  readonly whose: "current" | "lapsed" | "older";
  readonly nth: number;
}

/** What moves a run on its usual way; random events alone would seldom get it beyond CLAIMED. */
function onward(run: Run): RunEvent["type"] {
  if (run.state === "PENDING") return "OFFER";
  if (run.state === "OFFERED") return "ACCEPT";
  return run.state === "CLAIMED" ? "STARTED" : "PROGRESS";
}

function eventOf(run: Run, step: Step, offered: readonly Lease[]): RunEvent {
  const what = step.what === "ONWARD" ? onward(run) : step.what;
  if (what === "OFFER") return EVENTS.OFFER(aLease(String(offered.length)));
  const older = offered[step.nth % Math.max(1, offered.length)];
  const whose = { current: leaseOf(run), lapsed: lapsedOf(run), older }[step.whose] ?? older ?? FOREIGN;
  return what === "EXIT_75" ? exit75(whose) : EVENTS[what](whose);
}

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.record({
    what: fc.oneof(
      { weight: 5, arbitrary: fc.constant("ONWARD" as const) },
      { weight: 1, arbitrary: fc.constantFrom("LEASE_LOST" as const, "REFUSE" as const, "NOT_STARTED" as const) },
      {
        weight: 4,
        arbitrary: fc.constantFrom(...(Object.keys(EVENTS) as RunEvent["type"][]), "EXIT_75" as const),
      },
    ),
    whose: fc.constantFrom("current" as const, "current" as const, "lapsed" as const, "older" as const),
    nth: fc.nat(40),
  }),
  { maxLength: 40, size: "max" },
);

const facts: fc.Arbitrary<RunFacts> = fc.record({
  onLost: fc.record({
    policy: fc.constantFrom<OnLostPolicy>("FAIL", "RETRY", "RESUME"),
    maxAttempts: fc.integer({ min: 1, max: 4 }),
  }),
  attempt: fc.constant(0),
  uncharged: fc.constant(0),
  // Few sequences refuse ten times by themselves.
  refusals: fc.constantFrom(0, 0, 0, 8),
  refusalReasons: fc.constant([]),
  resumable: fc.boolean(),
  interrupted: fc.constant(false),
});

/** A new run with any policy, and up to 40 events in any order under any of its leases. */
export const lives = fc.tuple(facts, steps);

/** Leads a new run through the steps, deciding with `next`; shows every moment to `visit`. */
export function live(next: Next, [facts, steps]: [RunFacts, Step[]], visit: (moment: Moment) => void): void {
  let run: Run = { ...facts, state: "PENDING", lapsed: undefined };
  const offered: Lease[] = [];
  const visited = new Set<Run["state"]>([run.state]);
  for (const step of steps) {
    const before = run;
    const event = eventOf(before, step, offered);
    const decision = next(before, event);
    if (decision.type === "applied") {
      run = decision.run;
      if (event.type === "OFFER") offered.push(event.lease);
    }
    visited.add(run.state);
    visit({ before, event, decision, after: run, offered, visited });
  }
}

/** What the coordinator can do by itself to end a run: stop it, and count its lease as lost. Returns where that leads. */
export function ended(next: Next, run: Run): Run {
  const stopped = next(run, EVENTS.STOP(FOREIGN));
  if (stopped.type !== "applied" || isFinalName(stopped.run.state) || !isHeld(stopped.run)) {
    return stopped.type === "applied" ? stopped.run : run;
  }
  const lost = next(stopped.run, EVENTS.LEASE_LOST(stopped.run.lease));
  return lost.type === "applied" ? lost.run : stopped.run;
}
