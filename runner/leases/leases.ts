import { statSync } from "node:fs";
import { create } from "@bufbuild/protobuf";
import { HeldLeaseSchema, HeldLease_Phase, LeaseVerdict_Kind } from "../../gen/agentrunner/v1/runner_pb.ts";
import type { HeldLease, LeaseVerdict, StopDirective } from "../../gen/agentrunner/v1/runner_pb.ts";
import type { Report_Kind, RunOffer } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import type { Log } from "../../lib/log.ts";
import { msOf } from "../connection/timing.ts";
import type { Timing } from "../connection/timing.ts";
import type { EventSender } from "../reports/event-sender.ts";
import type { Execute } from "../execution/execute.ts";
import { HEARD } from "./lease-life.ts";
import type { LeaseState } from "./lease-life.ts";
import type { Outbox } from "../reports/outbox.ts";
import type { ReportSender } from "../reports/report-sender.ts";
import { refuseReport, smallReportBytes } from "../reports/reports.ts";
import type { LeaseRef } from "../reports/reports.ts";
import { RunLease } from "./lease.ts";
import type { LeaseContext } from "./lease.ts";
import type { StateDir } from "./state-dir.ts";

/** Most leases that `held` may list. */
const MAX_HELD = 2_000;

export interface LeasesOptions {
  readonly projectDir: string;
  readonly maxRuns: number;
  readonly state: StateDir;
  readonly outbox: Outbox;
  readonly reports: ReportSender;
  readonly events: EventSender;
  readonly execute: Execute;
  readonly timing: () => Timing;
  /** Store that answers; undefined before Register is answered. */
  readonly storeId: () => string | undefined;
  readonly log: Log;
  /** What a run came to is known; its report is not answered yet. */
  readonly onOutcome: (kind: Report_Kind) => void;
  /** A slot became free, or a lease is over. */
  readonly onChange: () => void;
}

/** States that use a slot. */
const BUSY: ReadonlySet<LeaseState["type"]> = new Set(["recording", "accepting", "claimed", "executing", "abandoned"]);

/** The leases of a runner. The only place that decides to take an offer. */
export class Leases {
  /** Why no offer is taken any more; undefined while offers are taken. */
  closedBecause: string | undefined;
  readonly #options: LeasesOptions;
  readonly #context: LeaseContext;
  readonly #leases = new Map<string, RunLease>();
  /** Leases of offers that were refused, until the refusal is answered. */
  readonly #refused = new Set<string>();
  #busy = 0;

  constructor(options: LeasesOptions) {
    this.#options = options;
    this.#context = {
      ...options,
      sessions: new Map(),
      onMoved: (lease, before, after) => this.#onMoved(lease, before, after),
      onRefused: (lease, reason) => this.#refuse(lease, lease.storeId, reason),
    };
  }

  /** Leases that use a slot. */
  get busy(): number {
    return this.#busy;
  }

  /** Leases that the coordinator which answers now still waits for. */
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
        const lease = this.#add(new RunLease(this.#context, report, storeId, { type: "reporting" }));
        reports.send({ report, storeId, bytes, onVerdict: (verdict) => lease.onFinalVerdict(verdict) });
      } else {
        reports.send({ report, storeId, bytes, onVerdict: () => outbox.remove(leaseId, seq) });
      }
    }
    for (const record of state.inherited) {
      if (this.#leases.has(record.leaseId)) continue;
      if (record.phase === "ACCEPTING") {
        const accepting: LeaseState = { type: "accepting", instead: "declined" };
        this.#add(new RunLease(this.#context, record, record.storeId, accepting)).giveBack();
      } else {
        state.forgetLease(record.leaseId);
      }
    }
  }

  /** Another store answers than before: what it cannot know is given up, but for final reports, which wait in the outbox. */
  storeChanged(): void {
    for (const lease of this.#leases.values()) {
      if (this.#isHere(lease) || lease.state.type === "reporting") continue;
      this.#options.log.warn({ run_id: lease.runId }, "the coordinator has another store and cannot know the run");
      lease.revoke(false);
    }
  }

  offered(offer: RunOffer): void {
    const { leaseId, runId, attempt, invocation } = offer;
    // Offers are sent again on a new stream; the accept is being repeated anyway.
    if (this.#leases.has(leaseId) || this.#refused.has(leaseId)) return;
    const storeId = this.#options.storeId() ?? "";
    const reason = this.#refusal(offer);
    if (reason !== undefined) return this.#refuse(offer, storeId, reason);
    const kind = invocation?.mode === "resume" ? "resume_session" : "start_session";
    this.#options.log.info({ run_id: runId, lease_id: leaseId, attempt }, `Received run ${runId} (${kind})`);
    return this.#add(new RunLease(this.#context, offer, storeId, HEARD, offer)).take();
  }

  stopped({ leaseId, grace, reason }: StopDirective): void {
    const lease = this.#leases.get(leaseId);
    if (lease === undefined) return;
    this.#options.log.debug({ run_id: lease.runId, reason }, "told to stop the run");
    lease.apply({ type: "stop", graceMs: grace === undefined ? this.#options.timing().stopGraceMs : msOf(grace) });
  }

  verdicts(verdicts: readonly LeaseVerdict[]): void {
    for (const { leaseId, kind, reason } of verdicts) {
      const lease = this.#leases.get(leaseId);
      // A store says nothing about another store's leases.
      if (lease === undefined || !this.#isHere(lease)) continue;
      if (kind === LeaseVerdict_Kind.STOP) lease.apply({ type: "stop", graceMs: this.#options.timing().stopGraceMs });
      if (kind !== LeaseVerdict_Kind.UNKNOWN) continue;
      this.#options.log.warn({ run_id: lease.runId, reason }, "the coordinator does not know the run");
      lease.revoke(false);
    }
  }

  /** The lease was answered STALE, or UNKNOWN when it is not `known`. */
  over(leaseId: string, known: boolean): void {
    this.#leases.get(leaseId)?.revoke(known);
  }

  /** The runner ends: what was not spawned is given back, what runs is stopped. */
  withdraw(): void {
    const { stopGraceMs: graceMs } = this.#options.timing();
    for (const lease of this.#leases.values()) lease.apply({ type: "withdraw", graceMs });
  }

  /** Ends every executor at once, and reports nothing. */
  kill(): void {
    for (const lease of this.#leases.values()) lease.kill();
  }

  #isHere({ storeId }: RunLease): boolean {
    const current = this.#options.storeId();
    return current === undefined || storeId === current;
  }

  #add(lease: RunLease): RunLease {
    this.#leases.set(lease.leaseId, lease);
    if (BUSY.has(lease.state.type)) this.#busy += 1;
    return lease;
  }

  #onMoved(lease: RunLease, before: LeaseState, after: LeaseState): void {
    const freed = BUSY.has(before.type) && !BUSY.has(after.type);
    const over = after.type === "over";
    if (freed) this.#busy -= 1;
    if (over) this.#leases.delete(lease.leaseId);
    if (freed || over) this.#options.onChange();
  }

  #refusal({ invocation }: RunOffer): string | undefined {
    const { state, maxRuns, projectDir } = this.#options;
    if (this.closedBecause !== undefined) return this.closedBecause;
    if (state.trouble !== undefined) return `the state directory of the runner cannot be written: ${state.trouble}`;
    if (this.#busy >= maxRuns) return `the runner is full, ${this.#busy}/${maxRuns}`;
    const dir = invocation?.projectDir || projectDir;
    if (statSync(dir, { throwIfNoEntry: false })?.isDirectory()) return undefined;
    return `project_dir ${dir} is not a directory on the runner's host`;
  }

  #refuse(ref: LeaseRef, storeId: string, reason: string): void {
    this.#options.log.info({ run_id: ref.runId, reason }, "offer refused");
    this.#refused.add(ref.leaseId);
    const report = refuseReport(ref, reason);
    const onVerdict = () => void this.#refused.delete(ref.leaseId);
    this.#options.reports.send({ report, storeId, bytes: smallReportBytes(report), onVerdict });
  }
}

function phaseOf(state: LeaseState): HeldLease_Phase | undefined {
  switch (state.type) {
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
