import type { Duration } from "@bufbuild/protobuf/wkt";
import { newId } from "../lib/ids.ts";
import type { Log } from "../lib/log.ts";
import { explain, suits, wantsOf } from "./core/match.ts";
import type { RunnerFacts, Wants } from "./core/match.ts";
import type { CoordinatorConfig } from "./config.ts";
import { StreamClosing_Reason } from "./runner-stream.ts";
import type { RunnerStream } from "./runner-stream.ts";
import { durationFromMs } from "./store/rows.ts";
import type { Changes, Committed, Offer, Offered, RunnerRecord, Store, Supply } from "./store/store.ts";

/** Runners that one offer command considers; more follow in the next. */
const MAX_SUPPLIES = 64;

/** A demand class in which runs are, or were lately, pending. */
interface DemandClass {
  readonly wants: Wants;
  /** Registered runners that could take its runs. */
  readonly suitable: Set<string>;
  /** When runs became pending last, on the dispatcher's own count of events. */
  pending: number;
  unmatched: boolean;
}

/** A runner with an open stream. */
interface Connection {
  readonly stream: RunnerStream;
  readonly timers: NodeJS.Timeout[];
  /** When there was reason to look at it last, on the dispatcher's own count of events. */
  freed: number;
  full: boolean;
  /** True after it let an offer lapse, until it is heard from. */
  deaf: boolean;
}

export interface DispatcherDeps {
  readonly store: Store;
  readonly config: CoordinatorConfig;
  readonly log: Log;
  readonly now: () => number;
  /** Acts on what a command changed. */
  readonly perform: (changes: Changes) => void;
  readonly runToken: (leaseId: string) => string;
}

/**
 * Brings pending runs and free runners together.
 *
 * What it keeps in memory is derived: open streams, and which runners suit which demand classes. Whether a run is
 * pending and a runner free is decided by the store, in the transaction that makes the offer. Runs of a class that no
 * connected runner suits are never looked at.
 */
export class Dispatcher {
  readonly #deps: DispatcherDeps;
  readonly #connections = new Map<string, Connection>();
  readonly #runners = new Map<string, RunnerRecord>();
  readonly #classes = new Map<string, DemandClass>();
  /** Runners that have been away so long that they count as absent. */
  readonly #absent = new Set<string>();
  /** Epoch milliseconds since when runners can be heard; silence before that is not theirs. */
  #listensSince = 0;
  /** Counts events, so that an answer of the store can be told from what happened while it was under way. */
  #clock = 0;
  #dirty = false;
  #running = false;
  #pumping: Promise<void> | undefined;
  #retry: { readonly at: number; readonly timer: NodeJS.Timeout } | undefined;
  #stopped = false;

  constructor(deps: DispatcherDeps) {
    this.#deps = deps;
  }

  /** Takes back what an earlier coordinator offered, and learns what waits. */
  async start(): Promise<void> {
    const { store, now } = this.#deps;
    this.#act(await store.withdrawOffers(undefined, now()));
    await this.resume();
  }

  /**
   * Begins anew to count how long runners are silent and how long nobody matches a run: while the coordinator was away or
   * paused, no runner could be heard.
   */
  async resume(): Promise<void> {
    const { store, now } = this.#deps;
    this.#listensSince = now();
    const demandClasses = await store.pendingClasses();
    await Promise.all(demandClasses.map((key) => store.setUnmatched(key, undefined)));
    await this.runnersChanged("all");
    await this.pending(demandClasses);
  }

  /** Ends every stream. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#retry?.timer);
    for (const connection of this.#connections.values()) this.#drop(connection, StreamClosing_Reason.SHUTDOWN);
    await this.#pumping;
  }

  get streams(): number {
    return this.#connections.size;
  }

  hasStream(runnerId: string, bootId: string): boolean {
    return this.#connections.get(runnerId)?.stream.bootId === bootId;
  }

  /** The stream counts from now on; an older one of its runner ends, and its open offers are sent again on this one. */
  async open(stream: RunnerStream): Promise<void> {
    const { runnerId, bootId } = stream;
    const older = this.#connections.get(runnerId);
    if (older !== undefined) this.#drop(older, StreamClosing_Reason.SUPERSEDED);
    const connection: Connection = {
      stream,
      timers: this.#timers(stream),
      freed: ++this.#clock,
      full: false,
      deaf: false,
    };
    this.#connections.set(runnerId, connection);
    if (this.#absent.delete(runnerId)) await this.#rematch([runnerId]);
    if (older?.stream.bootId === bootId) {
      for (const offer of await this.#deps.store.openOffers(runnerId)) this.#send(offer);
    }
    for (const directive of await this.#deps.store.directives(runnerId)) {
      if (directive.kind.case !== undefined) stream.send(directive.kind);
    }
    this.#pump();
  }

  /** The stream has ended. Its open offers return to the queue at once, unless a newer stream has them. */
  async closed(stream: RunnerStream): Promise<void> {
    const connection = this.#connections.get(stream.runnerId);
    if (connection?.stream !== stream) return;
    this.#drop(connection);
    await this.#takeBack(stream.runnerId);
  }

  /** Ends the stream of a runner that was replaced or removed. */
  end(runnerId: string, reason: StreamClosing_Reason): void {
    const connection = this.#connections.get(runnerId);
    if (connection !== undefined) this.#drop(connection, reason);
  }

  #drop(connection: Connection, reason?: StreamClosing_Reason): void {
    for (const timer of connection.timers) clearTimeout(timer);
    this.#connections.delete(connection.stream.runnerId);
    if (reason !== undefined) connection.stream.close(reason);
  }

  #timers(stream: RunnerStream): NodeJS.Timeout[] {
    const { streamKeepaliveMs, streamMaxAgeMs } = this.#deps.config;
    const age = streamMaxAgeMs * (0.9 + 0.2 * Math.random());
    const recycle = (): void => {
      const connection = this.#connections.get(stream.runnerId);
      if (connection?.stream === stream) stream.close(StreamClosing_Reason.RECYCLE);
    };
    const keepalive = setInterval(() => void this.#keepalive(stream), streamKeepaliveMs);
    return [keepalive, setTimeout(recycle, age)];
  }

  async #keepalive(stream: RunnerStream): Promise<void> {
    // A runner that has not read the last message does not need another one.
    if (!stream.idle) return;
    try {
      const directives = await this.#deps.store.directives(stream.runnerId);
      stream.send({ case: "keepalive", value: { directives } });
    } catch (error) {
      this.#deps.log.warn({ err: error, runner_id: stream.runnerId }, "a keep-alive could not be sent");
    }
  }

  /** Tells a runner to stop a run, or that an offer no longer stands. Without a stream the next answer tells it. */
  tellToStop(runnerId: string, stop: { runId: string; leaseId: string; grace: Duration; reason: string }): void {
    this.#connections.get(runnerId)?.stream.send({ case: "stop", value: stop });
  }

  tellToDrain(runnerId: string, reason: string): void {
    this.#connections.get(runnerId)?.stream.send({ case: "drain", value: { reason } });
  }

  /** A runner gave a sign of life. */
  heard(runnerId: string): void {
    const connection = this.#connections.get(runnerId);
    if (connection?.deaf !== true) return;
    connection.deaf = false;
    this.#pump();
  }

  /** These runners let an offer lapse: they get none until they are heard from. */
  lapsed(runnerIds: Iterable<string>): void {
    for (const runnerId of runnerIds) {
      const connection = this.#connections.get(runnerId);
      if (connection !== undefined) connection.deaf = true;
    }
  }

  /** These runners may be able to take more. */
  freed(runnerIds: Iterable<string>): void {
    for (const runnerId of runnerIds) {
      const connection = this.#connections.get(runnerId);
      if (connection === undefined) continue;
      connection.freed = ++this.#clock;
      connection.full = false;
    }
    this.#pump();
  }

  /** Runs became pending in these classes. */
  async pending(demandClasses: Iterable<string>): Promise<void> {
    const unmatched: string[] = [];
    for (const key of demandClasses) {
      const found = this.#classes.get(key) ?? this.#addClass(key);
      found.pending = ++this.#clock;
      if (found.suitable.size === 0) unmatched.push(key);
    }
    this.#pump();
    await Promise.all(unmatched.map((key) => this.#startClock(key)));
  }

  #addClass(key: string): DemandClass {
    const wants = wantsOf(key);
    const suitable = new Set<string>();
    for (const record of this.#runners.values()) {
      if (this.#fits(record, wants)) suitable.add(record.facts.runnerId);
    }
    const added = { wants, suitable, pending: 0, unmatched: false };
    this.#classes.set(key, added);
    return added;
  }

  async #startClock(key: string): Promise<void> {
    const { store, now, log } = this.#deps;
    const found = this.#classes.get(key);
    if (found === undefined) return;
    const first = !found.unmatched;
    found.unmatched = true;
    await store.setUnmatched(key, now());
    if (first) log.warn({ reasons: await this.explain(found.wants) }, "no runner matches a pending run");
  }

  /** Rows of runners appeared, changed or went. */
  async runnersChanged(runnerIds: Iterable<string> | "all"): Promise<void> {
    const ids = runnerIds === "all" ? "all" : [...runnerIds];
    const records = await this.#deps.store.runnerFacts(ids);
    if (ids === "all") this.#runners.clear();
    else for (const runnerId of ids) this.#runners.delete(runnerId);
    for (const record of records) {
      this.#runners.set(record.facts.runnerId, record);
      this.#noteAbsence(record);
    }
    const clocks = this.#rematch(ids === "all" ? this.#runners.keys() : ids);
    if (ids !== "all") this.freed(ids);
    await clocks;
  }

  /** Looks again whether these runners suit the classes. Resolves when the no-match clocks are stored that this moved. */
  async #rematch(runnerIds: Iterable<string>): Promise<void> {
    const changed = [...runnerIds];
    const clocks: Promise<void>[] = [];
    for (const [key, demandClass] of this.#classes) {
      for (const runnerId of changed) {
        const record = this.#runners.get(runnerId);
        if (record !== undefined && this.#fits(record, demandClass.wants)) demandClass.suitable.add(runnerId);
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

  #fits({ facts }: RunnerRecord, wants: Wants): boolean {
    return this.#isPresent(facts.runnerId) && suits(facts, wants);
  }

  #isPresent(runnerId: string): boolean {
    return this.#runners.has(runnerId) && !this.#absent.has(runnerId);
  }

  #noteAbsence({ facts, bootId, lastHeardAt }: RunnerRecord): void {
    const silent = Math.max(lastHeardAt, this.#listensSince) < this.#awayBefore();
    if (silent && !this.hasStream(facts.runnerId, bootId)) this.#absent.add(facts.runnerId);
    else this.#absent.delete(facts.runnerId);
  }

  /** Who was not heard since then counts as absent. */
  #awayBefore(): number {
    return this.#deps.now() - this.#deps.config.runnerAwayMs;
  }

  /** Why a run with these wants is pending, one reason a runner. */
  async explain(wants: Wants): Promise<string[]> {
    const records = await this.#deps.store.runnerFacts("all");
    return explain(
      records.map(({ facts, bootId, lastHeardAt }) => ({
        ...facts,
        presence: this.presence(facts.runnerId, bootId, lastHeardAt),
      })),
      wants,
    );
  }

  presence(runnerId: string, bootId: string, lastHeardAt: number): RunnerFacts["presence"] {
    if (this.hasStream(runnerId, bootId)) return "ONLINE";
    return this.#deps.now() - lastHeardAt < 2 * this.#deps.config.heartbeatMs ? "NO_STREAM" : "AWAY";
  }

  /**
   * Looks for runners that came to count as absent, fails the runs whose no-match clock has run out, and the resumes whose
   * runner is gone, and forgets classes in which nothing waits.
   */
  async sweep(): Promise<void> {
    const { store, config, now } = this.#deps;
    const awayBefore = this.#awayBefore();
    const silent = this.#listensSince < awayBefore ? await store.silentRunners(awayBefore) : [];
    const absent = silent.filter((runnerId) => !this.#absent.has(runnerId) && !this.#connections.has(runnerId));
    for (const runnerId of absent) this.#absent.add(runnerId);
    if (absent.length > 0) await this.#rematch(absent);
    await this.#forgetClasses();
    for (const [key, { wants }] of this.#classes) {
      if (wants.affinityRunnerId !== "" && !this.#isPresent(wants.affinityRunnerId)) await this.#strand(key, wants);
    }
    if (config.noMatchTimeoutMs === 0) return;
    const before = now() - config.noMatchTimeoutMs;
    for (const key of await store.unmatchedClasses(before)) {
      // A runner may have come while the end of the clock is being stored.
      if (this.#classes.get(key)?.suitable.size !== 0) continue;
      const message = (await this.explain(wantsOf(key))).join("; ");
      this.#act(await store.failPending(key, "UNMATCHED", message, before, now()));
    }
  }

  async #forgetClasses(): Promise<void> {
    const before = this.#clock;
    const waiting = new Set(await this.#deps.store.pendingClasses());
    for (const [key, { pending }] of this.#classes) {
      if (pending <= before && !waiting.has(key)) this.#classes.delete(key);
    }
  }

  async #strand(key: string, { affinityRunnerId }: Wants): Promise<void> {
    const { store, now } = this.#deps;
    const why = this.#runners.has(affinityRunnerId) ? "has been away too long" : "was removed";
    const message =
      `${affinityRunnerId}, which holds the session's files, ${why}; ` +
      "continue without them on another runner with: ao resume --any-runner";
    this.#act(await store.failPending(key, "STRANDED", message, 0, now()));
  }

  #pump(): void {
    this.#dirty = true;
    if (!this.#stopped && !this.#running) this.#pumping = this.#run();
  }

  async #run(): Promise<void> {
    const { store, config, now, log } = this.#deps;
    let fruitless = 0;
    this.#running = true;
    try {
      while (this.#dirty || fruitless < this.#connections.size) {
        if (this.#dirty) fruitless = 0;
        this.#dirty = false;
        const supplies = this.#supplies();
        if (supplies.length === 0 || this.#stopped) return;
        const before = this.#counters(supplies);
        const offered = await store.offer(supplies, () => newId("lease"), now() + config.acceptDeadlineMs, now());
        this.#settle(offered, before);
        fruitless = offered.value.offers.length > 0 ? 0 : fruitless + supplies.length;
      }
    } catch (error) {
      log.error({ err: error }, "offers could not be stored; trying again in a second");
      this.#retryAt(now() + 1000);
    } finally {
      // In the same step as the loop ends: a wish to look again in between would be lost.
      this.#running = false;
    }
  }

  /** Runners to ask for, least recently asked first, with the classes in which runs wait for them. */
  #supplies(): Supply[] {
    const waiting = [...this.#classes].filter(([, { suitable }]) => suitable.size > 0);
    if (waiting.length === 0) return [];
    const supplies: Supply[] = [];
    for (const [runnerId, connection] of this.#connections) {
      if (supplies.length === MAX_SUPPLIES) break;
      if (connection.full || connection.deaf) continue;
      const demandClasses = waiting.filter(([, { suitable }]) => suitable.has(runnerId)).map(([key]) => key);
      if (demandClasses.length > 0) supplies.push({ runnerId, bootId: connection.stream.bootId, demandClasses });
    }
    this.#askLast(supplies);
    return supplies;
  }

  #askLast(runners: readonly { readonly runnerId: string }[]): void {
    for (const { runnerId } of runners) {
      const connection = this.#connections.get(runnerId);
      if (connection === undefined) continue;
      this.#connections.delete(runnerId);
      this.#connections.set(runnerId, connection);
    }
  }

  #counters(supplies: readonly Supply[]): Map<string, number> {
    const counters = new Map<string, number>();
    for (const { runnerId, demandClasses } of supplies) {
      counters.set(runnerId, this.#connections.get(runnerId)?.freed ?? 0);
      for (const key of demandClasses) counters.set(key, this.#classes.get(key)?.pending ?? 0);
    }
    return counters;
  }

  /** Sends what was offered, and remembers who is full and where nothing waits, unless that changed meanwhile. */
  #settle(offered: Committed<Offered>, before: Map<string, number>): void {
    const { offers, fullRunnerIds, emptyClasses, retryAt } = offered.value;
    this.#act(offered);
    // Of those that were asked, who got something is the last to be asked for the next run.
    this.#askLast(offers);
    for (const offer of offers) this.#send(offer);
    for (const runnerId of fullRunnerIds) {
      const connection = this.#connections.get(runnerId);
      if (connection !== undefined && connection.freed === before.get(runnerId)) connection.full = true;
    }
    for (const key of emptyClasses) {
      if (this.#classes.get(key)?.pending === before.get(key)) this.#classes.delete(key);
    }
    if (retryAt !== undefined) this.#retryAt(retryAt);
  }

  /** Looks again at this time, or earlier when that is planned. */
  #retryAt(at: number): void {
    if (this.#retry !== undefined && this.#retry.at <= at) return;
    clearTimeout(this.#retry?.timer);
    const again = (): void => {
      this.#retry = undefined;
      this.#pump();
    };
    const timer = setTimeout(again, Math.max(1, at - this.#deps.now()));
    timer.unref();
    this.#retry = { at, timer };
  }

  #send(offer: Offer): void {
    const connection = this.#connections.get(offer.runnerId);
    if (connection === undefined || connection.stream.bootId !== offer.bootId) {
      void this.#takeBack(offer.runnerId);
      return;
    }
    const { runId, leaseId, attempt, invocation, timeoutMs, idleTimeoutMs } = offer;
    connection.stream.send({
      case: "offer",
      value: {
        runId,
        leaseId,
        attempt,
        acceptDeadline: durationFromMs(Math.max(0, offer.acceptBy - this.#deps.now())),
        invocation,
        runToken: this.#deps.runToken(leaseId),
        ...(timeoutMs === undefined ? {} : { timeout: durationFromMs(timeoutMs) }),
        ...(idleTimeoutMs === undefined ? {} : { idleTimeout: durationFromMs(idleTimeoutMs) }),
      },
    });
  }

  /** Returns a runner's open offers to the queue. */
  async #takeBack(runnerId: string): Promise<void> {
    const { store, now, log } = this.#deps;
    try {
      this.#act(await store.withdrawOffers(runnerId, now()));
    } catch (error) {
      log.warn({ err: error, runner_id: runnerId }, "offers could not be taken back; their deadline will do it");
    }
  }

  #act({ changes }: Committed<unknown>): void {
    this.#deps.perform(changes);
  }
}
