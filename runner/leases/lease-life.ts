import type { StopReason } from "../execution/supervisor.ts";

/*
 * The life of one lease in a runner, as a pure function. The shell in runner.ts carries out the effects.
 *
 *     state       recorded     unrecorded   accepted     refused   silent       stop         withdraw     revoked      ended       answered
 *     recording   accepting    over         -            -         -            over         over         over         -           -
 *     accepting   -            -            claimed *    over      declining *  accepting    accepting    over         -           -
 *     claimed     executing    declining    -            -         -            reporting    declining    over         -           -
 *     executing   -            -            -            -         -            executing    executing    abandoned    reporting   -
 *     abandoned   -            -            -            -         -            abandoned    abandoned    abandoned    over        -
 *     declining   -            -            -            -         -            -            -            over         -           over
 *     reporting   -            -            -            -         -            -            -            over **      -           over
 *     over        -            -            -            -         -            -            -            -            -           -
 *
 *     *  after a stop: reporting; after a withdrawal `accepted` leads to declining too.   - : nothing happens
 *     ** only when the coordinator does not know the run: a late final report is evidence, and may still count.
 */

/** Where a lease is. */
export type LeaseState =
  /** The offer was heard; ACCEPTING is being written. Nothing was sent. */
  | { readonly type: "recording" }
  /** The accept was sent and is not answered. `instead` says what to do instead of a spawn once it is. */
  | { readonly type: "accepting"; readonly instead: "stopped" | "declined" | undefined }
  /** The accept is answered OK; SPAWNING is being written. */
  | { readonly type: "claimed" }
  /** The executor is spawned and has not ended. */
  | { readonly type: "executing" }
  /** The lease is over and its executor is being ended. Nothing is reported. */
  | { readonly type: "abandoned" }
  /** NOT_STARTED was sent and is not answered. */
  | { readonly type: "declining" }
  /** The final report is in the outbox and is not answered. */
  | { readonly type: "reporting" }
  | { readonly type: "over" };

export type LeaseEvent =
  /** What the last effect asked to be recorded is on disk. */
  | { readonly type: "recorded" }
  /** It could not be written. */
  | { readonly type: "unrecorded"; readonly reason: string }
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
  /** The executor's process group is gone. */
  | { readonly type: "ended" }
  /** The last report of the lease was answered, whatever the answer. */
  | { readonly type: "answered" };

export type LeaseEffect =
  | { readonly type: "send-accept" }
  /** Say REFUSE; nothing was accepted. */
  | { readonly type: "refuse"; readonly reason: string }
  | { readonly type: "record-spawn" }
  | { readonly type: "spawn" }
  | { readonly type: "kill"; readonly graceMs: number; readonly reason: StopReason }
  /** Take back every report of the lease that is not answered. */
  | { readonly type: "drop-reports" }
  /** Say NOT_STARTED. */
  | { readonly type: "send-not-started" }
  /** Put the final report into the outbox, then send it: STOPPED when nothing was spawned. */
  | { readonly type: "report"; readonly spawned: boolean }
  /** Delete what is recorded of the lease. */
  | { readonly type: "forget" };

export interface LeaseStep {
  readonly state: LeaseState;
  readonly effects: readonly LeaseEffect[];
}

const OVER: LeaseState = { type: "over" };
const FORGET: LeaseStep = { state: OVER, effects: [{ type: "forget" }] };
const DROP: LeaseStep = { state: OVER, effects: [{ type: "drop-reports" }, { type: "forget" }] };
const ACCEPT: LeaseStep = { state: { type: "accepting", instead: undefined }, effects: [{ type: "send-accept" }] };
const CLAIM: LeaseStep = { state: { type: "claimed" }, effects: [{ type: "record-spawn" }] };
const SPAWN: LeaseStep = { state: { type: "executing" }, effects: [{ type: "spawn" }] };
const DECLINE: LeaseStep = {
  state: { type: "declining" },
  effects: [{ type: "drop-reports" }, { type: "send-not-started" }],
};
const REPORT: LeaseStep = { state: { type: "reporting" }, effects: [{ type: "report", spawned: true }] };
const REPORT_STOPPED: LeaseStep = {
  state: { type: "reporting" },
  effects: [{ type: "drop-reports" }, { type: "report", spawned: false }],
};

/** State of a lease whose offer was just heard. The shell records ACCEPTING and answers with `recorded`. */
export const HEARD: LeaseState = { type: "recording" };

/** What happens to a lease, and what is to be done about it. Pure; an event that means nothing here changes nothing. */
export function nextLease(state: LeaseState, event: LeaseEvent): LeaseStep {
  const stay: LeaseStep = { state, effects: [] };
  switch (state.type) {
    case "recording":
      return whileRecording(event) ?? stay;
    case "accepting":
      return whileAccepting(state, event) ?? stay;
    case "claimed":
      return whileClaimed(event) ?? stay;
    case "executing":
      return whileExecuting(state, event) ?? stay;
    case "abandoned":
      return whileAbandoned(state, event) ?? stay;
    case "declining":
      if (event.type === "answered") return FORGET;
      return event.type === "revoked" ? DROP : stay;
    case "reporting":
      if (event.type === "answered") return FORGET;
      return event.type === "revoked" && !event.known ? DROP : stay;
    case "over":
      return stay;
    default:
      return state satisfies never;
  }
}

function whileRecording(event: LeaseEvent): LeaseStep | undefined {
  switch (event.type) {
    case "recorded":
      return ACCEPT;
    case "unrecorded":
      return { state: OVER, effects: [{ type: "refuse", reason: event.reason }, { type: "forget" }] };
    case "withdraw":
      return { state: OVER, effects: [{ type: "refuse", reason: "the runner ends" }, { type: "forget" }] };
    case "stop":
    case "revoked":
      return FORGET;
    default:
      return undefined;
  }
}

type Accepting = Extract<LeaseState, { type: "accepting" }>;

function whileAccepting(state: Accepting, event: LeaseEvent): LeaseStep | undefined {
  switch (event.type) {
    case "accepted":
      if (state.instead === "stopped") return REPORT_STOPPED;
      return state.instead === "declined" ? DECLINE : CLAIM;
    case "silent":
      return state.instead === "stopped" ? REPORT_STOPPED : DECLINE;
    case "refused":
      return FORGET;
    case "stop":
      return { state: { type: "accepting", instead: "stopped" }, effects: [] };
    case "withdraw":
      return { state: { type: "accepting", instead: state.instead ?? "declined" }, effects: [] };
    case "revoked":
      return DROP;
    default:
      return undefined;
  }
}

function whileClaimed(event: LeaseEvent): LeaseStep | undefined {
  switch (event.type) {
    case "recorded":
      return SPAWN;
    case "unrecorded":
    case "withdraw":
      return DECLINE;
    case "stop":
      return REPORT_STOPPED;
    case "revoked":
      return DROP;
    default:
      return undefined;
  }
}

function whileExecuting(state: LeaseState, event: LeaseEvent): LeaseStep | undefined {
  switch (event.type) {
    case "stop":
      return { state, effects: [{ type: "kill", graceMs: event.graceMs, reason: "requested" }] };
    case "withdraw":
      return { state, effects: [{ type: "kill", graceMs: event.graceMs, reason: "runner-shutdown" }] };
    case "revoked":
      return {
        state: { type: "abandoned" },
        effects: [{ type: "drop-reports" }, { type: "kill", graceMs: event.graceMs, reason: "requested" }],
      };
    case "ended":
      return REPORT;
    default:
      return undefined;
  }
}

function whileAbandoned(state: LeaseState, event: LeaseEvent): LeaseStep | undefined {
  switch (event.type) {
    case "ended":
      return FORGET;
    case "stop":
    case "withdraw":
    case "revoked":
      return { state, effects: [{ type: "kill", graceMs: event.graceMs, reason: "requested" }] };
    default:
      return undefined;
  }
}
