import { describe, expect, it } from "vitest";
import fc from "fast-check";
import { create } from "@bufbuild/protobuf";
import { FailureReason, ExitSchema } from "../../../gen/agentrunner/v1/run_pb.ts";
import { Report_Kind, RunOfferSchema } from "../../../gen/agentrunner/v1/runner_service_pb.ts";
import { nextLease } from "../../../runner/leases/lease-life.ts";
import type { LeaseEvent, LeaseState } from "../../../runner/leases/lease-life.ts";
import type { Execution, ExecutorOutcome } from "../../../runner/execution/supervisor.ts";

const offer = create(RunOfferSchema, { runId: "run_1", leaseId: "lease_1" });
const outcome: ExecutorOutcome = {
  kind: Report_Kind.COMPLETED,
  failure: FailureReason.UNSPECIFIED,
  message: "",
  exit: create(ExitSchema),
  result: undefined,
  executorSessionId: "",
  outputBytes: 0,
  malformedEvents: 0,
  malformedReason: "",
};
const execution: Execution = { pid: 1, done: Promise.resolve(outcome), stop: () => undefined };

const HEARD: LeaseState = { type: "recording", offer };

const states: Record<string, LeaseState> = {
  recording: HEARD,
  accepting: { type: "accepting", next: { type: "spawn", offer } },
  "accepting, stopped": { type: "accepting", next: { type: "report-stopped" } },
  "accepting, declined": { type: "accepting", next: { type: "decline" } },
  claimed: { type: "claimed", offer },
  spawning: { type: "spawning" },
  executing: { type: "executing", execution },
  abandoned: { type: "abandoned", execution },
  declining: { type: "declining" },
  finishing: { type: "finishing" },
  reporting: { type: "reporting" },
  over: { type: "over" },
};

const events: Record<string, LeaseEvent> = {
  recorded: { type: "recorded" },
  unrecorded: { type: "unrecorded", reason: "disk full", about: "runner" },
  accepted: { type: "accepted" },
  refused: { type: "refused" },
  silent: { type: "silent" },
  stop: { type: "stop", graceMs: 5 },
  withdraw: { type: "withdraw", graceMs: 5 },
  stale: { type: "revoked", known: true, graceMs: 5 },
  unknown: { type: "revoked", known: false, graceMs: 5 },
  spawned: { type: "spawned", execution },
  ended: { type: "ended", outcome },
  "not-started": { type: "not-started", reason: "EMFILE" },
  queued: { type: "queued" },
  resend: { type: "resend" },
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
    accepted: "finishing: drop-reports report-stopped",
    refused: "over: forget",
    silent: "finishing: drop-reports report-stopped",
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
    recorded: "spawning: spawn",
    unrecorded: "declining: drop-reports send-not-started",
    stop: "finishing: drop-reports report-stopped",
    withdraw: "declining: drop-reports send-not-started",
    stale: "over: drop-reports forget",
    unknown: "over: drop-reports forget",
  },
  spawning: { spawned: "executing:" },
  executing: {
    stop: "executing: kill",
    withdraw: "executing: kill",
    stale: "abandoned: drop-reports kill",
    unknown: "abandoned: drop-reports kill",
    ended: "finishing: report",
    "not-started": "declining: drop-reports send-not-started",
  },
  abandoned: {
    stop: "abandoned: kill",
    withdraw: "abandoned: kill",
    stale: "abandoned: kill",
    unknown: "abandoned: kill",
    ended: "over: forget",
    "not-started": "over: forget",
  },
  declining: { answered: "over: forget", stale: "over: drop-reports forget", unknown: "over: drop-reports forget" },
  finishing: { queued: "reporting:", unknown: "over: drop-reports forget" },
  reporting: { resend: "reporting: hurry-report", answered: "over: forget", unknown: "over: drop-reports forget" },
  over: {},
};

function nameOf(state: LeaseState): string {
  if (state.type !== "accepting" || state.next.type === "spawn") return state.type;
  return state.next.type === "decline" ? "accepting, declined" : "accepting, stopped";
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

describe("what a state owns", () => {
  const effectsOf = (name: string, event: LeaseEvent) => nextLease(states[name]!, event).effects;

  it("is handed on to the effects that need it", () => {
    expect(effectsOf("claimed", { type: "recorded" })).toEqual([{ type: "spawn", offer }]);
    expect(effectsOf("executing", { type: "ended", outcome })).toEqual([{ type: "report", outcome }]);
    for (const name of ["executing", "abandoned"]) {
      const kill = { type: "kill", execution, graceMs: 5, reason: "requested" };
      expect(effectsOf(name, { type: "stop", graceMs: 5 })).toEqual([kill]);
    }
  });
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
        expect(effects.filter((effect) => effect.startsWith("report")).length).toBeLessThanOrEqual(1);
      }),
      { numRuns: 20_000 },
    );
  });
});
