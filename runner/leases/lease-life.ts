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
  | { readonly t: "recording" }
  /** The accept was sent and is not answered. `instead` says what to do instead of a spawn once it is. */
  | { readonly t: "accepting"; readonly instead: "stopped" | "declined" | undefined }
  /** The accept is answered OK; SPAWNING is being written. */
  | { readonly t: "claimed" }
  /** The executor is spawned and has not ended. */
  | { readonly t: "executing" }
  /** The lease is over and its executor is being ended. Nothing is reported. */
  | { readonly t: "abandoned" }
  /** NOT_STARTED was sent and is not answered. */
  | { readonly t: "declining" }
  /** The final report is in the outbox and is not answered. */
  | { readonly t: "reporting" }
  | { readonly t: "over" };

export type LeaseEvent =
  /** What the last effect asked to be recorded is on disk. */
  | { readonly t: "recorded" }
  /** It could not be written. */
  | { readonly t: "unrecorded"; readonly reason: string }
  /** The accept was answered OK. */
  | { readonly t: "accepted" }
  /** The accept was answered STALE, UNKNOWN or INVALID. */
  | { readonly t: "refused" }
  /** lease_ttl passed since the accept was first sent. */
  | { readonly t: "silent" }
  /** The coordinator wants the run stopped. */
  | { readonly t: "stop"; readonly graceMs: number }
  /** The runner ends. */
  | { readonly t: "withdraw"; readonly graceMs: number }
  /** The lease is over: STALE or UNKNOWN to a report, or UNKNOWN to a heartbeat. `known`: the coordinator knows the run. */
  | { readonly t: "revoked"; readonly known: boolean; readonly graceMs: number }
  /** The executor's process group is gone. */
  | { readonly t: "ended" }
  /** The last report of the lease was answered, whatever the answer. */
  | { readonly t: "answered" };

export type LeaseEffect =
  | { readonly t: "send-accept" }
  /** Say REFUSE; nothing was accepted. */
  | { readonly t: "refuse"; readonly reason: string }
  | { readonly t: "record-spawn" }
  | { readonly t: "spawn" }
  | { readonly t: "kill"; readonly graceMs: number; readonly reason: StopReason }
  /** Take back every report of the lease that is not answered. */
  | { readonly t: "drop-reports" }
  /** Say NOT_STARTED. */
  | { readonly t: "send-not-started" }
  /** Put the final report into the outbox, then send it: STOPPED when nothing was spawned. */
  | { readonly t: "report"; readonly spawned: boolean }
  /** Delete what is recorded of the lease. */
  | { readonly t: "forget" };

export interface LeaseStep {
  readonly state: LeaseState;
  readonly effects: readonly LeaseEffect[];
}

const OVER: LeaseState = { t: "over" };
const FORGET: LeaseStep = { state: OVER, effects: [{ t: "forget" }] };
const DROP: LeaseStep = { state: OVER, effects: [{ t: "drop-reports" }, { t: "forget" }] };
const ACCEPT: LeaseStep = { state: { t: "accepting", instead: undefined }, effects: [{ t: "send-accept" }] };
const CLAIM: LeaseStep = { state: { t: "claimed" }, effects: [{ t: "record-spawn" }] };
const SPAWN: LeaseStep = { state: { t: "executing" }, effects: [{ t: "spawn" }] };
const DECLINE: LeaseStep = {
  state: { t: "declining" },
  effects: [{ t: "drop-reports" }, { t: "send-not-started" }],
};
const REPORT: LeaseStep = { state: { t: "reporting" }, effects: [{ t: "report", spawned: true }] };
const REPORT_STOPPED: LeaseStep = {
  state: { t: "reporting" },
  effects: [{ t: "drop-reports" }, { t: "report", spawned: false }],
};

/** State of a lease whose offer was just heard. The shell records ACCEPTING and answers with `recorded`. */
export const HEARD: LeaseState = { t: "recording" };

/** What happens to a lease, and what is to be done about it. Pure; an event that means nothing here changes nothing. */
export function nextLease(state: LeaseState, event: LeaseEvent): LeaseStep {
  const stay: LeaseStep = { state, effects: [] };
  switch (state.t) {
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
      if (event.t === "answered") return FORGET;
      return event.t === "revoked" ? DROP : stay;
    case "reporting":
      if (event.t === "answered") return FORGET;
      return event.t === "revoked" && !event.known ? DROP : stay;
    case "over":
      return stay;
    default:
      return state satisfies never;
  }
}

function whileRecording(event: LeaseEvent): LeaseStep | undefined {
  switch (event.t) {
    case "recorded":
      return ACCEPT;
    case "unrecorded":
      return { state: OVER, effects: [{ t: "refuse", reason: event.reason }, { t: "forget" }] };
    case "withdraw":
      return { state: OVER, effects: [{ t: "refuse", reason: "the runner ends" }, { t: "forget" }] };
    case "stop":
    case "revoked":
      return FORGET;
    default:
      return undefined;
  }
}

type Accepting = Extract<LeaseState, { t: "accepting" }>;

function whileAccepting(state: Accepting, event: LeaseEvent): LeaseStep | undefined {
  switch (event.t) {
    case "accepted":
      if (state.instead === "stopped") return REPORT_STOPPED;
      return state.instead === "declined" ? DECLINE : CLAIM;
    case "silent":
      return state.instead === "stopped" ? REPORT_STOPPED : DECLINE;
    case "refused":
      return FORGET;
    case "stop":
      return { state: { t: "accepting", instead: "stopped" }, effects: [] };
    case "withdraw":
      return { state: { t: "accepting", instead: state.instead ?? "declined" }, effects: [] };
    case "revoked":
      return DROP;
    default:
      return undefined;
  }
}

function whileClaimed(event: LeaseEvent): LeaseStep | undefined {
  switch (event.t) {
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
  switch (event.t) {
    case "stop":
      return { state, effects: [{ t: "kill", graceMs: event.graceMs, reason: "requested" }] };
    case "withdraw":
      return { state, effects: [{ t: "kill", graceMs: event.graceMs, reason: "runner-shutdown" }] };
    case "revoked":
      return {
        state: { t: "abandoned" },
        effects: [{ t: "drop-reports" }, { t: "kill", graceMs: event.graceMs, reason: "requested" }],
      };
    case "ended":
      return REPORT;
    default:
      return undefined;
  }
}

function whileAbandoned(state: LeaseState, event: LeaseEvent): LeaseStep | undefined {
  switch (event.t) {
    case "ended":
      return FORGET;
    case "stop":
    case "withdraw":
    case "revoked":
      return { state, effects: [{ t: "kill", graceMs: event.graceMs, reason: "requested" }] };
    default:
      return undefined;
  }
}
