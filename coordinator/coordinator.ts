import { setTimeout as sleep } from "node:timers/promises";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { StreamClosing_Reason } from "../gen/agentrunner/v1/runner_service_pb.ts";
import type { RegisterRequest } from "../gen/agentrunner/v1/runner_service_pb.ts";
import type { Log } from "../lib/log.ts";
import { CommitError } from "../lib/sqlite.ts";
import { RunTokens } from "./access/run-tokens.ts";
import type { CoordinatorConfig } from "./config.ts";
import { graceAfterOutage, graceAfterStart, grant, heard, isOver, missedTime, wallJump } from "./core/grace.ts";
import { clockAfterJump, clockAtStart, clockSeen } from "../lib/clock-note.ts";
import type { ClockNote } from "../lib/clock-note.ts";
import type { Grace, Reading } from "./core/grace.ts";
import { Dispatcher } from "./dispatch/dispatcher.ts";
import type { Metrics } from "./telemetry/metrics.ts";
import type { Changes, Committed, PrunePlace, Registered, RunnerRecord, Store } from "./store/store.ts";
import type { SchemaJudge } from "./schemas/schema-judge.ts";
import { Watchers } from "./follow/watchers.ts";

/** Longest time between two looks at what is due. */
const MAX_TICK_MS = 1000;
/** Time between two looks at runners that went away and runs that nobody matches. */
const MAX_SWEEP_MS = 5000;
/** Time between two clean-ups; how long one command of a clean-up works, and how long it then rests. */
const PRUNE_INTERVAL_MS = 60_000;
const PRUNE_BUDGET_MS = 20;

export interface CoordinatorDeps {
  readonly store: Store;
  readonly config: CoordinatorConfig;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly judge: SchemaJudge;
  /** Wall clock and steady clock; tests set them. */
  readonly clock?: () => Reading;
}

/**
 * The shell around the core: gives commands to the store, acts on what they changed, and looks at the clock.
 *
 * All that it knows beyond the store is open streams, who follows which session, and the grace after a start.
 */
export class Coordinator {
  readonly store: Store;
  readonly config: CoordinatorConfig;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly judge: SchemaJudge;
  readonly dispatcher: Dispatcher;
  readonly watchers = new Watchers();
  readonly runTokens: RunTokens;
  readonly #clock: () => Reading;
  readonly #timers: NodeJS.Timeout[] = [];
  #grace: Grace = { state: "OVER" };
  #ticking: Promise<void> | undefined;
  #sweeping: Promise<void> | undefined;
  #pruning: Promise<void> | undefined;
  #deleting: Promise<void> | undefined;
  #stopped = false;
  #clockNote: ClockNote = { seenAt: 0, pruneFrom: 0 };
  #recovering: Promise<void> | undefined;
  #last: Reading;
  /** A renewal could not be stored since the last look at what is due. */
  #missedRenewals = false;

  constructor(deps: CoordinatorDeps) {
    this.store = deps.store;
    this.config = deps.config;
    this.log = deps.log;
    this.metrics = deps.metrics;
    this.judge = deps.judge;
    this.runTokens = new RunTokens(deps.store.secret);
    this.#clock = deps.clock ?? (() => ({ wallMs: Date.now(), steadyMs: performance.now() }));
    this.#last = this.#clock();
    this.dispatcher = new Dispatcher({
      store: this.store,
      config: this.config,
      log: this.log,
      now: () => this.now(),
      perform: (changes) => this.perform(changes),
      runToken: (leaseId) => this.runTokens.issue(leaseId),
    });
  }

  /** Epoch milliseconds. */
  now(): number {
    return Math.round(this.#clock().wallMs);
  }

  async start(): Promise<void> {
    await this.#lookAtStart();
    await this.#grantGrace("start", graceAfterStart(this.config));
    await this.dispatcher.start();
    void this.#finishDeletions();
    const { leaseTtlMs, acceptDeadlineMs, noMatchTimeoutMs } = this.config;
    const tickMs = Math.min(MAX_TICK_MS, Math.max(10, Math.min(leaseTtlMs, acceptDeadlineMs) / 10));
    const sweepMs = Math.min(MAX_SWEEP_MS, Math.max(50, (noMatchTimeoutMs || MAX_SWEEP_MS * 10) / 10));
    this.#every(tickMs, () => (this.#ticking ??= this.#tick(tickMs).finally(() => (this.#ticking = undefined))));
    this.#every(sweepMs, () => (this.#sweeping ??= this.#sweep(tickMs).finally(() => (this.#sweeping = undefined))));
    this.#every(
      PRUNE_INTERVAL_MS,
      () => (this.#pruning ??= this.#prune(tickMs).finally(() => (this.#pruning = undefined))),
    );
  }

  #every(intervalMs: number, action: () => Promise<void>): void {
    this.#timers.push(setInterval(() => void this.#guarded(action), intervalMs));
  }

  async #guarded(action: () => Promise<void>): Promise<void> {
    try {
      await action();
    } catch (error) {
      // Nothing was changed, and the next time tries again. Who opened the store has said that it cannot be written.
      if (!(error instanceof CommitError)) this.log.error({ err: error }, "a periodic command failed");
    }
  }

  /** Ends streams and timers. The store stays open. */
  async stop(): Promise<void> {
    this.#stopped = true;
    for (const timer of this.#timers) clearInterval(timer);
    await this.dispatcher.stop();
    await Promise.allSettled([this.#ticking, this.#sweeping, this.#pruning, this.#deleting]);
  }

  /** Gives a command to the store and acts on what it changed; returns its value. */
  async command<T>(committed: Promise<Committed<T>>): Promise<T> {
    const { value, changes } = await committed;
    this.perform(changes);
    return value;
  }

  /** As `command`, for what renews leases: when it cannot be stored, no lease is lost because of that. */
  async renewal<T>(committed: Promise<Committed<T>>): Promise<T> {
    try {
      return await this.command(committed);
    } catch (error) {
      if (error instanceof CommitError) this.#missedRenewals = true;
      throw error;
    }
  }

  /** Acts on what a command changed: tells runners, wakes followers, and lets the dispatcher offer what became pending. */
  perform(changes: Changes): void {
    this.metrics.changed(changes);
    for (const effect of changes.effects) {
      const { leaseId, runnerId } = effect.lease;
      if (effect.type === "stop-runner") {
        const { graceMs, reason } = effect.stop;
        this.dispatcher.tellToStop(runnerId, { runId: effect.runId, leaseId, grace: durationFromMs(graceMs), reason });
      } else if (effect.type === "withdraw") {
        const reason = "the offer was withdrawn";
        this.dispatcher.tellToStop(runnerId, { runId: effect.runId, leaseId, grace: durationFromMs(0), reason });
      }
    }
    this.watchers.notify(changes.sessionIds);
    // Before the runs of lapsed offers are offered again: the next offer is for a runner that responds.
    this.dispatcher.lapsed(changes.lapsedRunnerIds);
    if (changes.runnerIds.size > 0) this.#background(this.dispatcher.runnersChanged(changes.runnerIds));
    if (changes.demandClasses.size > 0) this.#background(this.dispatcher.pending(changes.demandClasses));
    if (changes.freedRunnerIds.size > 0) this.dispatcher.freed(changes.freedRunnerIds);
  }

  // The commands that also end or use a runner's stream. This is not among `Changes`, so it is done here and nowhere else.

  /** @throws Refusal ALREADY_EXISTS when another live process has the identity, RESOURCE_EXHAUSTED beyond `maxRunners`. */
  async registerRunner(request: RegisterRequest, tokenHash: string): Promise<Registered> {
    const { heartbeatMs, leaseTtlMs, maxRunners } = this.config;
    const terms = {
      streamOpen: (runnerId: string, bootId: string) => this.dispatcher.hasStream(runnerId, bootId),
      heardWithinMs: 2 * heartbeatMs,
      maxRunners,
    };
    const registered = await this.renewal(this.store.register(request, terms, tokenHash, leaseTtlMs, this.now()));
    const { runnerId, replacedBootId } = registered;
    if (replacedBootId !== undefined) this.dispatcher.end(runnerId, StreamClosing_Reason.REPLACED);
    this.listed(runnerId);
    return registered;
  }

  /** @throws Refusal ALREADY_EXISTS when the process is not the registered one. */
  async deregisterRunner(runnerId: string, bootId: string): Promise<void> {
    await this.command(this.store.deregister(runnerId, bootId, this.now()));
    this.dispatcher.end(runnerId, StreamClosing_Reason.REMOVED);
  }

  /** @throws Refusal NOT_FOUND. */
  async drainRunner(runnerId: string, reason: string): Promise<RunnerRecord> {
    const record = await this.command(this.store.drainRunner(runnerId, reason));
    this.dispatcher.tellToDrain(runnerId, reason);
    return record;
  }

  /** Returns the runs that are lost by it. @throws Refusal NOT_FOUND. */
  async removeRunner(runnerId: string): Promise<string[]> {
    const lostRunIds = await this.command(this.store.removeRunner(runnerId, this.now()));
    this.dispatcher.end(runnerId, StreamClosing_Reason.REMOVED);
    return lostRunIds;
  }

  #background(work: Promise<void>): void {
    work.catch((error: unknown) => this.log.error({ err: error }, "the dispatcher could not read the store"));
  }

  /** A runner gave a sign of life. */
  heard(runnerId: string): void {
    this.dispatcher.heard(runnerId);
  }

  /** A runner said what it holds: those leases are renewed, so that no grace needs to wait for it. */
  listed(runnerId: string): void {
    this.#grace = heard(this.#grace, runnerId);
    this.heard(runnerId);
  }

  async #grantGrace(why: string, graceMs: number): Promise<void> {
    const before = this.#grace;
    this.#grace = grant(await this.store.holders(), this.#clock().steadyMs, graceMs);
    // One that is granted again and again, as while the disk is full, is said once.
    if (this.#grace.state === "OVER" || before.state === "GRANTED") return;
    this.log.info({ why, grace_ms: graceMs, runners: this.#grace.awaited.size }, "no lease is lost for a while");
  }

  /**
   * Reads the clocks. When time was missed since the last look, or renewals could not be stored, runners get their grace
   * before anything else happens.
   */
  async #look(tickMs: number): Promise<Reading> {
    const reading = this.#clock();
    const missed = missedTime(this.#last, reading, tickMs, this.config.leaseTtlMs);
    const jumpMs = wallJump(this.#last, reading, this.config.leaseTtlMs);
    this.#last = reading;
    if (jumpMs !== 0) {
      this.#clockNote = clockAfterJump(reading.wallMs);
      this.log.warn({ jump_ms: Math.round(jumpMs) }, "the wall clock jumped; nothing is deleted for its age for a day");
    }
    const why = missed ? "the clock jumped, or this process was paused" : "the store could not be written";
    if (missed || this.#missedRenewals) {
      this.#missedRenewals = false;
      this.#recovering ??= this.#recover(why, jumpMs < 0).finally(() => (this.#recovering = undefined));
    }
    await this.#recovering;
    return reading;
  }

  /** The clock may have jumped while no process looked. */
  async #lookAtStart(): Promise<void> {
    const now = this.now();
    const last = await this.store.clockNote(now);
    this.#clockNote = clockAtStart(last, now, this.config.retainMs);
    if (this.#clockNote.pruneFrom > now) {
      const seen = new Date(last.seenAt).toISOString();
      this.log.warn({ clock_was: seen }, "the wall clock may have jumped; nothing is deleted for its age for a day");
    }
    await this.#clampTimes();
  }

  async #clampTimes(): Promise<void> {
    const { leaseTtlMs, acceptDeadlineMs } = this.config;
    await this.command(this.store.clampTimes(leaseTtlMs, acceptDeadlineMs, this.now()));
  }

  async #recover(why: string, setBack: boolean): Promise<void> {
    if (setBack) await this.#clampTimes();
    await this.#grantGrace(why, graceAfterOutage(this.config));
    await this.dispatcher.resume();
  }

  async #tick(tickMs: number): Promise<void> {
    const { wallMs, steadyMs } = await this.#look(tickMs);
    for (let more = true; more;) {
      more = await this.command(this.store.expire(Math.round(wallMs), isOver(this.#grace, steadyMs)));
    }
  }

  async #sweep(tickMs: number): Promise<void> {
    await this.#look(tickMs);
    await this.dispatcher.sweep();
  }

  async #prune(tickMs: number): Promise<void> {
    await this.#finishDeletions();
    const { wallMs } = await this.#look(tickMs);
    this.#clockNote = clockSeen(this.#clockNote, wallMs);
    await this.store.keepClockNote(this.#clockNote);
    if (wallMs < this.#clockNote.pruneFrom) return;
    const { retainMs, runnerAwayMs } = this.config;
    const before = retainMs === 0 ? 0 : this.now() - retainMs;
    const runs = await this.prune(before, false);
    const runners = await this.command(this.store.forgetRunners(before, this.now() - runnerAwayMs));
    if (runs + runners === 0) return;
    const until = new Date(before).toISOString();
    this.log.info({ runs, runners, ended_before: until }, "old runs were deleted, and runners forgotten");
  }

  /** Deletes a session: at once for everybody, and what takes its time later. @throws Refusal as DeleteSession says. */
  async deleteSession(sessionId: string): Promise<void> {
    if (await this.command(this.store.deleteSession(sessionId, PRUNE_BUDGET_MS))) void this.#finishDeletions();
  }

  /** Goes on with deleting sessions until nothing is left of them. */
  #finishDeletions(): Promise<void> {
    this.#deleting ??= this.#guarded(async () => {
      while (!this.#stopped && (await this.store.finishDeletions(PRUNE_BUDGET_MS))) await sleep(PRUNE_BUDGET_MS);
    }).finally(() => (this.#deleting = undefined));
    return this.#deleting;
  }

  /** Deletes, or only counts, runs that ended before `before`, until the signal says that nobody wants it any more. */
  async prune(before: number, dryRun: boolean, signal?: AbortSignal): Promise<number> {
    let total = 0;
    const isWanted = (): boolean => !this.#stopped && signal?.aborted !== true;
    for (let from: PrunePlace | undefined; isWanted();) {
      const { runs, next } = await this.store.pruneRuns({ before, dryRun, from, budgetMs: PRUNE_BUDGET_MS });
      total += runs;
      if (next === undefined) break;
      from = next;
      await sleep(PRUNE_BUDGET_MS);
    }
    return total;
  }
}
