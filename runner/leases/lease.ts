import {
  ReportVerdict_Kind,
  ReportVerdict_KindSchema,
  Report_KindSchema,
} from "../../gen/agentrunner/v1/runner_service_pb.ts";
import type { Report, ReportVerdict, Report_Kind, RunOffer } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import type { ExecutorEvent } from "../../gen/agentrunner/v1/executor_pb.ts";
import type { Log } from "../../lib/log.ts";
import type { Timing } from "../connection/timing.ts";
import type { EventSender } from "../reports/event-sender.ts";
import type { Execute } from "../execution/execute.ts";
import { nextLease } from "./lease-life.ts";
import type { LeaseEffect, LeaseEvent, LeaseState } from "./lease-life.ts";
import type { Outbox } from "../reports/outbox.ts";
import { notStartedOutcome } from "../execution/outcome-not-started.ts";
import type { ReportSender } from "../reports/report-sender.ts";
import * as reports from "../reports/reports.ts";
import type { StateDir } from "./state-dir.ts";
import type { Execution, ExecutorOutcome, StopReason } from "../execution/supervisor.ts";

/** How long a final report waits for the events before it; then it goes with their number as missing (design §4.1). */
const EVENTS_WAIT_MS = 30_000;

/** Executor session ids that one run may announce while it runs; the final report carries the last in any case. */
const MAX_SESSION_REPORTS = 16;

/** What the leases of a runner share. */
export interface LeaseContext {
  /** Directory of runs that name none. */
  readonly projectDir: string;
  readonly state: StateDir;
  readonly outbox: Outbox;
  readonly reports: ReportSender;
  readonly events: EventSender;
  readonly execute: Execute;
  readonly timing: () => Timing;
  readonly log: Log;
  /** The execution of each session that has one. */
  readonly sessions: Map<string, Execution>;
  /** The lease went from one state to another. */
  readonly onMoved: (lease: RunLease, before: LeaseState, after: LeaseState) => void;
  /** Nothing was accepted; say so. */
  readonly onRefused: (lease: RunLease, reason: string) => void;
  /** What the run came to is known; its report is not answered yet. */
  readonly onOutcome: (kind: Report_Kind) => void;
}

/** One lease: carries out what lease.ts decides. */
export class RunLease implements reports.LeaseRef {
  readonly runId: string;
  readonly leaseId: string;
  readonly attempt: number;
  /** Store of the coordinator that made the offer. */
  readonly storeId: string;
  readonly #context: LeaseContext;
  #state: LeaseState;
  /** Absent for a lease of the process before this one, and once the executor has it. */
  #offer: RunOffer | undefined;
  #seq = 0n;
  #silence: NodeJS.Timeout | undefined;
  #execution: Execution | undefined;
  /** Reason of a kill that came before the execution. */
  #killed: StopReason | undefined;
  #outcome: ExecutorOutcome | undefined;
  #executorSessionId: string;
  #sessionReports = 0;

  constructor(context: LeaseContext, ref: reports.LeaseRef, storeId: string, state: LeaseState, offer?: RunOffer) {
    this.runId = ref.runId;
    this.leaseId = ref.leaseId;
    this.attempt = ref.attempt;
    this.storeId = storeId;
    this.#context = context;
    this.#state = state;
    this.#offer = offer;
    this.#executorSessionId = offer?.invocation?.executorSessionId ?? "";
  }

  get state(): LeaseState {
    return this.#state;
  }

  /** Begins the life of an offer that is to be accepted: the accept is sent once ACCEPTING is on disk. */
  take(): void {
    this.#whenWritten(this.#context.state.recordAccepting(this));
  }

  /** Gives back what the process before this one had accepted without spawning. */
  giveBack(): void {
    this.#seq = reports.FIRST_SEQ;
    this.apply({ type: "silent" });
  }

  apply(event: LeaseEvent): void {
    const before = this.#state;
    const { state, effects } = nextLease(before, event);
    this.#state = state;
    for (const effect of effects) this.#carryOut(effect);
    if (state !== before) this.#context.onMoved(this, before, state);
  }

  /** The lease is over; `known` says whether the coordinator knows the run. */
  revoke(known: boolean): void {
    this.apply({ type: "revoked", known, graceMs: this.#context.timing().stopGraceMs });
  }

  /** Ends the executor at once. Nothing is reported any more. */
  kill(): void {
    clearTimeout(this.#silence);
    this.#execution?.stop(0, "runner-shutdown");
  }

  #carryOut(effect: LeaseEffect): void {
    const { state, reports: sender, events, onRefused } = this.#context;
    switch (effect.type) {
      case "send-accept":
        return this.#accept();
      case "refuse":
        return onRefused(this, effect.reason);
      case "record-spawn":
        return this.#whenWritten(state.recordSpawning(this.leaseId));
      case "spawn":
        return this.#spawn();
      case "kill":
        this.#killed = effect.reason;
        return this.#execution?.stop(effect.graceMs, effect.reason);
      case "drop-reports":
        sender.drop(this.leaseId);
        return events.drop(this.leaseId);
      case "send-not-started": {
        const report = reports.notStartedReport(this, this.#nextSeq(), "accepted, but nothing was started");
        return this.#send(report, () => this.apply({ type: "answered" }));
      }
      case "report":
        return void this.#report();
      case "forget":
        return this.#forget();
      default:
        return effect satisfies never;
    }
  }

  #nextSeq(): bigint {
    this.#seq += 1n;
    return this.#seq;
  }

  #send(report: Report, onVerdict: (verdict: ReportVerdict) => void): void {
    this.#context.reports.send({ report, storeId: this.storeId, bytes: reports.smallReportBytes(report), onVerdict });
  }

  #whenWritten(written: Promise<void>): void {
    written.then(
      () => this.apply({ type: "recorded" }),
      (error: unknown) => this.apply({ type: "unrecorded", reason: String(error) }),
    );
  }

  #accept(): void {
    const { log, timing } = this.#context;
    this.#silence = setTimeout(() => {
      log.warn({ run_id: this.runId }, "the accept was not answered; nothing is started");
      this.apply({ type: "silent" });
    }, timing().leaseTtlMs);
    this.#send(reports.acceptReport(this), ({ kind, message }) => {
      clearTimeout(this.#silence);
      if (kind === ReportVerdict_Kind.OK) return this.apply({ type: "accepted" });
      log.info({ run_id: this.runId, reason: message }, "the offer is over");
      return this.apply({ type: "refused" });
    });
    this.#seq = reports.FIRST_SEQ;
  }

  #spawn(): void {
    const { sessions, log } = this.#context;
    const sessionId = this.#offer?.invocation?.sessionId ?? "";
    const earlier = sessions.get(sessionId);
    if (earlier === undefined) return this.#execute(sessionId);
    // Two executors of one session would write the same files (design §4.3).
    log.warn({ run_id: this.runId, session_id: sessionId }, "ending an earlier executor of the session");
    earlier.stop(0);
    return void earlier.done.then(() => this.#spawn());
  }

  #execute(sessionId: string): void {
    const { execute, sessions, state, timing, projectDir, log } = this.#context;
    const offer = this.#offer;
    if (offer === undefined || this.#killed !== undefined) return this.#end(notStartedOutcome(this.#killed));
    this.#offer = undefined;
    const assignment = {
      offer,
      projectDir: offer.invocation?.projectDir || projectDir,
      bootId: state.bootId,
      stopGraceMs: timing().stopGraceMs,
    };
    const execution = execute(assignment, {
      onStarted: (pid) => {
        state.noteRunning(this.leaseId, pid);
        log.debug({ run_id: this.runId, pid }, "executor started");
        this.#send(reports.startedReport(this, this.#nextSeq(), pid), (verdict) => this.#onInterimVerdict(verdict));
      },
      onEvent: (event) => this.#onEvent(event),
    });
    this.#execution = execution;
    sessions.set(sessionId, execution);
    void this.#await(execution, sessionId);
  }

  async #await(execution: Execution, sessionId: string): Promise<void> {
    const { sessions } = this.#context;
    const outcome = await execution.done;
    if (sessions.get(sessionId) === execution) sessions.delete(sessionId);
    this.#end(outcome);
  }

  #end(outcome: ExecutorOutcome): void {
    this.#outcome = outcome;
    this.apply({ type: "ended" });
  }

  #onEvent(event: ExecutorEvent): void {
    if (this.#state.type !== "executing") return;
    this.#context.events.append(this, event);
    if (event.event.case !== "session") return;
    const { executorSessionId } = event.event.value;
    if (executorSessionId === this.#executorSessionId) return;
    this.#executorSessionId = executorSessionId;
    this.#sessionReports += 1;
    if (this.#sessionReports <= MAX_SESSION_REPORTS) void this.#reportSession();
  }

  async #reportSession(): Promise<void> {
    const report = reports.progressReport(this, this.#nextSeq(), this.#executorSessionId);
    await this.#keep(report);
    if (this.#state.type !== "executing") return;
    this.#send(report, (verdict) => {
      this.#context.outbox.remove(this.leaseId, report.seq);
      this.#onInterimVerdict(verdict);
    });
  }

  async #report(): Promise<void> {
    const { events, log, onOutcome, reports: sender } = this.#context;
    const seq = this.#nextSeq();
    const report =
      this.#outcome === undefined
        ? reports.stoppedReport(this, seq)
        : reports.finalReport(this, seq, this.#outcome, this.#executorSessionId, events.missing(this.leaseId));
    onOutcome(report.kind);
    const outcome = Report_KindSchema.value[report.kind]?.localName;
    log.info({ run_id: this.runId, outcome, reason: report.message }, `Run ${this.runId} ended: ${outcome}`);
    const bytes = await this.#keep(report);
    report.eventsMissing = BigInt(await events.finish(this.leaseId, EVENTS_WAIT_MS));
    if (this.#state.type !== "reporting") return;
    sender.send({ report, storeId: this.storeId, bytes, onVerdict: (verdict) => this.onFinalVerdict(verdict) });
  }

  /** The final report was answered. */
  onFinalVerdict({ kind, message }: ReportVerdict): void {
    if (kind !== ReportVerdict_Kind.OK) {
      const verdict = ReportVerdict_KindSchema.value[kind]?.localName;
      this.#context.log.warn({ run_id: this.runId, verdict, reason: message }, "the final report did not count");
    }
    this.apply({ type: "answered" });
  }

  /** Puts a report into the outbox and answers its size; when that fails it goes from memory. */
  async #keep(report: Report): Promise<number> {
    try {
      return await this.#context.outbox.put(this.storeId, report);
    } catch (error) {
      const fields = { run_id: this.runId, reason: String(error) };
      this.#context.log.warn(fields, "report not on disk; it is sent from memory, and lost when the runner is");
      return reports.smallReportBytes(report) + 3 * (report.result?.text.length ?? 0);
    }
  }

  #onInterimVerdict({ kind, message }: ReportVerdict): void {
    const { log } = this.#context;
    if (kind === ReportVerdict_Kind.OK) return;
    if (kind === ReportVerdict_Kind.STALE || kind === ReportVerdict_Kind.UNKNOWN) {
      log.warn({ run_id: this.runId, reason: message }, "the lease is over");
      return this.revoke(kind === ReportVerdict_Kind.STALE);
    }
    log.error({ run_id: this.runId, reason: message }, "the coordinator refused a report");
  }

  #forget(): void {
    const { state, outbox } = this.#context;
    clearTimeout(this.#silence);
    state.forgetLease(this.leaseId);
    outbox.removeLease(this.leaseId);
  }
}
