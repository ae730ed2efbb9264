import { describe, expect, it } from "vitest";
import { isHeld, MAX_REFUSALS, next } from "../../../coordinator/core/run-transitions.ts";
import { isFinalName } from "../../../lib/protocol/final.ts";
import type {
  Decision,
  Effect,
  Finality,
  OnLostPolicy,
  Run,
  RunEvent,
} from "../../../coordinator/core/run-transitions.ts";
import { aRun, CURRENT, EVENTS, exit75, FOREIGN, LAPSED, PLACES, STOP } from "../../support/runs.ts";
import type { PlaceName, RunFacts } from "../../support/runs.ts";

/**
 * Every state × event, for a run under on_lost FAIL at its first attempt of three. PENDING and OFFERED remember a lease
 * that lapsed; UNSTARTED is STOPPING before the executor was reported as started.
 *
 * A cell is the state that follows, `stays` for the very same run, or the verdict that changed nothing (`late` is REFUSED).
 * After the `+`: w the offer is withdrawn, s the runner is told to stop, r that runner cools down for the run, a one attempt more,
 * c one refusal more, u one uncharged attempt more. Nothing else about the run changes.
 */
const TABLE = `
event                PENDING    OFFERED      CLAIMED      RUNNING     STOPPING    UNSTARTED   COMPLETED  FAILED  STOPPED
OFFER                OFFERED    late         late         late        late        late        late       late    late
OFFER_LAPSED current late       PENDING      late         late        late        late        late       late    late
OFFER_LAPSED lapsed  late       late         late         late        late        late        late       late    late
OFFER_LAPSED foreign late       late         late         late        late        late        late       late    late
OFFER_UNANSWERED current late   PENDING+rc   late         late        late        late        late       late    late
OFFER_UNANSWERED lapsed  late   late         late         late        late        late        late       late    late
OFFER_UNANSWERED foreign late   late         late         late        late        late        late       late    late
STOP                 STOPPED    STOPPED+w    STOPPING+s   STOPPING+s  STOPPING+s  STOPPING+s  stays      stays   stays
LEASE_LOST current   late       PENDING      FAILED       FAILED      STOPPED     STOPPED     late       late    late
LEASE_LOST lapsed    late       late         late         late        late        late        late       late    late
LEASE_LOST foreign   late       late         late         late        late        late        late       late    late
UNMATCHED            FAILED     late         late         late        late        late        late       late    late
AFFINITY_LOST        FAILED     late         late         late        late        late        late       late    late
ACCEPT current       STALE      CLAIMED+a    stays        stays       stays       stays       STALE      STALE   STALE
ACCEPT lapsed        STALE      STALE        STALE        STALE       STALE       STALE       STALE      STALE   STALE
ACCEPT foreign       STALE      STALE        STALE        STALE       STALE       STALE       STALE      STALE   STALE
REFUSE current       STALE      PENDING+rc   INVALID      INVALID     INVALID     INVALID     STALE      STALE   STALE
REFUSE lapsed        STALE      STALE        STALE        STALE       STALE       STALE       STALE      STALE   STALE
REFUSE foreign       STALE      STALE        STALE        STALE       STALE       STALE       STALE      STALE   STALE
NOT_STARTED current  STALE      PENDING+rc   PENDING+rcu  INVALID     INVALID     STOPPED+u   STALE      STALE   STALE
NOT_STARTED lapsed   STALE      STALE        STALE        STALE       STALE       STALE       STALE      STALE   STALE
NOT_STARTED foreign  STALE      STALE        STALE        STALE       STALE       STALE       STALE      STALE   STALE
STARTED current      STALE      INVALID      RUNNING      stays       STOPPING    STOPPING    STALE      STALE   STALE
STARTED lapsed       STALE      STALE        STALE        STALE       STALE       STALE       STALE      STALE   STALE
STARTED foreign      STALE      STALE        STALE        STALE       STALE       STALE       STALE      STALE   STALE
PROGRESS current     STALE      INVALID      stays        stays       stays       stays       STALE      STALE   STALE
PROGRESS lapsed      STALE      STALE        STALE        STALE       STALE       STALE       STALE      STALE   STALE
PROGRESS foreign     STALE      STALE        STALE        STALE       STALE       STALE       STALE      STALE   STALE
COMPLETED current    STALE      INVALID      COMPLETED    COMPLETED   COMPLETED   COMPLETED   STALE      STALE   STALE
COMPLETED lapsed     COMPLETED  COMPLETED+w  STALE        STALE       STALE       STALE       STALE      STALE   STALE
COMPLETED foreign    STALE      STALE        STALE        STALE       STALE       STALE       STALE      STALE   STALE
FAILED current       STALE      INVALID      FAILED       FAILED      FAILED      FAILED      STALE      STALE   STALE
FAILED lapsed        FAILED     FAILED+w     STALE        STALE       STALE       STALE       STALE      STALE   STALE
FAILED foreign       STALE      STALE        STALE        STALE       STALE       STALE       STALE      STALE   STALE
STOPPED current      STALE      INVALID      STOPPED      STOPPED     STOPPED     STOPPED     STALE      STALE   STALE
STOPPED lapsed       STALE      STALE        STALE        STALE       STALE       STALE       STALE      STALE   STALE
STOPPED foreign      STALE      STALE        STALE        STALE       STALE       STALE       STALE      STALE   STALE
`;

const [columns = [], ...rows] = TABLE.trim()
  .split("\n")
  .map((line) => /^(\S+(?: (?:current|lapsed|foreign))?) +(.*)$/.exec(line) ?? [])
  .map(([, name = "", cells = ""]) => [name, ...cells.trim().split(/ +/)]);

const LEASES = { current: CURRENT, lapsed: LAPSED, foreign: FOREIGN };

function effectsOf(marks: string, message: string): Effect[] {
  const effects: Effect[] = [];
  if (marks.includes("w")) effects.push({ type: "withdraw", lease: CURRENT });
  if (marks.includes("s")) effects.push({ type: "stop-runner", lease: CURRENT, stop: STOP });
  if (marks.includes("r")) effects.push({ type: "cool-down", lease: CURRENT, message, finality: "for-now" });
  return effects;
}

function factsOf({ onLost, attempt, uncharged, refusals, refusalReasons, resumable, interrupted }: Run): RunFacts {
  return { onLost, attempt, uncharged, refusals, refusalReasons, resumable, interrupted };
}

/** What `next` decided, in the words of the table. */
function seen(run: Run, decision: Decision): unknown {
  if (decision.type !== "applied") return decision.type.toUpperCase();
  if (decision.run === run) return { run, effects: decision.effects };
  return { state: decision.run.state, facts: factsOf(decision.run), effects: decision.effects };
}

function expected(run: Run, cell: string, message: string): unknown {
  const [what = "", marks = ""] = cell.split("+");
  if (what === "late") return "REFUSED";
  if (what === "STALE" || what === "INVALID") return what;
  const effects = effectsOf(marks, message);
  if (what === "stays") return { run, effects };
  const more = (mark: string): number => (marks.includes(mark) ? 1 : 0);
  const facts = {
    ...factsOf(run),
    attempt: run.attempt + more("a"),
    refusals: run.refusals + more("c"),
    refusalReasons: more("c") === 1 ? [`${CURRENT.runnerId}: ${message}`] : [],
    uncharged: run.uncharged + more("u"),
  };
  return { state: what, facts, effects };
}

function decided(run: Run, event: Parameters<typeof next>[1]): Run {
  const decision = next(run, event);
  if (decision.type !== "applied") throw new Error(`${decision.type}: ${decision.message}`);
  return decision.run;
}

describe("next", () => {
  it("has a row for every event under every lease it can name, and a column for every state", () => {
    const named = Object.entries(EVENTS).flatMap(([type, event]) => {
      const namesOne = JSON.stringify(event(FOREIGN)).includes(FOREIGN.leaseId) && type !== "OFFER";
      return namesOne ? Object.keys(LEASES).map((lease) => `${type} ${lease}`) : [type];
    });
    expect(rows.map(([name]) => name)).toEqual(named);
    expect(columns.slice(1)).toEqual(Object.keys(PLACES));
    for (const row of rows) expect(row, row[0]).toHaveLength(columns.length);
  });

  it.each(rows)("decides %s as the table says", (name = "", ...cells) => {
    const [type, lease = "current"] = name.split(" ") as [keyof typeof EVENTS, keyof typeof LEASES | undefined];
    const event = EVENTS[type](type === "OFFER" ? FOREIGN : LEASES[lease]);
    const message = "message" in event ? event.message : "";
    for (const [i, cell] of cells.entries()) {
      const run = aRun(columns[i + 1] as PlaceName);
      expect(seen(run, next(run, event)), columns[i + 1]).toEqual(expected(run, cell, message));
    }
  });

  it("throws a bug code on a state or an event that does not exist", () => {
    const ghost = { ...aRun("RUNNING"), state: "GHOST" } as unknown as Run;
    const event = { type: "GHOST", leaseId: CURRENT.leaseId } as unknown as Parameters<typeof next>[1];
    expect(() => next(ghost, EVENTS.STOP(CURRENT))).toThrow("bug[RUN1]");
    expect(() => next(ghost, EVENTS.LEASE_LOST(CURRENT))).toThrow("bug[RUN1]");
    expect(() => next(ghost, EVENTS.NOT_STARTED(CURRENT))).toThrow("bug[RUN1]");
    expect(() => next(aRun("RUNNING"), event)).toThrow("bug[RUN1]");
  });
});

describe("a lost lease", () => {
  const lost = EVENTS.LEASE_LOST(CURRENT);
  const heard = "not heard from for 45 s";

  it.each<[OnLostPolicy, Partial<RunFacts>, Run["state"], string]>([
    ["FAIL", { attempt: 1, resumable: true }, "FAILED", heard],
    ["RETRY", { attempt: 1 }, "PENDING", ""],
    ["RETRY", { attempt: 2 }, "PENDING", ""],
    ["RETRY", { attempt: 3 }, "FAILED", `${heard}; it was attempt 3 of 3`],
    ["RETRY", { attempt: 5, uncharged: 3 }, "PENDING", ""],
    ["RETRY", { attempt: 6, uncharged: 3 }, "FAILED", `${heard}; it was attempt 3 of 3`],
    ["RESUME", { attempt: 1, resumable: true }, "PENDING", ""],
    ["RESUME", { attempt: 1 }, "FAILED", `${heard}; it cannot be resumed, as the executor never named its session`],
    ["RESUME", { attempt: 3, resumable: true }, "FAILED", `${heard}; it was attempt 3 of 3`],
  ])("under %s with %o leaves the run %s", (policy, facts, state, message) => {
    for (const at of ["CLAIMED", "RUNNING"] as const) {
      const run = aRun(at, { onLost: { policy, maxAttempts: 3 }, ...facts });
      const after = decided(run, lost);
      expect(after.state).toBe(state);
      expect(after.attempt).toBe(run.attempt);
      // A run that was only accepted gets its own prompt again: the executor may never have read it.
      expect(after.interrupted).toBe(policy === "RESUME" && state === "PENDING" && at === "RUNNING");
      if (after.state === "PENDING") expect(after.lapsed).toEqual(CURRENT);
      else expect(after).toMatchObject({ lease: CURRENT, reason: { name: "LOST", message } });
    }
  });

  it("ends a run that is being stopped, unconfirmed, whatever the policy", () => {
    for (const policy of ["FAIL", "RETRY", "RESUME"] as const) {
      const run = aRun("STOPPING", { onLost: { policy, maxAttempts: 3 }, resumable: true });
      expect(decided(run, lost)).toMatchObject({
        state: "STOPPED",
        reason: { name: "UNCONFIRMED", message: `stopped by ada; the end is unconfirmed: ${heard}` },
      });
    }
  });

  it("may still become the outcome until a newer accept, over any offers in between", () => {
    const waits = decided(aRun("RUNNING", { onLost: { policy: "RETRY", maxAttempts: 3 } }), lost);
    const again = decided(decided(waits, EVENTS.OFFER(FOREIGN)), EVENTS.REFUSE(FOREIGN));
    expect(decided(again, EVENTS.COMPLETED(CURRENT))).toMatchObject({ state: "COMPLETED", lease: CURRENT, attempt: 1 });
    const offered = decided(again, EVENTS.OFFER(FOREIGN));
    expect(next(offered, EVENTS.COMPLETED(CURRENT))).toMatchObject({
      run: { state: "COMPLETED", lease: CURRENT },
      effects: [{ type: "withdraw", lease: FOREIGN }],
    });
    const accepted = decided(offered, EVENTS.ACCEPT(FOREIGN));
    expect(next(accepted, EVENTS.COMPLETED(CURRENT)).type).toBe("stale");
    expect(next(decided(accepted, EVENTS.NOT_STARTED(FOREIGN)), EVENTS.COMPLETED(CURRENT)).type).toBe("stale");
  });
});

describe("exit 75", () => {
  it.each<[PlaceName, OnLostPolicy, number, Run["state"]]>([
    ["CLAIMED", "RETRY", 1, "PENDING"],
    ["RUNNING", "RETRY", 2, "PENDING"],
    ["RUNNING", "RETRY", 3, "FAILED"],
    ["RUNNING", "FAIL", 1, "FAILED"],
    ["RUNNING", "RESUME", 1, "FAILED"],
    ["STOPPING", "RETRY", 1, "FAILED"],
  ])("of a %s run under %s at attempt %i of 3 leaves it %s", (at, policy, attempt, state) => {
    const after = decided(aRun(at, { onLost: { policy, maxAttempts: 3 }, attempt, resumable: true }), exit75(CURRENT));
    expect(after.state).toBe(state);
    if (after.state === "PENDING") expect(after.lapsed).toBeUndefined();
    else expect(after).toMatchObject({ lease: CURRENT, reason: { name: "ENVIRONMENT" } });
  });

  it("of a lapsed attempt leaves the run waiting, and is then not asked again", () => {
    const run = aRun("PENDING", { onLost: { policy: "RETRY", maxAttempts: 3 } });
    expect(decided(run, exit75(LAPSED))).toEqual({ ...run, lapsed: undefined });
  });
});

describe("refusals", () => {
  const last = { refusals: MAX_REFUSALS - 1, refusalReasons: ["lnch_a: full", "lnch_current: draining"] };

  it("fail the run at the tenth, with everybody who refused it and why, each once", () => {
    expect(MAX_REFUSALS).toBe(10);
    const reason = { name: "REFUSED", message: "refused 10 times; lnch_a: full; lnch_current: draining" };
    const decision = next(aRun("OFFERED", last), EVENTS.REFUSE(CURRENT));
    expect(decision).toMatchObject({ run: { state: "FAILED", refusals: 10, reason }, effects: [] });
  });

  it("include accepts that were not started, which cost no attempt", () => {
    const ninth = decided(aRun("CLAIMED", { refusals: 8 }), EVENTS.NOT_STARTED(CURRENT));
    expect(ninth).toMatchObject({ state: "PENDING", refusals: 9, attempt: 1, uncharged: 1 });
    expect(decided(aRun("CLAIMED", last), EVENTS.NOT_STARTED(CURRENT))).toMatchObject({
      state: "FAILED",
      refusals: 10,
    });
  });
});

describe("the own trouble of a runner", () => {
  const said = (type: "REFUSE" | "NOT_STARTED", message: string) =>
    ({ type, leaseId: CURRENT.leaseId, message, finality: "runner-trouble" }) as RunEvent;
  const ninth = { refusals: MAX_REFUSALS - 1, refusalReasons: ["lnch_a: no"] };

  it.each([
    ["OFFERED", "REFUSE", 0],
    ["CLAIMED", "NOT_STARTED", 1],
  ] as const)("does not count against a run that is %s, and rests the pair", (place, type, uncharged) => {
    const decision = next(aRun(place, ninth), said(type, "EMFILE"));
    const refusalReasons = ["lnch_a: no", "lnch_current: EMFILE (the runner's own trouble, not counted)"];
    expect(decision).toMatchObject({
      run: { state: "PENDING", refusals: MAX_REFUSALS - 1, refusalReasons, uncharged },
      effects: [{ type: "cool-down", finality: "runner-trouble" }],
    });
  });

  it("is named once for each runner, for ten runners, and not in the end of the run", () => {
    let run = aRun("CLAIMED", { refusalReasons: ["lnch_a: no"] });
    for (let n = 0; n < 30; n += 1) {
      const lease = { ...CURRENT, runnerId: `lnch_${n % 15}` };
      run = decided({ ...run, state: "OFFERED", lease, lapsed: undefined }, said("REFUSE", `EMFILE ${n}`));
    }
    expect(run.refusalReasons).toHaveLength(11);
    expect([run.refusalReasons[0], run.refusalReasons[10]]).toEqual([
      "lnch_a: no",
      "lnch_14: EMFILE 29 (the runner's own trouble, not counted)",
    ]);
    const last = { ...run, state: "OFFERED", lease: CURRENT, lapsed: undefined, refusals: MAX_REFUSALS - 1 } as Run;
    const reason = { name: "REFUSED", message: "refused 10 times; lnch_a: no; lnch_current: draining" };
    expect(decided(last, EVENTS.REFUSE(CURRENT))).toMatchObject({ state: "FAILED", reason });
  });
});

describe("a refusal for good", () => {
  const refuse = (finality: Finality) => ({ ...EVENTS.REFUSE(CURRENT), finality }) as RunEvent;

  it("fails the run in seconds once every runner that suits it has said so, and not by one that knows no better", () => {
    const third = { refusals: 2, refusalReasons: ["lnch_a: no such directory"] };
    expect(decided(aRun("OFFERED", third), refuse("for-good-by-all"))).toMatchObject({
      state: "FAILED",
      reason: {
        name: "REFUSED",
        message:
          "every runner that suits the run refuses it for good; lnch_a: no such directory; lnch_current: draining",
      },
    });
    for (const finality of ["for-now", "for-good"] as const) {
      const decision = next(aRun("OFFERED", third), refuse(finality));
      expect(decision).toMatchObject({ run: { state: "PENDING" }, effects: [{ type: "cool-down", finality }] });
    }
  });

  it("leaves another runner the time to register", () => {
    const second = decided(aRun("OFFERED", { refusals: 1 }), refuse("for-good-by-all"));
    expect(second).toMatchObject({ state: "PENDING", refusals: 2 });
  });
});

describe("a stop", () => {
  it("repeated keeps the shorter grace, and tells the runner again", () => {
    const sooner = { graceMs: 0, reason: "stopped by bob" };
    const shortened = next(aRun("STOPPING"), { type: "STOP", stop: sooner });
    expect(shortened).toMatchObject({ run: { stop: sooner }, effects: [{ type: "stop-runner", stop: sooner }] });
    const longer = next(aRun("STOPPING"), { type: "STOP", stop: { graceMs: 60_000, reason: "stopped by bob" } });
    expect(longer).toMatchObject({ run: { stop: STOP }, effects: [{ type: "stop-runner", stop: STOP }] });
  });

  it("remembers whether the executor was started, also when that is heard later", () => {
    expect(decided(aRun("CLAIMED"), EVENTS.STOP(CURRENT))).toMatchObject({ state: "STOPPING", started: false });
    expect(decided(aRun("RUNNING"), EVENTS.STOP(CURRENT))).toMatchObject({ state: "STOPPING", started: true });
    const started = decided(aRun("UNSTARTED"), EVENTS.STARTED(CURRENT));
    expect(started).toMatchObject({ state: "STOPPING", started: true, stop: STOP });
    expect(next(started, EVENTS.NOT_STARTED(CURRENT)).type).toBe("invalid");
  });

  it("of a run that nobody holds ends it without a lease, with the reason given", () => {
    for (const at of ["PENDING", "OFFERED"] as const) {
      expect(decided(aRun(at), EVENTS.STOP(CURRENT))).toMatchObject({
        lease: undefined,
        reason: { message: "stopped by ada" },
      });
    }
  });
});

describe("a run", () => {
  it("that fails without a runner says why", () => {
    const unmatched = { name: "NO_MATCH", message: "no runner matches" };
    expect(decided(aRun("PENDING"), EVENTS.UNMATCHED(FOREIGN))).toMatchObject({ reason: unmatched, lease: undefined });
    const stranded = { name: "AFFINITY", message: "lnch_a was removed" };
    expect(decided(aRun("PENDING"), EVENTS.AFFINITY_LOST(FOREIGN))).toMatchObject({
      reason: stranded,
      lease: undefined,
    });
  });

  it("keeps the reason of its final report and the lease it ended under", () => {
    expect(decided(aRun("RUNNING"), EVENTS.FAILED(CURRENT))).toMatchObject({
      lease: CURRENT,
      reason: { name: "EXECUTOR_EXIT", message: "exit 3" },
    });
    expect(decided(aRun("RUNNING"), EVENTS.COMPLETED(CURRENT))).toMatchObject({ lease: CURRENT, reason: undefined });
  });

  it("tells a runner what to do about a report that comes too early or too late", () => {
    expect(next(aRun("OFFERED"), EVENTS.STARTED(CURRENT))).toEqual({
      type: "invalid",
      message: "STARTED under an offer that is not accepted: send ACCEPT and wait until it is answered OK",
    });
    expect(next(aRun("CLAIMED"), EVENTS.REFUSE(CURRENT))).toEqual({
      type: "invalid",
      message: "the offer was accepted and the run is CLAIMED: report NOT_STARTED or how it ended",
    });
    expect(next(aRun("RUNNING"), EVENTS.NOT_STARTED(CURRENT))).toEqual({
      type: "invalid",
      message: "the executor was reported as started: report how it ended",
    });
    expect(next(aRun("FAILED"), EVENTS.COMPLETED(CURRENT))).toEqual({
      type: "stale",
      message: "the lease is over; the run is FAILED",
    });
    expect(next(aRun("RUNNING"), EVENTS.OFFER(FOREIGN))).toEqual({
      type: "refused",
      message: "the run is RUNNING",
    });
  });

  it("is final in three states and held in three", () => {
    const places = Object.keys(PLACES) as PlaceName[];
    expect(places.filter((at) => isFinalName(PLACES[at].state))).toEqual(["COMPLETED", "FAILED", "STOPPED"]);
    expect(places.filter((at) => isHeld(aRun(at)))).toEqual(["CLAIMED", "RUNNING", "STOPPING", "UNSTARTED"]);
  });
});
