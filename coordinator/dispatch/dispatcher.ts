import assert from "node:assert";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import type { Duration } from "@bufbuild/protobuf/wkt";
import { StreamClosing_Reason } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import { newId } from "../../lib/ids.ts";
import { CommitError } from "../../lib/sqlite.ts";
import type { RunnerFacts, Requirements } from "../core/match.ts";
import type { Committed, Offer, Offered, Candidate } from "../store/store.ts";
import { Connections } from "./connections.ts";
import { DemandIndex } from "./demand-index.ts";
import type { DemandIndexDeps } from "./demand-index.ts";
import type { RunnerStream, StreamEvent } from "./runner-stream.ts";

/*
 * The dispatcher brings pending runs and free runners together.
 *
 * What it knows is derived, and may be out of date: `Connections` has the open streams and who of them can be asked,
 * `DemandIndex` has which registered runners suit which demand class. Whether a run is pending and a runner free is decided
 * by the store, in the transaction that makes the offer. So it is enough that every event which could make an offer possible
 * is followed by a round; a round too many costs one look and changes nothing.
 *
 * A round asks the store to offer runs to at most MAX_CANDIDATES runners, those that were asked longest ago, of those that
 *   - have a stream, and have said that it arrives if they are of those that do,
 *   - are not known to be full,
 *   - are not unresponsive,
 *   - do not have large offers on their way already,
 *   - and suit a demand class that may have pending runs.
 * Without such runners there is nothing to do. So runs that no connected runner suits are never looked at.
 *
 * MODES
 *
 *   idle            No round is under way, and none is needed.
 *   offering        Rounds follow each other until every connected runner was asked in vain, or nobody can be asked.
 *   offering-again  As offering, but something happened during the round that is under way: its answer does not end the
 *                   series, and the count of those who were asked in vain begins anew.
 *   stopped         Streams have ended. Nothing is offered any more.
 *
 *   idle ──wake──▶ offering ──wake──▶ offering-again
 *    ▲                │ ▲                   │
 *    └──nothing left──┘ └────next round─────┘            stop: from each of them to stopped
 *
 * If the store fails, the dispatcher becomes idle and wakes itself a second later.
 *
 * EVENTS
 *
 *   start            Withdraws what an earlier coordinator offered, then as resume.
 *   resume           Time was lost: clocks of silence and of a missing match begin anew, every class counts as pending.
 *   pending          Runs became pending in classes: the index learns of them. Wakes.
 *   runnersChanged   Rows of runners appeared, changed or went: the index matches them again, then as freed.
 *   freed            A runner may have room: it is no longer known to be full. Wakes.
 *   open             A stream begins. It replaces an older one of its runner, and gets that one's open offers. Wakes.
 *   room             What was on its way to a runner has gone out: it can be asked again. Wakes.
 *   closed           A stream ended: its open offers are withdrawn, which makes their runs pending. When it was the runner's
 *                    end that broke it, the offer that was sent first counts as refused: it may be what broke it.
 *   lapsed           A runner let an offer lapse: it is unresponsive, and gets no offers.
 *   proven           A runner has read from its stream, and said so: it can be asked. Wakes.
 *   heard            A sign of life: an unresponsive runner can be asked again. Wakes if it was unresponsive.
 *   stop             Every stream ends.
 */
type Mode = "idle" | "offering" | "offering-again" | "stopped";

/** Runners that one offer command considers; more follow in the next. */
const MAX_CANDIDATES = 64;

/** Of an offer beside its invocation: ids, token, limits. */
const OFFER_BYTES = 256;

/** Pause after a failure of the store. */
const FAILURE_PAUSE_MS = 1000;

export interface DispatcherDeps extends Omit<DemandIndexDeps, "hasStream" | "isProven"> {
  readonly runToken: (leaseId: string) => string;
}

/** See the head of this file. */
export class Dispatcher {
  readonly #deps: DispatcherDeps;
  readonly #connections: Connections;
  readonly #demand: DemandIndex;
  #mode: Mode = "idle";
  /** The rounds that are under way, or the last ones. Never rejects. */
  #rounds: Promise<void> = Promise.resolve();
  #wakeUp: { readonly at: number; readonly timer: NodeJS.Timeout } | undefined;

  constructor(deps: DispatcherDeps) {
    this.#deps = deps;
    this.#connections = new Connections(deps);
    this.#demand = new DemandIndex({
      ...deps,
      hasStream: (runnerId, bootId) => this.hasStream(runnerId, bootId),
      isProven: (runnerId) => this.#connections.isProven(runnerId),
    });
  }

  /** Takes back what an earlier coordinator offered, and learns which runs are pending. */
  async start(): Promise<void> {
    assert.equal(this.#connections.size, 0, "offers are withdrawn before streams open");
    const { store, now } = this.#deps;
    this.#act(await store.withdrawOffers(undefined, undefined, now()));
    await this.resume();
  }

  /**
   * Begins anew to count how long runners are silent and how long nobody matches a run: while the coordinator was away or
   * paused, no runner could be heard.
   */
  async resume(): Promise<void> {
    await this.pending(await this.#demand.restart());
  }

  /** Ends every stream. Resolves when no offer is being made any more. */
  async stop(): Promise<void> {
    this.#mode = "stopped";
    clearTimeout(this.#wakeUp?.timer);
    this.#connections.endAll(StreamClosing_Reason.SHUTDOWN);
    await this.#rounds;
  }

  /** How many streams are open. */
  get streams(): number {
    return this.#connections.size;
  }

  hasStream(runnerId: string, bootId: string): boolean {
    return this.#connections.streamOf(runnerId)?.bootId === bootId;
  }

  /** The stream counts from now on; an older one of its runner ends, and its open offers are sent again on this one. */
  async open(stream: RunnerStream): Promise<void> {
    const { runnerId, bootId } = stream;
    const older = this.#connections.add(stream);
    stream.whenRoom(() => this.#wake());
    await this.#demand.returned(runnerId);
    if (older?.bootId === bootId) {
      for (const offer of await this.#deps.store.openOffers(runnerId)) this.#send(offer);
    }
    for (const directive of await this.#deps.store.directives(runnerId)) {
      if (directive.kind.case !== undefined) stream.send(directive.kind);
    }
    this.#wake();
  }

  /** The stream has ended. Its open offers return to the queue at once, unless a newer stream has them. */
  async closed(stream: RunnerStream): Promise<void> {
    const unanswered = stream.broken ? "its stream ended while the offer was open" : undefined;
    if (this.#connections.remove(stream)) await this.#takeBack(stream.runnerId, unanswered);
  }

  /** Ends the stream of a runner that was replaced or removed. */
  end(runnerId: string, reason: StreamClosing_Reason): void {
    this.#connections.end(runnerId, reason);
  }

  /** Tells a runner to stop a run, or that an offer is withdrawn. */
  tellToStop(runnerId: string, stop: { runId: string; leaseId: string; grace: Duration; reason: string }): void {
    this.#connections.send(runnerId, { case: "stop", value: stop });
  }

  tellToDrain(runnerId: string, reason: string): void {
    this.#connections.send(runnerId, { case: "drain", value: { reason } });
  }

  /** A runner gave a sign of life. */
  heard(runnerId: string): void {
    if (this.#connections.noteHeard(runnerId)) this.#wake();
  }

  /** A runner has read from the stream with this id; empty names none. */
  proven(runnerId: string, streamId: string): void {
    if (this.#connections.noteProven(runnerId, streamId)) this.#wake();
  }

  /** These runners let an offer lapse: they get none until they are heard from. */
  lapsed(runnerIds: Iterable<string>): void {
    this.#connections.noteUnresponsive(runnerIds);
  }

  /** These runners may be able to take more. */
  freed(runnerIds: Iterable<string>): void {
    this.#connections.noteFreed(runnerIds);
    this.#wake();
  }

  /** Runs became pending in these classes. */
  async pending(demandClasses: Iterable<string>): Promise<void> {
    const clocks = this.#demand.pending(demandClasses);
    this.#wake();
    await clocks;
  }

  /** Rows of runners appeared, changed or went. */
  async runnersChanged(runnerIds: Iterable<string>): Promise<void> {
    const ids = [...runnerIds];
    await this.#demand.runnersChanged(ids, () => this.freed(ids));
  }

  /** True when no registered runner suits these requirements, so that a no-match clock runs. */
  suitsNobody(requirements: Requirements): boolean {
    return this.#demand.suitsNobody(requirements);
  }

  /** Why a run with these requirements is pending, one reason a runner. */
  explain(requirements: Requirements): Promise<string[]> {
    return this.#demand.explain(requirements);
  }

  /** Registered runners that could take the runs of a class. */
  suitable(demandClass: string): Iterable<string> {
    return this.#demand.suitable(demandClass);
  }

  presence(runnerId: string, bootId: string, lastHeardAt: number): RunnerFacts["presence"] {
    return this.#demand.presence(runnerId, bootId, lastHeardAt);
  }

  /** Fails runs that nobody will ever take, see `DemandIndex.sweep`. */
  sweep(): Promise<void> {
    return this.#demand.sweep();
  }

  /** There may be something to offer. */
  #wake(): void {
    switch (this.#mode) {
      case "idle":
        this.#rounds = this.#offerInRounds();
        return;
      case "offering":
        this.#mode = "offering-again";
        return;
      case "offering-again":
      case "stopped":
        return;
      default:
        this.#mode satisfies never;
    }
  }

  async #offerInRounds(): Promise<void> {
    assert.equal(this.#mode, "idle", "one series of rounds at a time");
    const { now, log } = this.#deps;
    let askedInVain = 0;
    try {
      for (;;) {
        this.#mode = "offering";
        const candidates = this.#candidates();
        if (candidates.length === 0) return;
        const offers = await this.#offerTo(candidates);
        if (this.#isStopped()) return;
        askedInVain = this.#mustOfferAgain() || offers > 0 ? 0 : askedInVain + candidates.length;
        if (!this.#mustOfferAgain() && askedInVain >= this.#connections.size) return;
      }
    } catch (error) {
      // Who opened the store has said that it cannot be written, and says it rarely.
      const level = error instanceof CommitError ? "debug" : "error";
      log[level]({ err: error }, "offers could not be stored; trying again in a second");
      this.#wakeAt(now() + FAILURE_PAUSE_MS);
    } finally {
      // In the same step as the loop ends: a wake in between would be lost.
      if (!this.#isStopped()) this.#mode = "idle";
    }
  }

  /** Looks at the mode anew: while something was awaited it may have changed, which the compiler does not know. */
  #isStopped(): boolean {
    return this.#mode === "stopped";
  }

  #mustOfferAgain(): boolean {
    return this.#mode === "offering-again";
  }

  /** How many runs were offered. */
  async #offerTo(candidates: readonly Candidate[]): Promise<number> {
    const { store, config, now } = this.#deps;
    const moments = { runners: this.#connections.moment, classes: this.#demand.moment };
    const offered = await store.offer(candidates, () => newId("lease"), now() + config.acceptDeadlineMs, now());
    this.#settle(offered, moments);
    return offered.value.offers.length;
  }

  /** Runners to ask, the least recently asked first, with the classes that may have runs for them. */
  #candidates(): Candidate[] {
    const matched = this.#demand.matched();
    if (matched.length === 0) return [];
    const candidates: Candidate[] = [];
    for (const { runnerId, bootId } of this.#connections.available()) {
      if (candidates.length === MAX_CANDIDATES) break;
      const demandClasses = matched.filter(([, { suitable }]) => suitable.has(runnerId)).map(([key]) => key);
      if (demandClasses.length > 0) candidates.push({ runnerId, bootId, demandClasses });
    }
    this.#connections.asked(candidates);
    return candidates;
  }

  /** Sends what was offered, and remembers who is full and which classes are empty, unless that changed meanwhile. */
  #settle(offered: Committed<Offered>, asked: { readonly runners: number; readonly classes: number }): void {
    const { offers, fullRunnerIds, emptyClasses, retryAt } = offered.value;
    this.#act(offered);
    // Of those that were asked, who got something is the last to be asked for the next run.
    this.#connections.asked(offers);
    for (const offer of offers) this.#send(offer);
    this.#connections.noteFull(fullRunnerIds, asked.runners);
    this.#demand.forgetEmpty(emptyClasses, asked.classes);
    if (retryAt !== undefined) this.#wakeAt(retryAt);
  }

  /** Wakes at this time (epoch milliseconds), or earlier when that is planned. */
  #wakeAt(at: number): void {
    if (this.#wakeUp !== undefined && this.#wakeUp.at <= at) return;
    clearTimeout(this.#wakeUp?.timer);
    const wake = (): void => {
      this.#wakeUp = undefined;
      this.#wake();
    };
    const timer = setTimeout(wake, Math.max(1, at - this.#deps.now()));
    timer.unref();
    this.#wakeUp = { at, timer };
  }

  #send(offer: Offer): void {
    if (!this.hasStream(offer.runnerId, offer.bootId)) {
      void this.#takeBack(offer.runnerId, undefined);
      return;
    }
    const { runId, leaseId, attempt, invocation, timeoutMs, idleTimeoutMs, hooks } = offer;
    const event: StreamEvent = {
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
        ...(hooks === undefined ? {} : { hooks }),
      },
    };
    this.#connections.send(offer.runnerId, event, OFFER_BYTES + offer.bytes);
  }

  /** Returns a runner's open offers to the queue; `unanswered` says why, when the runner had them and broke off. */
  async #takeBack(runnerId: string, unanswered: string | undefined): Promise<void> {
    const { store, now, log } = this.#deps;
    try {
      this.#act(await store.withdrawOffers(runnerId, unanswered, now()));
    } catch (error) {
      log.warn({ err: error, runner_id: runnerId }, "offers could not be taken back; their deadline will do it");
    }
  }

  #act({ changes }: Committed<unknown>): void {
    this.#deps.perform(changes);
  }
}
