import { describe, expect, it } from "vitest";
import fc from "fast-check";
import { HEARD, nextLease } from "../../../runner/leases/lease-life.ts";
import type { LeaseEvent, LeaseState } from "../../../runner/leases/lease-life.ts";

const states: Record<string, LeaseState> = {
  recording: HEARD,
  accepting: { type: "accepting", instead: undefined },
  "accepting, stopped": { type: "accepting", instead: "stopped" },
  "accepting, declined": { type: "accepting", instead: "declined" },
  claimed: { type: "claimed" },
  executing: { type: "executing" },
  abandoned: { type: "abandoned" },
  declining: { type: "declining" },
  reporting: { type: "reporting" },
  over: { type: "over" },
};

const events: Record<string, LeaseEvent> = {
  recorded: { type: "recorded" },
  unrecorded: { type: "unrecorded", reason: "disk full" },
  accepted: { type: "accepted" },
  refused: { type: "refused" },
  silent: { type: "silent" },
  stop: { type: "stop", graceMs: 5 },
  withdraw: { type: "withdraw", graceMs: 5 },
  stale: { type: "revoked", known: true, graceMs: 5 },
  unknown: { type: "revoked", known: false, graceMs: 5 },
  ended: { type: "ended" },
  answered: { type: "answered" },
};

/** For each state: event → next state and effects. What is not listed changes nothing. */
const table: Record<string, Record<string, string>> = {
  recording: {
    recorded: "accepting: send-accept",
    unrecorded: "over: refuse forget",
    stop: "over: forget",
    withdraw: "over: refuse forget",
    stale: "over: forget",
    unknown: "over: forget",
  },
  accepting: {
    accepted: "claimed: record-spawn",
    refused: "over: forget",
    silent: "declining: drop-reports send-not-started",
    stop: "accepting, stopped:",
    withdraw: "accepting, declined:",
    stale: "over: drop-reports forget",
    unknown: "over: drop-reports forget",
  },
  "accepting, stopped": {
    accepted: "reporting: drop-reports report",
    refused: "over: forget",
    silent: "reporting: drop-reports report",
    stale: "over: drop-reports forget",
    unknown: "over: drop-reports forget",
  },
  "accepting, declined": {
    accepted: "declining: drop-reports send-not-started",
    refused: "over: forget",
    silent: "declining: drop-reports send-not-started",
    stop: "accepting, stopped:",
    stale: "over: drop-reports forget",
    unknown: "over: drop-reports forget",
  },
  claimed: {
    recorded: "executing: spawn",
    unrecorded: "declining: drop-reports send-not-started",
    stop: "reporting: drop-reports report",
    withdraw: "declining: drop-reports send-not-started",
    stale: "over: drop-reports forget",
    unknown: "over: drop-reports forget",
  },
  executing: {
    stop: "executing: kill",
    withdraw: "executing: kill",
    stale: "abandoned: drop-reports kill",
    unknown: "abandoned: drop-reports kill",
    ended: "reporting: report",
  },
  abandoned: {
    stop: "abandoned: kill",
    withdraw: "abandoned: kill",
    stale: "abandoned: kill",
    unknown: "abandoned: kill",
    ended: "over: forget",
  },
  declining: { answered: "over: forget", stale: "over: drop-reports forget", unknown: "over: drop-reports forget" },
  reporting: { answered: "over: forget", unknown: "over: drop-reports forget" },
  over: {},
};

function nameOf(state: LeaseState): string {
  return state.type === "accepting" && state.instead !== undefined ? `accepting, ${state.instead}` : state.type;
}

function written(state: LeaseState, event: LeaseEvent): string {
  const step = nextLease(state, event);
  return `${nameOf(step.state)}: ${step.effects.map(({ type }) => type).join(" ")}`.trim();
}

describe("the life of a lease in a runner", () => {
  for (const [stateName, state] of Object.entries(states)) {
    for (const [eventName, event] of Object.entries(events)) {
      const expected = table[stateName]?.[eventName] ?? `${stateName}:`;
      it(`${stateName} + ${eventName} leads to ${expected}`, () => {
        expect(written(state, event)).toBe(expected);
      });
    }
  }
});

const anyEvents = fc.array(fc.constantFrom(...Object.values(events)), { maxLength: 30 });

describe("whatever happens to a lease", () => {
  it("it is spawned at most once, and only after its accept was answered OK and the spawn was recorded", () => {
    fc.assert(
      fc.property(anyEvents, (sequence) => {
        let state: LeaseState = HEARD;
        let accepted = false;
        let spawns = 0;
        for (const event of sequence) {
          const wasAccepting = state.type === "accepting";
          const wasClaimed = state.type === "claimed";
          const step = nextLease(state, event);
          if (wasAccepting && event.type === "accepted") accepted = true;
          for (const effect of step.effects) {
            if (effect.type !== "spawn") continue;
            spawns += 1;
            expect(accepted && wasClaimed && event.type === "recorded").toBe(true);
          }
          state = step.state;
        }
        expect(spawns).toBeLessThanOrEqual(1);
      }),
      { numRuns: 20_000 },
    );
  });

  it("over is final, it is forgotten exactly once, and at most one final report is made", () => {
    fc.assert(
      fc.property(anyEvents, (sequence) => {
        let state: LeaseState = HEARD;
        const effects: string[] = [];
        for (const event of sequence) {
          const step = nextLease(state, event);
          if (state.type === "over") expect(step).toEqual({ state, effects: [] });
          effects.push(...step.effects.map(({ type }) => type));
          state = step.state;
        }
        expect(effects.filter((effect) => effect === "forget")).toHaveLength(state.type === "over" ? 1 : 0);
        expect(effects.filter((effect) => effect === "report").length).toBeLessThanOrEqual(1);
      }),
      { numRuns: 20_000 },
    );
  });
});
