import { formatDurationMs } from "../../lib/config/kinds.ts";
import type { Log } from "../../lib/log.ts";
import type { CoordinatorConfig } from "../config.ts";
import { demandClass, explain, suits, requirementsOf } from "../core/match.ts";
import type { RunnerFacts, Requirements } from "../core/match.ts";
import type { Changes, Committed, RunnerRecord, Store } from "../store/store.ts";
import { Versions } from "./versions.ts";

/** A demand class in which runs are, or were lately, pending. */
export interface DemandClass {
  readonly requirements: Requirements;
  /** Registered runners that could take its runs. */
  readonly suitable: Set<string>;
  /** True while its no-match clock runs in the store. */
  unmatched: boolean;
}

export interface DemandIndexDeps {
  readonly store: Store;
  readonly config: CoordinatorConfig;
  readonly log: Log;
  readonly now: () => number;
  /** Acts on what a command changed. */
  readonly perform: (changes: Changes) => void;
  readonly hasStream: (runnerId: string, bootId: string) => boolean;
  /** False while a runner with a stream has not said that the stream arrives. */
  readonly isProven: (runnerId: string) => boolean;
}

/**
 * Which registered runners suit which demand classes. Derived from the store, and kept so that a run looks at its own class
 * and a runner at each class once; it also keeps the clocks of classes that nobody suits.
 */
export class DemandIndex {
  readonly #deps: DemandIndexDeps;
  readonly #classes = new Map<string, DemandClass>();
  /** When runs became pending in a class. */
  readonly #pending = new Versions();
  readonly #runners = new Map<string, RunnerRecord>();
  /** Runners that have been away so long that they count as absent. */
  readonly #absent = new Set<string>();
  /** Epoch milliseconds since when runners can be heard; silence before that is not theirs. */
  #listensSince = 0;

  constructor(deps: DemandIndexDeps) {
    this.#deps = deps;
  }

  /** For `forgetEmpty`. */
  get moment(): number {
    return this.#pending.moment;
  }

  /** The store, asked at `moment`, had no pending run in these classes. One that became pending since keeps its class. */
  forgetEmpty(demandClasses: Iterable<string>, moment: number): void {
    for (const key of demandClasses) {
      if (!this.#pending.unchangedSince(moment, key)) continue;
      this.#classes.delete(key);
      this.#pending.forget(key);
    }
  }

  /** Classes with pending runs that a registered runner could take. */
  matched(): [string, DemandClass][] {
    return [...this.#classes].filter(([, { suitable }]) => suitable.size > 0);
  }

  /** Registered runners that could take the runs of a class, whether it is looked at now or not. */
  suitable(key: string): Iterable<string> {
    const known = this.#classes.get(key);
    if (known !== undefined) return known.suitable;
    const requirements = requirementsOf(key);
    return [...this.#runners.values()]
      .filter((record) => this.#fits(record, requirements))
      .map(({ facts }) => facts.runnerId);
  }

  /** Begins anew to count silence and lack of a match: before now, no runner could be heard. Returns the classes. */
  async restart(): Promise<string[]> {
    const { store, now } = this.#deps;
    this.#listensSince = now();
    const demandClasses = await store.pendingClasses();
    const clocks = await store.unmatchedClasses(Number.MAX_SAFE_INTEGER);
    await Promise.all(clocks.map((key) => store.setUnmatched(key, undefined)));
    // For the classes that nobody suits the next lines start it again.
    for (const demandClass of this.#classes.values()) demandClass.unmatched = false;
    await this.runnersChanged("all");
    return demandClasses;
  }

  /** Runs became pending in these classes. Resolves when the clocks are stored of those that nobody suits. */
  pending(demandClasses: Iterable<string>): Promise<unknown> {
    const unmatched: string[] = [];
    for (const key of demandClasses) {
      const found = this.#classes.get(key) ?? this.#add(key);
      this.#pending.changed(key);
      if (found.suitable.size === 0) unmatched.push(key);
    }
    return Promise.all(unmatched.map((key) => this.#startClock(key)));
  }

  #add(key: string): DemandClass {
    const requirements = requirementsOf(key);
    const suitable = new Set<string>();
    for (const record of this.#runners.values()) {
      if (this.#fits(record, requirements)) suitable.add(record.facts.runnerId);
    }
    const added = { requirements, suitable, unmatched: false };
    this.#classes.set(key, added);
    return added;
  }

  async #startClock(key: string): Promise<void> {
    const { store, config, now, log } = this.#deps;
    const found = this.#classes.get(key);
    // It runs for the runs that come later too, each from its own beginning.
    if (found === undefined || found.unmatched) return;
    found.unmatched = true;
    try {
      await store.setUnmatched(key, now());
    } catch (error) {
      // The next run of the class, or runner, tries again.
      found.unmatched = false;
      throw error;
    }
    const [run, reasons] = await Promise.all([store.firstPending(key), this.explain(found.requirements)]);
    const limit =
      config.noMatchTimeoutMs === 0
        ? ""
        : `; it fails in ${formatDurationMs(config.noMatchTimeoutMs)} unless one comes`;
    const fields = { run_id: run?.runId, session_id: run?.sessionId, reason: reasons.join("; ") };
    log.warn(fields, `no runner matches a pending run${limit}`);
  }

  /**
   * Rows of runners appeared, changed or went. Calls `matched` when the classes know it; resolves when the clocks are stored
   * that this moved.
   */
  async runnersChanged(runnerIds: readonly string[] | "all", matched?: () => void): Promise<void> {
    const records = await this.#deps.store.runnerFacts(runnerIds);
    if (runnerIds === "all") this.#runners.clear();
    else for (const runnerId of runnerIds) this.#runners.delete(runnerId);
    for (const record of records) {
      this.#runners.set(record.facts.runnerId, record);
      this.#noteAbsence(record);
    }
    const clocks = this.#rematch(runnerIds === "all" ? this.#runners.keys() : runnerIds);
    matched?.();
    await clocks;
  }

  /** A runner that counted as absent is back. */
  async returned(runnerId: string): Promise<void> {
    if (this.#absent.delete(runnerId)) await this.#rematch([runnerId]);
  }

  async #rematch(runnerIds: Iterable<string>): Promise<void> {
    const changed = [...runnerIds];
    const clocks: Promise<void>[] = [];
    for (const [key, demandClass] of this.#classes) {
      for (const runnerId of changed) {
        const record = this.#runners.get(runnerId);
        if (record !== undefined && this.#fits(record, demandClass.requirements)) demandClass.suitable.add(runnerId);
        else demandClass.suitable.delete(runnerId);
      }
      if (demandClass.suitable.size === 0 && !demandClass.unmatched) clocks.push(this.#startClock(key));
      else if (demandClass.suitable.size > 0 && demandClass.unmatched) {
        demandClass.unmatched = false;
        clocks.push(this.#deps.store.setUnmatched(key, undefined));
      }
    }
    await Promise.all(clocks);
  }

  /** A runner that has left is expected back by the sessions whose files it holds, and by nobody else. */
  #fits({ facts, left }: RunnerRecord, requirements: Requirements): boolean {
    if (left && requirements.affinityRunnerId !== facts.runnerId) return false;
    return this.#isPresent(facts.runnerId) && suits(facts, requirements);
  }

  #isPresent(runnerId: string): boolean {
    return this.#runners.has(runnerId) && !this.#absent.has(runnerId);
  }

  #noteAbsence({ facts, bootId, lastHeardAt }: RunnerRecord): void {
    const silent = Math.max(lastHeardAt, this.#listensSince) < this.#awayBefore();
    if (silent && !this.#deps.hasStream(facts.runnerId, bootId)) this.#absent.add(facts.runnerId);
    else this.#absent.delete(facts.runnerId);
  }

  /** Who was not heard since then counts as absent. */
  #awayBefore(): number {
    return this.#deps.now() - this.#deps.config.runnerAwayMs;
  }

  /** True for pending requirements that no registered runner suits. */
  suitsNobody(requirements: Requirements): boolean {
    return this.#classes.get(demandClass(requirements))?.suitable.size === 0;
  }

  /** Why a run with these requirements is pending, one reason a runner. */
  async explain(requirements: Requirements): Promise<string[]> {
    const records = await this.#deps.store.runnerFacts("all");
    const expected = records.filter(({ left, facts }) => !left || facts.runnerId === requirements.affinityRunnerId);
    const runners = expected.map(({ facts, bootId, lastHeardAt }) => ({
      ...facts,
      presence: this.presence(facts.runnerId, bootId, lastHeardAt),
    }));
    return explain(runners, requirements);
  }

  presence(runnerId: string, bootId: string, lastHeardAt: number): RunnerFacts["presence"] {
    if (this.#deps.hasStream(runnerId, bootId)) return this.#deps.isProven(runnerId) ? "ONLINE" : "UNCONFIRMED";
    return this.#deps.now() - lastHeardAt < 2 * this.#deps.config.heartbeatMs ? "NO_STREAM" : "AWAY";
  }

  /**
   * Looks for runners that came to count as absent, fails the runs whose no-match clock has run out, and the resumes whose
   * runner is gone, and forgets classes without pending runs.
   */
  async sweep(): Promise<void> {
    const { store, config, now } = this.#deps;
    const awayBefore = this.#awayBefore();
    const silent = this.#listensSince < awayBefore ? await store.silentRunners(awayBefore) : [];
    const absent = silent.filter(({ runnerId, bootId }) => {
      return !this.#absent.has(runnerId) && !this.#deps.hasStream(runnerId, bootId);
    });
    for (const { runnerId } of absent) this.#absent.add(runnerId);
    if (absent.length > 0) await this.#rematch(absent.map(({ runnerId }) => runnerId));
    await this.#forgetAllEmpty();
    for (const [key, { requirements }] of this.#classes) {
      if (requirements.affinityRunnerId !== "" && !this.#isPresent(requirements.affinityRunnerId))
        await this.#failUnreachable(key, requirements);
    }
    if (config.noMatchTimeoutMs === 0) return;
    const before = now() - config.noMatchTimeoutMs;
    for (const key of await store.unmatchedClasses(before)) {
      // A runner may have come while the end of the clock is being stored.
      if (this.#classes.get(key)?.suitable.size !== 0) continue;
      const message = (await this.explain(requirementsOf(key))).join("; ");
      await this.#failAll(key, "UNMATCHED", message, before);
    }
  }

  async #forgetAllEmpty(): Promise<void> {
    const { moment } = this;
    const pending = new Set(await this.#deps.store.pendingClasses());
    const empty = [...this.#classes.keys()].filter((key) => !pending.has(key));
    const unmatched = empty.filter((key) => this.#classes.get(key)?.unmatched === true);
    this.forgetEmpty(empty, moment);
    const forgotten = unmatched.filter((key) => !this.#classes.has(key));
    await Promise.all(forgotten.map((key) => this.#deps.store.setUnmatched(key, undefined)));
  }

  /** The session's files are out of reach, so that no other runner can take these resumes (ADR 10). */
  async #failUnreachable(key: string, { affinityRunnerId }: Requirements): Promise<void> {
    const why = this.#runners.has(affinityRunnerId) ? "has been away too long" : "was removed";
    const message =
      `${affinityRunnerId}, which holds the session's files, ${why}; ` +
      "continue without them on another runner with: ao resume --any-runner";
    await this.#failAll(key, "AFFINITY_LOST", message, 0);
  }

  /** Some at a time, so that others get their turn; those that are left when it fails are met by the next sweep. */
  async #failAll(key: string, event: "UNMATCHED" | "AFFINITY_LOST", message: string, before: number): Promise<void> {
    const { store, now } = this.#deps;
    for (let failed = 1; failed > 0;) {
      const committed = await store.failPending(key, event, message, before, now());
      this.#act(committed);
      failed = committed.value;
    }
  }

  #act({ changes }: Committed<unknown>): void {
    this.#deps.perform(changes);
  }
}
