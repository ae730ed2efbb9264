import {
  ReportVerdict_Kind,
  ReportVerdict_KindSchema,
  Report_Kind,
  Report_KindSchema,
} from "../../gen/agentrunner/v1/runner_service_pb.ts";
import type { Report, ReportVerdict, RunOffer } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import type { ExecutorEvent, ExecutorInvocation } from "../../gen/agentrunner/v1/executor_pb.ts";
import type { Log } from "../../lib/log.ts";
import type { Timing } from "../connection/timing.ts";
import type { Execute } from "../execution/execute.ts";
import type { SessionExecutions } from "../execution/session-executions.ts";
import type { ExecutorOutcome } from "../execution/supervisor.ts";
import type { EventSender } from "../reports/event-sender.ts";
import type { Outbox } from "../reports/outbox.ts";
import type { ReportSender } from "../reports/report-sender.ts";
import { oneItem } from "../one-item.ts";
import { numbered, renumbered, UNNUMBERED } from "../reports/numbering.ts";
import type { Numbering } from "../reports/numbering.ts";
import * as reports from "../reports/reports.ts";
import { nextLease } from "./lease-life.ts";
import type { LeaseEffect, LeaseEvent, LeaseState } from "./lease-life.ts";
import type { StateDir } from "./state-dir.ts";

/** How long a final report waits for the events before it; then it goes with their number as missing (ADR 3). */
const EVENTS_WAIT_MS = 30_000;

/** Executor session ids that one run may announce while it runs; the final report carries the last in any case. */
const MAX_SESSION_REPORTS = 16;

/** The accept has the first number. */
const ACCEPT_NUMBERED: Numbering = { ...UNNUMBERED, seq: reports.FIRST_SEQ };

/** What every lease of a runner works with. */
export interface LeaseDeps {
  /** Directory of runs that name none. */
  readonly projectDir: string;
  readonly state: StateDir;
  readonly outbox: Outbox;
  readonly reports: ReportSender;
  readonly events: EventSender;
  readonly execute: Execute;
  readonly timing: () => Timing;
  readonly log: Log;
  /** What a run came to is known; its report is not answered yet. */
  readonly onOutcome: (report: Pick<Report, "kind" | "failure">) => void;
}

/** Who keeps the leases. */
export interface LeaseOwner {
  readonly executions: SessionExecutions;
  /** The lease went from one state to another. */
  moved(lease: RunLease, before: LeaseState, after: LeaseState): void;
  /** Nothing was accepted; say so. */
  refuse(lease: RunLease, storeId: string, why: reports.Refused): void;
  /** The executor of the lease runs. */
  started(): void;
  /** Nothing can be started on this machine now. */
  short(lease: RunLease, reason: string): void;
}

/** What one executor said of its own session. */
interface ExecutorSession {
  id: string;
  reports: number;
}

/** One lease: carries out what lease-life.ts decides. */
export class RunLease implements reports.LeaseRef {
  readonly runId: string;
  readonly leaseId: string;
  readonly attempt: number;
  /** Store of the coordinator that made the offer. */
  readonly storeId: string;
  readonly #deps: LeaseDeps;
  readonly #owner: LeaseOwner;
  /** Empty for what the process before this one had accepted. */
  readonly sessionId: string;
  #state: LeaseState;
  #numbering = UNNUMBERED;
  #log: Log | undefined;

  constructor(deps: LeaseDeps, owner: LeaseOwner, ref: reports.LeaseRef, storeId: string, state: LeaseState) {
    this.runId = ref.runId;
    this.leaseId = ref.leaseId;
    this.attempt = ref.attempt;
    this.storeId = storeId;
    this.#deps = deps;
    this.#owner = owner;
    this.#state = state;
    this.sessionId = state.type === "recording" ? (state.offer.invocation?.sessionId ?? "") : "";
  }

  /** Names the run, its session and its attempt in every line. */
  get log(): Log {
    const session = this.sessionId === "" ? {} : { session_id: this.sessionId };
    return (this.#log ??= this.#deps.log.child({ run_id: this.runId, ...session, attempt: this.attempt }));
  }

  get state(): LeaseState {
    return this.#state;
  }

  /** Begins the life of an offer that is to be accepted: the accept is sent once ACCEPTING is on disk. */
  take(): void {
    this.#whenWritten(this.#deps.state.recordAccepting(this));
  }

  /** Gives back what the process before this one had accepted without spawning. */
  giveBack(): void {
    this.#numbering = ACCEPT_NUMBERED;
    this.apply({ type: "silent" });
  }

  apply(event: LeaseEvent): void {
    const before = this.#state;
    const { state, effects } = nextLease(before, event);
    this.#state = state;
    for (const effect of effects) this.#carryOut(effect);
    if (state !== before) this.#owner.moved(this, before, state);
  }

  /** The lease is over; `known` says whether the coordinator knows the run. */
  revoke(known: boolean): void {
    this.apply({ type: "revoked", known, graceMs: this.#deps.timing().stopGraceMs });
  }

  /** Ends the executor at once, as a killed runner does: nothing else happens to the lease any more. */
  kill(): void {
    const state = this.#state;
    this.#state = { type: "over" };
    if (state.type === "executing" || state.type === "abandoned") state.execution.stop(0, "runner-shutdown");
  }

  #carryOut(effect: LeaseEffect): void {
    const { state, reports: sender, events } = this.#deps;
    switch (effect.type) {
      case "send-accept":
        return this.#accept();
      case "refuse":
        return this.#owner.refuse(this, this.storeId, effect);
      case "record-spawn":
        return this.#whenWritten(state.recordSpawning(this.leaseId));
      case "spawn":
        return this.#spawn(effect.offer);
      case "kill":
        return effect.execution.stop(effect.graceMs, effect.reason);
      case "drop-reports":
        sender.drop(this.leaseId);
        return events.drop(this.leaseId);
      case "send-not-started": {
        const report = reports.notStartedReport(this, this.#nextSeq(), effect);
        return this.#send(report, () => this.apply({ type: "answered" }));
      }
      case "report": {
        const missing = events.missing(this.leaseId);
        return void this.#report(reports.finalReport(this, this.#nextSeq(), effect.outcome, missing));
      }
      case "report-stopped":
        return void this.#report(reports.stoppedReport(this, this.#nextSeq()));
      case "hurry-report":
        // A lease of which nothing is left to send has nothing to wait for either.
        return sender.hurry(this.leaseId) ? undefined : this.apply({ type: "answered" });
      case "forget":
        return this.#forget();
      default:
        return effect satisfies never;
    }
  }

  #nextSeq(): bigint {
    this.#numbering = numbered(this.#numbering);
    return this.#numbering.seq;
  }

  #send(report: Report, onVerdict: (verdict: ReportVerdict) => void, bytes = reports.smallReportBytes(report)): void {
    const onAnswer = (verdict: ReportVerdict): void => {
      const numbering = this.#state.type === "over" ? undefined : renumbered(this.#numbering, report, verdict);
      if (numbering === undefined) return onVerdict(verdict);
      this.#numbering = numbering;
      const { seq } = numbering;
      this.log.warn({ seq: Number(seq), reason: verdict.message }, "a report is sent with another number");
      return this.#send({ ...report, seq }, onVerdict, bytes);
    };
    this.#deps.reports.send({ report, storeId: this.storeId, bytes, onVerdict: onAnswer });
  }

  #whenWritten(written: Promise<void>): void {
    written.then(
      () => this.apply({ type: "recorded" }),
      (error: unknown) => this.apply({ type: "unrecorded", reason: String(error), about: "runner" }),
    );
  }

  #accept(): void {
    const { timing } = this.#deps;
    const silence = setTimeout(() => {
      if (this.#state.type !== "accepting") return;
      this.log.warn("the accept was not answered; nothing is started");
      this.apply({ type: "silent" });
    }, timing().leaseTtlMs).unref();
    this.#send(reports.acceptReport(this), ({ kind, message }) => {
      clearTimeout(silence);
      if (kind === ReportVerdict_Kind.OK) return this.apply({ type: "accepted" });
      this.log.info({ reason: message }, "the offer is over");
      return this.apply({ type: "refused" });
    });
    this.#numbering = ACCEPT_NUMBERED;
  }

  #spawn(offer: RunOffer): void {
    const { execute, state, timing, projectDir } = this.#deps;
    const { invocation } = offer;
    const sessionId = this.sessionId;
    const session: ExecutorSession = { id: invocation?.executorSessionId ?? "", reports: 0 };
    const hooks = {
      onStarted: (pid: number) => {
        this.#owner.started();
        state.noteRunning(this.leaseId, pid);
        this.log.info({ pid }, startedText(invocation));
        this.#send(reports.startedReport(this, this.#nextSeq(), pid), (verdict) => this.#onInterimVerdict(verdict));
      },
      onEvent: (event: ExecutorEvent) =>
        oneItem(this.log, "an event of the executor", this, () => this.#onEvent(event, session)),
      room: () => this.#deps.events.room(this.leaseId),
    };
    const begin = () => {
      const stopGraceMs = timing().stopGraceMs;
      const { bootId } = state;
      const assignment = {
        offer,
        storeId: this.storeId,
        projectDir: invocation?.projectDir || projectDir,
        bootId,
        stopGraceMs,
      };
      return execute(assignment, hooks);
    };
    const onWait = () => this.log.warn("ending an earlier executor of the session");
    const execution = this.#owner.executions.start(sessionId, begin, onWait);
    this.apply({ type: "spawned", execution });
    void execution.done.then((outcome) => this.#onEnd({ ...outcome, executorSessionId: session.id }));
  }

  #onEnd(outcome: ExecutorOutcome): void {
    if (outcome.kind !== Report_Kind.NOT_STARTED) return this.apply({ type: "ended", outcome });
    const reason = outcome.message;
    // First, so that the slot which becomes free is not taken for one.
    this.#owner.short(this, reason);
    return this.apply({ type: "not-started", reason });
  }

  #onEvent(event: ExecutorEvent, session: ExecutorSession): void {
    if (this.#state.type !== "executing") return;
    this.#deps.events.append(this, event);
    if (event.event.case !== "session") return;
    const { executorSessionId } = event.event.value;
    if (executorSessionId === session.id) return;
    session.id = executorSessionId;
    session.reports += 1;
    if (session.reports <= MAX_SESSION_REPORTS) void this.#reportSession(executorSessionId);
  }

  async #reportSession(executorSessionId: string): Promise<void> {
    const report = reports.progressReport(this, this.#nextSeq(), executorSessionId);
    await this.#keep(report);
    if (this.#state.type !== "executing") return;
    this.#send(report, (verdict) => {
      this.#deps.outbox.remove(this.leaseId, report.seq);
      this.#onInterimVerdict(verdict);
    });
  }

  async #report(report: Report): Promise<void> {
    const { events, onOutcome } = this.#deps;
    onOutcome(report);
    const outcome = Report_KindSchema.value[report.kind]?.localName;
    const reason = report.message === "" ? {} : { reason: report.message };
    this.log.info({ ...reason, outcome }, "The run has ended");
    const bytes = await this.#keep(report);
    report.eventsMissing = BigInt(await events.finish(this.leaseId, EVENTS_WAIT_MS));
    if (this.#state.type !== "finishing") return;
    this.sendFinal(report, bytes);
    this.apply({ type: "queued" });
  }

  /** Sends the final report, which is in the outbox if it could be written, until it is answered. */
  sendFinal(report: Report, bytes: number): void {
    this.#send(report, (verdict) => this.#onFinalVerdict(verdict), bytes);
  }

  #onFinalVerdict({ kind, message }: ReportVerdict): void {
    if (kind !== ReportVerdict_Kind.OK) {
      const verdict = ReportVerdict_KindSchema.value[kind]?.localName;
      this.log.warn({ verdict, reason: message }, "the final report did not count");
    }
    this.apply({ type: "answered" });
  }

  /** Puts a report into the outbox and returns its size; when that fails it goes from memory. */
  async #keep(report: Report): Promise<number> {
    try {
      return await this.#deps.outbox.put(this.storeId, report);
    } catch (error) {
      const reason = String(error);
      this.log.warn({ reason }, "report not on disk; it is sent from memory, and lost when the runner is");
      return reports.smallReportBytes(report) + 3 * (report.result?.text.length ?? 0);
    }
  }

  #onInterimVerdict({ kind, message }: ReportVerdict): void {
    if (kind === ReportVerdict_Kind.OK) return;
    if (kind === ReportVerdict_Kind.STALE || kind === ReportVerdict_Kind.UNKNOWN) {
      this.log.warn({ reason: message }, "the lease is over");
      return this.revoke(kind === ReportVerdict_Kind.STALE);
    }
    this.log.error({ reason: message }, "the coordinator refused a report");
  }

  #forget(): void {
    const { state, outbox } = this.#deps;
    state.forgetLease(this.leaseId);
    outbox.removeLease(this.leaseId);
  }
}

/** What a person reads when an executor has been started. */
function startedText(invocation: ExecutorInvocation | undefined): string {
  const agent = invocation?.agentBlueprint?.name ?? "";
  const session = invocation?.sessionName || (invocation?.sessionId ?? "");
  return `Starting session ${session}${agent === "" ? "" : ` with agent ${agent}`}`;
}
