import { create } from "@bufbuild/protobuf";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { openSqliteStore } from "../../coordinator/store/sqlite/sqlite-store.ts";
import type { AgentLookup, Committed, Offer, Store } from "../../coordinator/store/store.ts";
import { FailureReason, RunState } from "../../gen/agentrunner/v1/run_pb.ts";
import type { Run } from "../../gen/agentrunner/v1/run_pb.ts";
import { CreateRunRequestSchema } from "../../gen/agentrunner/v1/run_service_pb.ts";
import { HeldLeaseSchema } from "../../gen/agentrunner/v1/runner_pb.ts";
import type { HeldLease, HeldLease_Phase } from "../../gen/agentrunner/v1/runner_pb.ts";
import { RegisterRequestSchema, Report_Kind, ReportSchema } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import type { ReportVerdict } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import { newId } from "../../lib/ids.ts";

const LEASE_MS = 1000;

/** A store in memory with one runner that takes everything; time moves only when a test says so. */
export class StoreHarness {
  readonly store: Store;
  readonly offers = new Map<string, Offer>();
  now = 1_000_000;
  #runnerId = "";
  #seq = 0;

  constructor(store: Store = openSqliteStore({ path: undefined })) {
    this.store = store;
  }

  get runnerId(): string {
    return this.#runnerId;
  }

  /** The lease that the run was offered under. */
  leaseOf(runId: string): Offer {
    const offer = this.offers.get(runId);
    if (offer === undefined) throw new Error(`${runId} was not offered`);
    return offer;
  }

  heldLease(runId: string, phase: HeldLease_Phase): HeldLease {
    return create(HeldLeaseSchema, { runId, leaseId: this.leaseOf(runId).leaseId, phase });
  }

  async open(): Promise<this> {
    this.#runnerId = await this.again("boot_harness");
    return this;
  }

  /** Registers the runner as this process; returns its id. */
  again = async (bootId: string): Promise<string> => {
    const request = create(RegisterRequestSchema, {
      hostname: "yard",
      projectDir: "/yard",
      executorProfile: "yard",
      bootId,
      previousBootId: "boot_harness",
      maxConcurrentRuns: 1000,
    });
    const terms = { streamOpen: () => true, heardWithinMs: 1000, maxRunners: 10 };
    const registered = await this.#value(this.store.register(request, terms, newId("lease"), LEASE_MS, this.now));
    return registered.runnerId;
  };

  async #value<T>(committed: Promise<Committed<T>>): Promise<T> {
    return (await committed).value;
  }

  async createRun(request: MessageInitShape<typeof CreateRunRequestSchema>, agent?: AgentLookup): Promise<Run> {
    const ids = { runId: newId("run"), sessionId: newId("ses") };
    const limits = { maxDepth: 100, maxChildren: 1000 };
    const message = create(CreateRunRequestSchema, { prompt: "go", ...request });
    return this.#value(this.store.createRun(message, agent, ids, limits, this.now));
  }

  /** Offers everything that is pending; returns the new offers. */
  async offer(): Promise<Offer[]> {
    const demandClasses = await this.store.pendingClasses();
    const candidate = { runnerId: this.#runnerId, bootId: "boot_harness", demandClasses };
    const { offers } = await this.#value(
      this.store.offer([candidate], () => newId("lease"), this.now + LEASE_MS, this.now),
    );
    for (const offer of offers) this.offers.set(offer.runId, offer);
    return offers;
  }

  async report(runId: string, report: MessageInitShape<typeof ReportSchema>): Promise<ReportVerdict> {
    const leaseId = this.offers.get(runId)?.leaseId ?? "";
    this.#seq += 1;
    const message = create(ReportSchema, { runId, leaseId, seq: BigInt(this.#seq), ...report });
    const terms = { leaseTtlMs: LEASE_MS, suitable: () => ["lnch_other"], violations: new Map() };
    const { verdicts } = await this.#value(this.store.report(this.#runnerId, [message], terms, this.now));
    const [verdict] = verdicts;
    if (verdict === undefined) throw new Error("no verdict");
    return verdict;
  }

  /** Takes the run through its whole life. */
  async complete(runId: string, text = "done"): Promise<void> {
    await this.begin(runId);
    await this.report(runId, { kind: Report_Kind.COMPLETED, result: { text } });
  }

  async fail(runId: string): Promise<void> {
    await this.begin(runId);
    await this.report(runId, { kind: Report_Kind.FAILED, failure: FailureReason.EXECUTOR_EXIT, message: "exit 3" });
  }

  /** Offers, accepts and starts the run, as far as that is not done. */
  async begin(runId: string): Promise<void> {
    await this.offer();
    await this.report(runId, { kind: Report_Kind.ACCEPT });
    await this.report(runId, { kind: Report_Kind.STARTED });
  }

  /** The runner is not heard from: every lease that is held is lost. */
  async lose(): Promise<void> {
    // Offers that it had go back without a rest, which time would have to end.
    await this.store.withdrawOffers(this.#runnerId, undefined, this.now);
    this.now += 2 * LEASE_MS;
    await this.store.expire(this.now, true);
  }

  async stop(runId: string, cascade = false): Promise<void> {
    await this.store.stopRun(runId, { graceMs: 0, reason: "stopped" }, cascade, this.now);
  }

  async run(runId: string): Promise<Run> {
    const found = await this.store.getRun(runId);
    if (found === undefined) throw new Error(`no run ${runId}`);
    return found.run;
  }

  /** Runs that are not final, oldest first. */
  async openRuns(): Promise<Run[]> {
    const states = [RunState.PENDING, RunState.OFFERED, RunState.CLAIMED, RunState.RUNNING, RunState.STOPPING];
    const page = { states, sessionId: "", runnerId: "", pageSize: 1000, pageToken: "", withinSessionId: undefined };
    return (await this.store.listRuns(page)).items.toReversed();
  }

  async runsOf(sessionId: string): Promise<Run[]> {
    const page = { states: [], sessionId, runnerId: "", pageSize: 1000, pageToken: "", withinSessionId: undefined };
    return (await this.store.listRuns(page)).items.toReversed();
  }
}
