import type { RunOffer } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import type { Execution, ExecutorOutcome, StopReason } from "../execution/supervisor.ts";
import type { Refused } from "../reports/reports.ts";

/*
 * The life of one lease in a runner, as a pure function: it hands on what a state owns and never looks into it. RunLease
 * in lease.ts carries out the effects.
 *
 *     state       recorded    unrecorded   accepted    refused   silent        stop        withdraw    revoked
 *     recording   accepting   over         -           -         -             over        over        over
 *     accepting   -           -            claimed *   over      declining *   accepting   accepting   over
 *     claimed     spawning    declining    -           -         -             finishing   declining   over
 *
 *     state       spawned     stop        withdraw    revoked     ended       not-started  queued      resend      answered
 *     spawning    executing   -           -           -           -           -            -           -           -
 *     executing   -           executing   executing   abandoned   finishing   declining    -           -           -
 *     abandoned   -           abandoned   abandoned   abandoned   over        over         -           -           -
 *     declining   -           -           -           over        -           -            -           -           over
 *     finishing   -           -           -           over **     -           -            reporting   -           -
 *     reporting   -           -           -           over **     -           -            -           reporting   over
 *     over        -           -           -           -           -           -            -           -           -
 *
 *     *  after a stop: finishing; after a withdrawal `accepted` leads to declining too.
 *     ** only when the coordinator does not know the run: a late final report is evidence, and may still count.
 *     -  and whatever is not in the table of a state: nothing happens
 */

/** What follows once the accept is answered. */
export type AfterAccept =
  | { readonly type: "spawn"; readonly offer: RunOffer }
  | { readonly type: "report-stopped" }
  | { readonly type: "decline" };

/** Where a lease is, and what it has there. */
export type LeaseState =
  /** The offer was heard; ACCEPTING is being written. Nothing was sent. */
  | { readonly type: "recording"; readonly offer: RunOffer }
  /** The accept was sent and is not answered. */
  | { readonly type: "accepting"; readonly next: AfterAccept }
  /** The accept is answered OK; SPAWNING is being written. */
  | { readonly type: "claimed"; readonly offer: RunOffer }
  /** The executor is being spawned. Lasts no longer than the call: no other event comes in between. */
  | { readonly type: "spawning" }
  /** The executor was spawned, or waits for an earlier one of its session, and has not ended. */
  | { readonly type: "executing"; readonly execution: Execution }
  /** The lease is over and its executor is being ended. Nothing is reported. */
  | { readonly type: "abandoned"; readonly execution: Execution }
  /** NOT_STARTED was sent and is not answered. */
  | { readonly type: "declining" }
  /** The executor has ended; the final report is being written to the outbox, and waits for the events before it. */
  | { readonly type: "finishing" }
  /** The final report is in the sender's queue and is not answered. */
  | { readonly type: "reporting" }
  | { readonly type: "over" };

export type LeaseEvent =
  /** What the last effect asked to be recorded is on disk. */
  | { readonly type: "recorded" }
  /** It could not be written. */
  | ({ readonly type: "unrecorded" } & Refused)
  /** The accept was answered OK. */
  | { readonly type: "accepted" }
  /** The accept was answered STALE, UNKNOWN or INVALID. */
  | { readonly type: "refused" }
  /** lease_ttl passed since the accept was first sent. */
  | { readonly type: "silent" }
  /** The coordinator wants the run stopped. */
  | { readonly type: "stop"; readonly graceMs: number }
  /** The runner ends. */
  | { readonly type: "withdraw"; readonly graceMs: number }
  /** The lease is over: STALE or UNKNOWN to a report, or UNKNOWN to a heartbeat. `known`: the coordinator knows the run. */
  | { readonly type: "revoked"; readonly known: boolean; readonly graceMs: number }
  /** The effect `spawn` was carried out. */
  | { readonly type: "spawned"; readonly execution: Execution }
  /** The executor's process group is gone. */
  | { readonly type: "ended"; readonly outcome: ExecutorOutcome }
  /** Nothing was spawned, because the machine of the runner could not: another one may do it. */
  | { readonly type: "not-started"; readonly reason: string }
  /** The final report was given to the sender. */
  | { readonly type: "queued" }
  /** The coordinator asks for the final report again. */
  | { readonly type: "resend" }
  /** The last report of the lease was answered, whatever the answer. */
  | { readonly type: "answered" };

export type LeaseEffect =
  | { readonly type: "send-accept" }
  /** Say REFUSE; nothing was accepted. */
  | ({ readonly type: "refuse" } & Refused)
  | { readonly type: "record-spawn" }
  | { readonly type: "spawn"; readonly offer: RunOffer }
  | { readonly type: "kill"; readonly execution: Execution; readonly graceMs: number; readonly reason: StopReason }
  /** Take back every report of the lease that is not answered. */
  | { readonly type: "drop-reports" }
  /** Say NOT_STARTED. */
  | ({ readonly type: "send-not-started" } & Refused)
  /** Put the final report into the outbox, then send it. */
  | { readonly type: "report"; readonly outcome: ExecutorOutcome }
  /** The same for a lease that was stopped before anything was spawned. */
  | { readonly type: "report-stopped" }
  /** Send the final report now, if it waits for its turn. */
  | { readonly type: "hurry-report" }
  /** Delete what is recorded of the lease. */
  | { readonly type: "forget" };

export interface LeaseStep {
  readonly state: LeaseState;
  readonly effects: readonly LeaseEffect[];
}

const OVER: LeaseState = { type: "over" };
const FORGET: LeaseStep = { state: OVER, effects: [{ type: "forget" }] };
const DROP: LeaseStep = { state: OVER, effects: [{ type: "drop-reports" }, { type: "forget" }] };
const DECLINE = declined({ reason: "accepted, but nothing was started", about: "run" });
const WITHDRAW = declined({ reason: "accepted, but nothing was started: the runner ends", about: "runner" });
const REPORT_STOPPED: LeaseStep = {
  state: { type: "finishing" },
  effects: [{ type: "drop-reports" }, { type: "report-stopped" }],
};

function declined({ reason, about }: Refused): LeaseStep {
  return {
    state: { type: "declining" },
    effects: [{ type: "drop-reports" }, { type: "send-not-started", reason, about }],
  };
}

/** What happens to a lease, and what is to be done about it. Pure; an event that means nothing here changes nothing. */
export function nextLease(state: LeaseState, event: LeaseEvent): LeaseStep {
  return stepOf(state, event) ?? { state, effects: [] };
}

function stepOf(state: LeaseState, event: LeaseEvent): LeaseStep | undefined {
  switch (state.type) {
    case "recording":
      return whileRecording(state, event);
    case "accepting":
      return whileAccepting(state, event);
    case "claimed":
      return whileClaimed(state, event);
    case "spawning":
      if (event.type !== "spawned") return undefined;
      return { state: { type: "executing", execution: event.execution }, effects: [] };
    case "executing":
      return whileExecuting(state, event);
    case "abandoned":
      return whileAbandoned(state, event);
    case "declining":
      if (event.type === "answered") return FORGET;
      return event.type === "revoked" ? DROP : undefined;
    case "finishing":
      if (event.type === "queued") return { state: { type: "reporting" }, effects: [] };
      return event.type === "revoked" && !event.known ? DROP : undefined;
    case "reporting":
      if (event.type === "answered") return FORGET;
      if (event.type === "resend") return { state, effects: [{ type: "hurry-report" }] };
      return event.type === "revoked" && !event.known ? DROP : undefined;
    case "over":
      return undefined;
    default:
      return state satisfies never;
  }
}

type In<Type extends LeaseState["type"]> = Extract<LeaseState, { type: Type }>;

function whileRecording({ offer }: In<"recording">, event: LeaseEvent): LeaseStep | undefined {
  switch (event.type) {
    case "recorded":
      return { state: { type: "accepting", next: { type: "spawn", offer } }, effects: [{ type: "send-accept" }] };
    case "unrecorded":
      return refused(event);
    case "withdraw":
      return refused({ reason: "the runner ends", about: "runner" });
    case "stop":
    case "revoked":
      return FORGET;
    default:
      return undefined;
  }
}

function refused({ reason, about }: Refused): LeaseStep {
  return { state: OVER, effects: [{ type: "refuse", reason, about }, { type: "forget" }] };
}

function whileAccepting({ next }: In<"accepting">, event: LeaseEvent): LeaseStep | undefined {
  switch (event.type) {
    case "accepted":
      return afterAccept(next);
    case "silent":
      return next.type === "report-stopped" ? REPORT_STOPPED : DECLINE;
    case "refused":
      return FORGET;
    case "stop":
      return { state: { type: "accepting", next: { type: "report-stopped" } }, effects: [] };
    case "withdraw":
      return next.type === "spawn"
        ? { state: { type: "accepting", next: { type: "decline" } }, effects: [] }
        : undefined;
    case "revoked":
      return DROP;
    default:
      return undefined;
  }
}

function afterAccept(next: AfterAccept): LeaseStep {
  switch (next.type) {
    case "spawn":
      return { state: { type: "claimed", offer: next.offer }, effects: [{ type: "record-spawn" }] };
    case "report-stopped":
      return REPORT_STOPPED;
    case "decline":
      return WITHDRAW;
    default:
      return next satisfies never;
  }
}

function whileClaimed({ offer }: In<"claimed">, event: LeaseEvent): LeaseStep | undefined {
  switch (event.type) {
    case "recorded":
      return { state: { type: "spawning" }, effects: [{ type: "spawn", offer }] };
    case "unrecorded":
      return declined({ ...event, reason: `accepted, but nothing was started: ${event.reason}` });
    case "withdraw":
      return WITHDRAW;
    case "stop":
      return REPORT_STOPPED;
    case "revoked":
      return DROP;
    default:
      return undefined;
  }
}

function whileExecuting(state: In<"executing">, event: LeaseEvent): LeaseStep | undefined {
  const { execution } = state;
  switch (event.type) {
    case "stop":
      return { state, effects: [{ type: "kill", execution, graceMs: event.graceMs, reason: "requested" }] };
    case "withdraw":
      return { state, effects: [{ type: "kill", execution, graceMs: event.graceMs, reason: "runner-shutdown" }] };
    case "revoked": {
      const kill: LeaseEffect = { type: "kill", execution, graceMs: event.graceMs, reason: "requested" };
      return { state: { type: "abandoned", execution }, effects: [{ type: "drop-reports" }, kill] };
    }
    case "ended":
      return { state: { type: "finishing" }, effects: [{ type: "report", outcome: event.outcome }] };
    case "not-started":
      return declined({ reason: event.reason, about: "runner" });
    default:
      return undefined;
  }
}

function whileAbandoned(state: In<"abandoned">, event: LeaseEvent): LeaseStep | undefined {
  const { execution } = state;
  switch (event.type) {
    case "ended":
    case "not-started":
      return FORGET;
    case "stop":
    case "withdraw":
    case "revoked":
      return { state, effects: [{ type: "kill", execution, graceMs: event.graceMs, reason: "requested" }] };
    default:
      return undefined;
  }
}
