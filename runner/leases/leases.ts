import { create } from "@bufbuild/protobuf";
import { HeldLeaseSchema, HeldLease_Phase, LeaseVerdict_Kind } from "../../gen/agentrunner/v1/runner_pb.ts";
import type { HeldLease, LeaseVerdict, StopDirective } from "../../gen/agentrunner/v1/runner_pb.ts";
import type { RunOffer } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import type { ConnectionListener } from "../connection/connection-listener.ts";
import { msOf } from "../connection/timing.ts";
import { oneItem } from "../one-item.ts";
import { directoryProblem, shownPath } from "../settings/directory.ts";
import { SessionExecutions } from "../execution/session-executions.ts";
import { refuseReport, smallReportBytes } from "../reports/reports.ts";
import type { LeaseRef, Refused } from "../reports/reports.ts";
import type { LeaseState } from "./lease-life.ts";
import { RunLease } from "./lease.ts";
import type { LeaseDeps, LeaseOwner } from "./lease.ts";
import { afterShortage, afterStart, slotsOf } from "./spawn-rest.ts";
import type { SpawnRest } from "./spawn-rest.ts";

/** Most leases that `held` may list. */
const MAX_HELD = 2_000;

export interface LeasesOptions extends LeaseDeps {
  readonly maxRuns: number;
  /** A slot became free, or a lease is over. */
  readonly onChange: () => void;
  /** The coordinator wants the runner to take no more runs, and to end when it has none. */
  readonly onDrain: (reason: string) => void;
  /** `freeSlots` changed in a way that the coordinator cannot count by itself. */
  readonly onSlots: () => void;
}

/** Pause between two looks for reports of another store that are too old. */
const EXPIRE_EVERY_MS = 3_600_000;

/** States that use a slot. */
const BUSY: ReadonlySet<LeaseState["type"]> = new Set([
  "recording",
  "accepting",
  "claimed",
  "spawning",
  "executing",
  "abandoned",
]);

/** The leases of a runner: hears what the coordinator says of them. The only place that decides to take an offer. */
export class Leases implements ConnectionListener, LeaseOwner {
  readonly executions = new SessionExecutions();
  readonly #options: LeasesOptions;
  readonly #leases = new Map<string, RunLease>();
  /** Leases of offers that were refused, until the refusal is answered. */
  readonly #refused = new Set<string>();
  /** Store of the coordinator; undefined before Register is answered. */
  #storeId: string | undefined;
  /** Why no offer is taken any more; undefined while offers are taken. */
  #closedBecause: string | undefined;
  #busy = 0;
  /** Set once the machine could start no executor. */
  #rest: SpawnRest | undefined;
  #restTimer: NodeJS.Timeout | undefined;
  #expireTimer: NodeJS.Timeout | undefined;

  constructor(options: LeasesOptions) {
    this.#options = options;
  }

  /** Leases that use a slot. */
  get busy(): number {
    return this.#busy;
  }

  /** Runs that use a slot, in the order in which they were taken. */
  busyRuns(): string[] {
    return [...this.#leases.values()].filter(({ state }) => BUSY.has(state.type)).map(({ runId }) => runId);
  }

  /** A run of the session is held here. */
  hasSession(sessionId: string): boolean {
    return [...this.#leases.values()].some((lease) => lease.sessionId === sessionId);
  }

  /** Leases that the coordinator still waits for. */
  get open(): number {
    let open = 0;
    for (const lease of this.#leases.values()) if (this.#isHere(lease)) open += 1;
    return open;
  }

  /** Takes no offer any more. */
  close(reason: string): void {
    this.#closedBecause = reason;
    clearTimeout(this.#expireTimer);
  }

  get draining(): boolean {
    return this.#closedBecause !== undefined;
  }

  get freeSlots(): number {
    if (this.#closedBecause !== undefined || this.#options.state.trouble !== undefined) return 0;
    return Math.max(0, this.#slots - this.#busy);
  }

  /** Runs at a time; fewer than the settings say while the machine can start no more. */
  get #slots(): number {
    return slotsOf(this.#rest, this.#options.maxRuns, performance.now());
  }

  /** Leases from the moment the accept is sent until the final report is answered. */
  held(): HeldLease[] {
    const held: HeldLease[] = [];
    for (const lease of this.#leases.values()) {
      const phase = phaseOf(lease.state);
      if (phase === undefined || !this.#isHere(lease)) continue;
      const { runId, leaseId, attempt } = lease;
      held.push(create(HeldLeaseSchema, { runId, leaseId, attempt, phase }));
      if (held.length === MAX_HELD) break;
    }
    return held;
  }

  /**
   * Takes over from the process before this one: its reports are sent again, and what it had accepted without spawning is
   * NOT_STARTED. What it had spawned is dead; the coordinator learns that by its absence from `held`.
   */
  inherit(): void {
    const { state, outbox, reports } = this.#options;
    for (const { report, final, storeId, bytes } of outbox.entries()) {
      const { leaseId, seq } = report;
      if (final) {
        const lease = this.#add(report, storeId, { type: "reporting" });
        lease.sendFinal(report, bytes);
      } else {
        reports.send({ report, storeId, bytes, onVerdict: () => outbox.remove(leaseId, seq) });
      }
    }
    for (const record of state.inherited) {
      if (this.#leases.has(record.leaseId)) continue;
      if (record.phase === "ACCEPTING") {
        this.#add(record, record.storeId, { type: "accepting", next: { type: "decline" } }).giveBack();
      } else {
        state.forgetLease(record.leaseId);
      }
    }
  }

  /**
   * Registered. With a coordinator that has another store than before, what that store cannot know is given up, but for
   * final reports, which wait in the outbox.
   */
  registered(storeId: string): void {
    const { log, reports, events, state } = this.#options;
    state.settle();
    if (this.#storeId === storeId) return;
    const first = this.#storeId === undefined;
    this.#storeId = storeId;
    for (const lease of this.#leases.values()) {
      if (this.#isHere(lease) || phaseOf(lease.state) === HeldLease_Phase.FINAL) continue;
      lease.log.warn("the coordinator has another store and cannot know the run");
      lease.revoke(false);
    }
    reports.wake();
    events.wake();
    void this.#expire(storeId);
    if (first && !this.draining) log.info("Runner started - waiting for runs");
  }

  offered(offer: RunOffer): void {
    const { leaseId } = offer;
    // Offers are sent again on a new stream; the accept is being repeated anyway.
    if (this.#leases.has(leaseId) || this.#refused.has(leaseId)) return;
    try {
      this.#consider(offer);
    } catch (error) {
      // Whatever is wrong with an offer, the offer is answered, and those after it are read.
      const reason = `the runner cannot handle the offer: ${String(error)}`;
      this.#options.log.error({ err: error, run_id: offer.runId, lease_id: leaseId }, "an offer could not be handled");
      const lease = this.#leases.get(leaseId);
      if (lease === undefined) this.refuse(offer, this.#storeId ?? "", { reason, about: "run" });
      else lease.apply({ type: "unrecorded", reason, about: "run" });
    }
  }

  #consider(offer: RunOffer): void {
    const { leaseId, invocation } = offer;
    const storeId = this.#storeId ?? "";
    const refused = this.#refusal(offer);
    if (refused !== undefined) return this.refuse(offer, storeId, refused);
    const kind = invocation?.mode === "resume" ? "resume_session" : "start_session";
    const lease = this.#add(offer, storeId, { type: "recording", offer });
    lease.log.info({ lease_id: leaseId }, `Received a run (${kind})`);
    return lease.take();
  }

  stopped({ leaseId, grace, reason }: StopDirective): void {
    const lease = this.#leases.get(leaseId);
    if (lease === undefined) return;
    lease.log.debug({ reason }, "told to stop the run");
    lease.apply({ type: "stop", graceMs: grace === undefined ? this.#options.timing().stopGraceMs : msOf(grace) });
  }

  drained(reason: string): void {
    this.#options.onDrain(reason);
  }

  verdicts(verdicts: readonly LeaseVerdict[]): void {
    for (const verdict of verdicts) {
      const lease = this.#leases.get(verdict.leaseId);
      // A store says nothing about another store's leases.
      if (lease === undefined || !this.#isHere(lease)) continue;
      oneItem(this.#options.log, "a verdict about a lease", lease, () => this.#judge(lease, verdict));
    }
  }

  #judge(lease: RunLease, { kind, reason }: LeaseVerdict): void {
    switch (kind) {
      case LeaseVerdict_Kind.STOP:
        return lease.apply({ type: "stop", graceMs: this.#options.timing().stopGraceMs });
      case LeaseVerdict_Kind.RESEND_FINAL:
        return lease.apply({ type: "resend" });
      case LeaseVerdict_Kind.UNKNOWN:
        lease.log.warn({ reason }, "the coordinator does not know the run");
        return lease.revoke(false);
      default:
        // RENEWED, and what only a newer runner knows.
        return undefined;
    }
  }

  /** The lease was answered STALE, or UNKNOWN when it is not `known`. */
  over(leaseId: string, known: boolean): void {
    const lease = this.#leases.get(leaseId);
    lease?.log.warn({ lease_id: leaseId }, known ? "the lease is over" : "the coordinator does not know the run");
    lease?.revoke(known);
  }

  /** The runner ends: what was not spawned is given back, what runs is stopped. */
  withdraw(): void {
    const { stopGraceMs: graceMs } = this.#options.timing();
    this.#each("the end of a lease", (lease) => lease.apply({ type: "withdraw", graceMs }));
  }

  /** Ends every executor at once, and reports nothing. */
  kill(): void {
    this.close("the runner is killed");
    this.#each("the kill of an executor", (lease) => lease.kill());
  }

  /** One lease that cannot be ended does not keep the others. */
  #each(what: string, act: (lease: RunLease) => void): void {
    for (const lease of this.#leases.values()) oneItem(this.#options.log, what, lease, () => act(lease));
  }

  moved(lease: RunLease, before: LeaseState, after: LeaseState): void {
    const freed = BUSY.has(before.type) && !BUSY.has(after.type);
    const over = after.type === "over";
    if (freed) this.#busy -= 1;
    if (over) this.#leases.delete(lease.leaseId);
    if (freed || over) this.#options.onChange();
    if ((freed || over) && this.#slots < this.#options.maxRuns) this.#options.onSlots();
  }

  started(): void {
    this.#rest = afterStart(this.#rest, this.#busy, performance.now());
  }

  short(lease: RunLease, reason: string): void {
    const { log, maxRuns, onSlots } = this.#options;
    const nowMs = performance.now();
    const before = this.#rest;
    this.#rest = afterShortage(before, reason, this.#busy - 1, nowMs);
    const pauseMs = Math.round(this.#rest.untilMs - nowMs);
    const fields = { reason, pause_ms: pauseMs, slots: this.#rest.limit };
    lease.log.warn(
      fields,
      "nothing can be started on this machine; the run is handed back, and none is taken for a while",
    );
    onSlots();
    if (before?.untilMs === this.#rest.untilMs) return;
    clearTimeout(this.#restTimer);
    const resume = (): void => {
      log.info({ slots: this.#slots, max_runs: maxRuns }, "runs are taken again");
      onSlots();
    };
    this.#restTimer = setTimeout(resume, pauseMs + 1).unref();
  }

  refuse(ref: LeaseRef, storeId: string, why: Refused): void {
    this.#options.log.info({ run_id: ref.runId, attempt: ref.attempt, reason: why.reason }, "offer refused");
    this.#refused.add(ref.leaseId);
    const report = refuseReport(ref, why);
    const onVerdict = () => void this.#refused.delete(ref.leaseId);
    this.#options.reports.send({ report, storeId, bytes: smallReportBytes(report), onVerdict });
  }

  /** Whether the lease is of the coordinator's present store. */
  #isHere({ storeId }: RunLease): boolean {
    return this.#storeId === undefined || storeId === this.#storeId;
  }

  #add(ref: LeaseRef, storeId: string, state: LeaseState): RunLease {
    const lease = new RunLease(this.#options, this, ref, storeId, state);
    this.#leases.set(lease.leaseId, lease);
    if (BUSY.has(state.type)) this.#busy += 1;
    return lease;
  }

  async #expire(storeId: string): Promise<void> {
    const { outbox, log } = this.#options;
    try {
      const { reports, clockWasMs } = await outbox.expire(storeId, Date.now());
      if (reports > 0)
        log.warn({ reports }, "reports for another coordinator's store were kept for 7 days and are deleted");
      if (clockWasMs !== undefined) {
        const clock_was = new Date(clockWasMs).toISOString();
        log.warn({ clock_was }, "the wall clock may have jumped; no report is deleted for its age for a day");
      }
    } catch (error) {
      // The state directory has said what is wrong; old reports are deleted another time.
      log.debug({ reason: String(error) }, "old reports were not deleted");
    }
    clearTimeout(this.#expireTimer);
    if (this.draining || storeId !== this.#storeId) return;
    this.#expireTimer = setTimeout(() => void this.#expire(storeId), EXPIRE_EVERY_MS).unref();
  }

  #refusal({ invocation }: RunOffer): Refused | undefined {
    const { state, projectDir, onSlots } = this.#options;
    if (this.#closedBecause !== undefined) return { reason: this.#closedBecause, about: "runner" };
    if (state.trouble !== undefined)
      return { reason: `the state directory of the runner cannot be written: ${state.trouble}`, about: "runner" };
    const slots = this.#slots;
    if (this.#busy >= slots) {
      // The coordinator believes that there is room.
      if (this.#rest !== undefined) onSlots();
      const reason =
        slots === 0 ? `the runner rests: ${this.#rest?.reason}` : `the runner is full, ${this.#busy}/${slots}`;
      return { reason, about: "runner" };
    }
    const dir = invocation?.projectDir || projectDir;
    const problem = directoryProblem(dir);
    if (problem === undefined) return undefined;
    const what = problem.missing ? "is not a directory on the runner's host" : problem.what;
    const about = problem.permanent ? "run-for-good" : problem.shortage ? "runner" : "run";
    return { reason: `project_dir ${shownPath(dir)} ${what}`, about };
  }
}

function phaseOf(state: LeaseState): HeldLease_Phase | undefined {
  switch (state.type) {
    case "accepting":
    case "declining":
      return HeldLease_Phase.ACCEPTING;
    case "claimed":
    case "spawning":
    case "executing":
      return HeldLease_Phase.RUNNING;
    case "finishing":
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
