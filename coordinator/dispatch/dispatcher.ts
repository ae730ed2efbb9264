import type { Duration } from "@bufbuild/protobuf/wkt";
import { newId } from "../../lib/ids.ts";
import type { RunnerFacts, Requirements } from "../core/match.ts";
import { DemandIndex } from "./demand-index.ts";
import type { DemandIndexDeps } from "./demand-index.ts";
import { StreamClosing_Reason } from "./runner-stream.ts";
import type { RunnerStream } from "./runner-stream.ts";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import type { Committed, Offer, Offered, Candidate } from "../store/store.ts";

/** Runners that one offer command considers; more follow in the next. */
const MAX_CANDIDATES = 64;

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

export interface DispatcherDeps extends Omit<DemandIndexDeps, "hasStream" | "tick"> {
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
  readonly #demand: DemandIndex;
  /** Counts events, so that an answer of the store can be told from what happened while it was under way. */
  #clock = 0;
  #dirty = false;
  #running = false;
  #pumping: Promise<void> | undefined;
  #retry: { readonly at: number; readonly timer: NodeJS.Timeout } | undefined;
  #stopped = false;

  constructor(deps: DispatcherDeps) {
    this.#deps = deps;
    this.#demand = new DemandIndex({
      ...deps,
      hasStream: (runnerId, bootId) => this.hasStream(runnerId, bootId),
      tick: () => ++this.#clock,
    });
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
    await this.pending(await this.#demand.restart());
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
    await this.#demand.returned(runnerId);
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
    const clocks = this.#demand.pending(demandClasses);
    this.#pump();
    await clocks;
  }

  /** Rows of runners appeared, changed or went. */
  async runnersChanged(runnerIds: Iterable<string>): Promise<void> {
    const ids = [...runnerIds];
    await this.#demand.runnersChanged(ids, () => this.freed(ids));
  }

  /** Why a run with these requirements is pending, one reason a runner. */
  explain(requirements: Requirements): Promise<string[]> {
    return this.#demand.explain(requirements);
  }

  presence(runnerId: string, bootId: string, lastHeardAt: number): RunnerFacts["presence"] {
    return this.#demand.presence(runnerId, bootId, lastHeardAt);
  }

  /** Fails what waits in vain, see `DemandIndex.sweep`. */
  sweep(): Promise<void> {
    return this.#demand.sweep();
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
        const candidates = this.#candidates();
        if (candidates.length === 0 || this.#stopped) return;
        const before = this.#counters(candidates);
        const offered = await store.offer(candidates, () => newId("lease"), now() + config.acceptDeadlineMs, now());
        this.#settle(offered, before);
        fruitless = offered.value.offers.length > 0 ? 0 : fruitless + candidates.length;
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
  #candidates(): Candidate[] {
    const waiting = this.#demand.matched();
    if (waiting.length === 0) return [];
    const candidates: Candidate[] = [];
    for (const [runnerId, connection] of this.#connections) {
      if (candidates.length === MAX_CANDIDATES) break;
      if (connection.full || connection.deaf) continue;
      const demandClasses = waiting.filter(([, { suitable }]) => suitable.has(runnerId)).map(([key]) => key);
      if (demandClasses.length > 0) candidates.push({ runnerId, bootId: connection.stream.bootId, demandClasses });
    }
    this.#askLast(candidates);
    return candidates;
  }

  #askLast(runners: readonly { readonly runnerId: string }[]): void {
    for (const { runnerId } of runners) {
      const connection = this.#connections.get(runnerId);
      if (connection === undefined) continue;
      this.#connections.delete(runnerId);
      this.#connections.set(runnerId, connection);
    }
  }

  #counters(candidates: readonly Candidate[]): Map<string, number> {
    const counters = new Map<string, number>();
    for (const { runnerId, demandClasses } of candidates) {
      counters.set(runnerId, this.#connections.get(runnerId)?.freed ?? 0);
      for (const key of demandClasses) counters.set(key, this.#demand.get(key)?.pending ?? 0);
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
      if (this.#demand.get(key)?.pending === before.get(key)) this.#demand.forget(key);
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
