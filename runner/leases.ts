import { statSync } from "node:fs";
import { create } from "@bufbuild/protobuf";
import type { ExecutorEvent } from "../gen/agentrunner/v1/executor_pb.ts";
import { FailureReason } from "../gen/agentrunner/v1/run_pb.ts";
import { HeldLeaseSchema, HeldLease_Phase, LeaseVerdict_Kind } from "../gen/agentrunner/v1/runner_pb.ts";
import type { HeldLease, LeaseVerdict, StopDirective } from "../gen/agentrunner/v1/runner_pb.ts";
import { ReportVerdict_Kind, Report_Kind } from "../gen/agentrunner/v1/runner_service_pb.ts";
import type { Report, ReportVerdict, RunOffer } from "../gen/agentrunner/v1/runner_service_pb.ts";
import type { Log } from "../lib/log.ts";
import { msOf } from "./coordinator-config.ts";
import type { Timing } from "./coordinator-config.ts";
import type { EventSender } from "./event-sender.ts";
import type { Execute } from "./execute.ts";
import { HEARD, nextLease } from "./lease.ts";
import type { LeaseEffect, LeaseEvent, LeaseState } from "./lease.ts";
import type { Outbox, OutboxEntry } from "./outbox.ts";
import { outcomeOf } from "./outcome.ts";
import type { ReportSender } from "./report-sender.ts";
import * as reports from "./reports.ts";
import type { StateDir } from "./state-dir.ts";
import type { Execution, ExecutorOutcome, StopReason } from "./supervisor.ts";

/** How long a final report waits for the events before it; then it goes with their number as missing (design §4.1). */
const EVENTS_WAIT_MS = 30_000;

/** Executor session ids that one run may announce while it runs; the final report carries the last in any case. */
const MAX_SESSION_REPORTS = 16;

/** Most leases that `held` may list. */
const MAX_HELD = 2_000;

export interface LeasesOptions {
  readonly projectDir: string;
  readonly maxRuns: number;
  readonly state: StateDir;
  readonly outbox: Outbox;
  readonly execute: Execute;
  readonly timing: () => Timing;
  /** Store that answers; undefined before Register is answered. */
  readonly storeId: () => string | undefined;
  readonly log: Log;
  /** The executor of a run has ended; its report is not answered yet. */
  readonly onOutcome: (kind: Report_Kind) => void;
  /** A lease is over. */
  readonly onOver: () => void;
}

/** A lease and what the shell keeps beside its state. */
interface Lease {
  readonly runId: string;
  readonly leaseId: string;
  readonly attempt: number;
  readonly storeId: string;
  readonly sessionId: string;
  /** Absent for a lease of the process before this one. */
  offer: RunOffer | undefined;
  state: LeaseState;
  /** seq of the last report. */
  seq: bigint;
  silence: NodeJS.Timeout | undefined;
  execution: Execution | undefined;
  /** A kill that came while the spawn still waited for an earlier tree of the session. */
  killed: StopReason | undefined;
  outcome: ExecutorOutcome | undefined;
  executorSessionId: string;
  sessionReports: number;
}

const BUSY: ReadonlySet<LeaseState["t"]> = new Set(["recording", "accepting", "claimed", "executing", "abandoned"]);

/** The leases of a runner: carries out what lease.ts decides. The only place that starts or stops a run. */
export class Leases {
  /** Why no offer is taken any more; undefined while offers are taken. */
  closedBecause: string | undefined;
  readonly #options: LeasesOptions;
  readonly #log: Log;
  readonly #reports: ReportSender;
  readonly #events: EventSender;
  readonly #leases = new Map<string, Lease>();
  /** Offers that were refused and whose refusal is not answered. */
  readonly #refused = new Set<string>();
  /** The last execution of each session that has one. */
  readonly #sessions = new Map<string, Execution>();
  #busy = 0;

  constructor(options: LeasesOptions, reports: ReportSender, events: EventSender) {
    this.#options = options;
    this.#log = options.log;
    this.#reports = reports;
    this.#events = events;
  }

  /** Leases that use a slot. */
  get busy(): number {
    return this.#busy;
  }

  /** Leases that this coordinator still waits for. */
  get open(): number {
    let open = 0;
    for (const lease of this.#leases.values()) if (this.#isHere(lease)) open += 1;
    return open;
  }

  get freeSlots(): number {
    if (this.closedBecause !== undefined || this.#options.state.trouble !== undefined) return 0;
    return Math.max(0, this.#options.maxRuns - this.#busy);
  }

  /** Leases from the moment the accept is sent until the final report is answered. */
  held(): HeldLease[] {
    const held: HeldLease[] = [];
    for (const { runId, leaseId, attempt, ...lease } of this.#leases.values()) {
      const phase = phaseOf(lease.state);
      if (phase === undefined || !this.#isHere(lease) || held.length === MAX_HELD) continue;
      held.push(create(HeldLeaseSchema, { runId, leaseId, attempt, phase }));
    }
    return held;
  }

  /**
   * Takes over from the process before this one: its final reports are sent again, and what it had accepted without
   * spawning is NOT_STARTED. What it had spawned is dead; the coordinator learns it by its absence from `held`.
   */
  inherit(entries: readonly OutboxEntry[]): void {
    const { state } = this.#options;
    for (const entry of entries) {
      const { report } = entry;
      if (entry.final) this.#add(report, entry.storeId, { t: "reporting" });
      this.#reports.send({ ...entry, onVerdict: (verdict) => this.#onOutboxVerdict(report, entry.final, verdict) });
    }
    for (const record of state.inherited) {
      if (this.#leases.has(record.leaseId)) continue;
      if (record.phase !== "ACCEPTING") {
        state.forgetLease(record.leaseId);
        continue;
      }
      const lease = this.#add(record, record.storeId, { t: "accepting", instead: "declined" });
      lease.seq = reports.FIRST_SEQ;
      this.#apply(lease, { t: "silent" });
    }
  }

  /** Another store answers than before: what it cannot know is given up, but for final reports, which wait in the outbox. */
  storeChanged(): void {
    for (const lease of this.#leases.values()) {
      if (this.#isHere(lease) || lease.state.t === "reporting") continue;
      this.#log.warn(
        { run_id: lease.runId },
        "the coordinator has another store and does not know the run; it is ended",
      );
      this.#revoke(lease);
    }
  }

  offered(offer: RunOffer): void {
    const { leaseId, runId } = offer;
    // Offers are sent again on a new stream; the accept is being repeated anyway.
    if (this.#leases.has(leaseId) || this.#refused.has(leaseId)) return;
    const storeId = this.#options.storeId() ?? "";
    const reason = this.#refusal(offer);
    if (reason !== undefined) {
      this.#refuse({ ...offer, storeId }, reason);
      return;
    }
    const mode = offer.invocation?.mode === "resume" ? "resume_session" : "start_session";
    this.#log.info({ run_id: runId, lease_id: leaseId, attempt: offer.attempt }, `Received run ${runId} (${mode})`);
    const lease = this.#add(offer, storeId, HEARD, offer);
    this.#record(lease, this.#options.state.recordAccepting({ ...lease }));
  }

  stopped({ leaseId, grace, reason }: StopDirective): void {
    const lease = this.#leases.get(leaseId);
    if (lease === undefined) return;
    this.#log.debug({ run_id: lease.runId, reason }, "told to stop the run");
    const graceMs = grace === undefined ? this.#options.timing().stopGraceMs : msOf(grace);
    this.#apply(lease, { t: "stop", graceMs });
  }

  verdicts(verdicts: readonly LeaseVerdict[]): void {
    for (const { leaseId, kind, reason } of verdicts) {
      const lease = this.#leases.get(leaseId);
      // A store says nothing about another store's leases.
      if (lease === undefined || !this.#isHere(lease)) continue;
      const graceMs = this.#options.timing().stopGraceMs;
      if (kind === LeaseVerdict_Kind.STOP) this.#apply(lease, { t: "stop", graceMs });
      if (kind === LeaseVerdict_Kind.UNKNOWN) {
        this.#log.warn({ run_id: lease.runId, reason }, "the coordinator does not know the run; it is ended");
        this.#revoke(lease);
      }
    }
  }

  /** The lease was answered STALE or UNKNOWN. */
  over(leaseId: string): void {
    const lease = this.#leases.get(leaseId);
    if (lease !== undefined) this.#revoke(lease);
  }

  /** The runner ends: what was not spawned is given back, what runs is stopped. */
  withdraw(graceMs: number = this.#options.timing().stopGraceMs): void {
    for (const lease of this.#leases.values()) this.#apply(lease, { t: "withdraw", graceMs });
  }

  /** Ends every executor at once, and reports nothing. */
  kill(): void {
    for (const { execution, silence } of this.#leases.values()) {
      clearTimeout(silence);
      execution?.stop(0, "runner-shutdown");
    }
  }

  #isHere({ storeId }: Pick<Lease, "storeId">): boolean {
    const current = this.#options.storeId();
    return current === undefined || storeId === current;
  }

  #add(ref: reports.LeaseRef, storeId: string, state: LeaseState, offer?: RunOffer): Lease {
    const { runId, leaseId, attempt } = ref;
    const lease: Lease = {
      runId,
      leaseId,
      attempt,
      storeId,
      sessionId: offer?.invocation?.sessionId ?? "",
      offer,
      state,
      seq: 0n,
      silence: undefined,
      execution: undefined,
      killed: undefined,
      outcome: undefined,
      executorSessionId: offer?.invocation?.executorSessionId ?? "",
      sessionReports: 0,
    };
    this.#leases.set(leaseId, lease);
    if (BUSY.has(state.t)) this.#busy += 1;
    return lease;
  }

  #refusal(offer: RunOffer): string | undefined {
    const { state, maxRuns } = this.#options;
    if (this.closedBecause !== undefined) return this.closedBecause;
    if (state.trouble !== undefined) return `the state directory of the runner cannot be written: ${state.trouble}`;
    if (this.#busy >= maxRuns) return `the runner is full, ${this.#busy}/${maxRuns}`;
    const projectDir = offer.invocation?.projectDir || this.#options.projectDir;
    if (statSync(projectDir, { throwIfNoEntry: false })?.isDirectory()) return undefined;
    return `project_dir ${projectDir} is not a directory on this runner's host`;
  }

  #refuse(ref: reports.LeaseRef & { storeId: string }, reason: string): void {
    this.#log.info({ run_id: ref.runId, reason }, "offer refused");
    this.#refused.add(ref.leaseId);
    this.#send(ref.storeId, reports.refuseReport(ref, reason), () => this.#refused.delete(ref.leaseId));
  }

  #send(storeId: string, report: Report, onVerdict: (verdict: ReportVerdict) => void): void {
    this.#reports.send({ report, storeId, bytes: reports.smallReportBytes(report), onVerdict });
  }

  #apply(lease: Lease, event: LeaseEvent): void {
    const before = lease.state;
    const { state, effects } = nextLease(before, event);
    lease.state = state;
    if (BUSY.has(before.t) && !BUSY.has(state.t)) this.#busy -= 1;
    for (const effect of effects) this.#carryOut(lease, effect);
  }

  #revoke(lease: Lease): void {
    this.#apply(lease, { t: "revoked", graceMs: this.#options.timing().stopGraceMs });
  }

  #carryOut(lease: Lease, effect: LeaseEffect): void {
    switch (effect.t) {
      case "send-accept":
        return this.#accept(lease);
      case "refuse":
        return this.#refuse(lease, effect.reason);
      case "record-spawn":
        return this.#record(lease, this.#options.state.recordSpawning(lease.leaseId));
      case "spawn":
        return this.#spawn(lease);
      case "kill":
        lease.killed = effect.reason;
        return lease.execution?.stop(effect.graceMs, effect.reason);
      case "drop-reports":
        this.#reports.drop(lease.leaseId);
        return this.#events.drop(lease.leaseId);
      case "send-not-started":
        return this.#send(
          lease.storeId,
          reports.notStartedReport(lease, this.#nextSeq(lease), "accepted, but nothing was started"),
          () => this.#apply(lease, { t: "answered" }),
        );
      case "report":
        return void this.#report(lease);
      case "forget":
        return this.#forget(lease);
      default:
        return effect satisfies never;
    }
  }

  #nextSeq(lease: Lease): bigint {
    lease.seq += 1n;
    return lease.seq;
  }

  #record(lease: Lease, written: Promise<void>): void {
    written.then(
      () => this.#apply(lease, { t: "recorded" }),
      (error: unknown) => this.#apply(lease, { t: "unrecorded", reason: String(error) }),
    );
  }

  #accept(lease: Lease): void {
    lease.seq = reports.FIRST_SEQ;
    lease.silence = setTimeout(() => {
      this.#log.warn({ run_id: lease.runId }, "the accept was not answered; nothing is started");
      this.#apply(lease, { t: "silent" });
    }, this.#options.timing().leaseTtlMs);
    this.#send(lease.storeId, reports.acceptReport(lease), ({ kind, message }) => {
      clearTimeout(lease.silence);
      if (kind === ReportVerdict_Kind.OK) return this.#apply(lease, { t: "accepted" });
      this.#log.info({ run_id: lease.runId, reason: message }, "the offer is over");
      return this.#apply(lease, { t: "refused" });
    });
  }

  #spawn(lease: Lease): void {
    const earlier = this.#sessions.get(lease.sessionId);
    if (earlier === undefined) return this.#execute(lease);
    // Two executors of one session would write the same files (design §4.3).
    this.#log.warn({ run_id: lease.runId, session_id: lease.sessionId }, "ending an earlier executor of the session");
    earlier.stop(0);
    return void earlier.done.then(() => this.#spawn(lease));
  }

  #execute(lease: Lease): void {
    const { offer, sessionId } = lease;
    if (offer === undefined || lease.killed !== undefined) return this.#end(lease, notSpawned(lease.killed));
    lease.offer = undefined;
    const { execute, state, timing, projectDir } = this.#options;
    const assignment = {
      offer,
      projectDir: offer.invocation?.projectDir || projectDir,
      bootId: state.bootId,
      stopGraceMs: timing().stopGraceMs,
    };
    const execution = execute(assignment, {
      onStarted: (pid) => {
        state.noteRunning(lease.leaseId, pid);
        this.#log.debug({ run_id: lease.runId, pid }, "executor started");
        this.#send(lease.storeId, reports.startedReport(lease, this.#nextSeq(lease), pid), (verdict) =>
          this.#onInterimVerdict(lease, verdict),
        );
      },
      onEvent: (event) => this.#onEvent(lease, event),
    });
    lease.execution = execution;
    this.#sessions.set(sessionId, execution);
    void execution.done.then((outcome) => {
      if (this.#sessions.get(sessionId) === execution) this.#sessions.delete(sessionId);
      this.#end(lease, outcome);
    });
  }

  #end(lease: Lease, outcome: ExecutorOutcome): void {
    lease.outcome = outcome;
    this.#apply(lease, { t: "ended" });
  }

  #onEvent(lease: Lease, event: ExecutorEvent): void {
    if (lease.state.t !== "executing") return;
    this.#events.append(lease, event);
    if (event.event.case !== "session") return;
    const { executorSessionId } = event.event.value;
    if (executorSessionId === lease.executorSessionId) return;
    lease.executorSessionId = executorSessionId;
    lease.sessionReports += 1;
    if (lease.sessionReports <= MAX_SESSION_REPORTS) void this.#reportSession(lease);
  }

  async #reportSession(lease: Lease): Promise<void> {
    const report = reports.progressReport(lease, this.#nextSeq(lease), lease.executorSessionId);
    await this.#keep(lease, report);
    if (lease.state.t !== "executing") return;
    this.#send(lease.storeId, report, (verdict) => {
      this.#options.outbox.remove(lease.leaseId, report.seq);
      this.#onInterimVerdict(lease, verdict);
    });
  }

  async #report(lease: Lease): Promise<void> {
    const { outcome, leaseId } = lease;
    const seq = this.#nextSeq(lease);
    const report =
      outcome === undefined
        ? reports.stoppedReport(lease, seq)
        : reports.finalReport(lease, seq, outcome, lease.executorSessionId, this.#events.missing(leaseId));
    this.#options.onOutcome(report.kind);
    const bytes = await this.#keep(lease, report);
    const missing = await this.#events.finish(leaseId, EVENTS_WAIT_MS);
    if (lease.state.t !== "reporting") return;
    report.eventsMissing = BigInt(missing);
    this.#log.info(
      { run_id: lease.runId, outcome: Report_Kind[report.kind] ?? report.kind, reason: report.message },
      `Run ${lease.runId} ended`,
    );
    this.#reports.send({
      report,
      storeId: lease.storeId,
      bytes,
      onVerdict: (verdict) => this.#onOutboxVerdict(report, true, verdict),
    });
  }

  /** Puts a report into the outbox and answers its size; when that fails it will go from memory. */
  async #keep(lease: Lease, report: Report): Promise<number> {
    try {
      const { bytes } = await this.#options.outbox.put(lease.storeId, report);
      return bytes;
    } catch (error) {
      const { runId: run_id } = lease;
      this.#log.warn(
        { run_id, reason: String(error) },
        "report not on disk; it is sent from memory and lost in a crash",
      );
      return reports.smallReportBytes(report) + 3 * (report.result?.text.length ?? 0);
    }
  }

  #onInterimVerdict(lease: Lease, { kind, message }: ReportVerdict): void {
    if (kind === ReportVerdict_Kind.STALE || kind === ReportVerdict_Kind.UNKNOWN) {
      this.#log.warn({ run_id: lease.runId, reason: message }, "the lease is over; its executor is ended");
      this.#revoke(lease);
    } else if (kind !== ReportVerdict_Kind.OK) {
      this.#log.error({ run_id: lease.runId, reason: message }, "report refused");
    }
  }

  #onOutboxVerdict({ runId, leaseId, seq }: Report, final: boolean, { kind, message }: ReportVerdict): void {
    if (kind !== ReportVerdict_Kind.OK) {
      this.#log.warn({ run_id: runId, reason: message, verdict: kind }, "a report came too late or was refused");
    }
    const lease = this.#leases.get(leaseId);
    if (final && lease !== undefined) this.#apply(lease, { t: "answered" });
    else this.#options.outbox.remove(leaseId, seq);
  }

  #forget(lease: Lease): void {
    clearTimeout(lease.silence);
    this.#leases.delete(lease.leaseId);
    this.#options.state.forgetLease(lease.leaseId);
    this.#options.outbox.removeLease(lease.leaseId);
    this.#options.onOver();
  }
}

function phaseOf(state: LeaseState): HeldLease_Phase | undefined {
  switch (state.t) {
    case "accepting":
    case "declining":
      return HeldLease_Phase.ACCEPTING;
    case "claimed":
    case "executing":
      return HeldLease_Phase.RUNNING;
    case "reporting":
      return HeldLease_Phase.FINAL;
    case "recording":
    case "abandoned":
    case "over":
      return undefined;
    default:
      return state satisfies never;
  }
}

/** The outcome of a run that was stopped while its spawn still waited. */
function notSpawned(killed: StopReason | undefined): ExecutorOutcome {
  const message = "stopped before the executor was started";
  return {
    ...outcomeOf({ end: { t: "not-spawned", message }, outputTruncated: false, stderrTail: "" }),
    kind: Report_Kind.STOPPED,
    failure: killed === "runner-shutdown" ? FailureReason.RUNNER_SHUTDOWN : FailureReason.UNSPECIFIED,
    result: undefined,
    executorSessionId: "",
    outputBytes: 0,
    malformedEvents: 0,
    malformedReason: "",
  };
}
