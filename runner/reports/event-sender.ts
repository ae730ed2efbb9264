import { create } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import type { ExecutorEvent } from "../../gen/agentrunner/v1/executor_pb.ts";
import { EventBatchSchema, ReportVerdict_Kind } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import type {
  AppendEventsResponse,
  EventBatch,
  EventBatchVerdict,
} from "../../gen/agentrunner/v1/runner_service_pb.ts";
import type { Log } from "../../lib/log.ts";
import { oneItem } from "../one-item.ts";
import { CLIENT_WRITE_MAX_BYTES } from "../../lib/protocol/limits.ts";
import { BatchSender } from "./batch-sender.ts";
import { BATCH_MIN_BYTES, BatchSize } from "./batch-size.ts";
import { reactionTo } from "./send-failure.ts";
import { BUFFER_MAX_BYTES, HOLD_BYTES, commit, dropMarker, gotOn, markGap, sizeOf } from "./lease-events.ts";
import type { LeaseEvents } from "./lease-events.ts";
import { SendTrouble } from "./send-trouble.ts";
import type { Uplink } from "./uplink.ts";
import { waiting } from "./waiting.ts";

/** The protocol's limits of one AppendEvents. */
const BATCH_MAX_LEASES = 500;
const LEASE_MAX_EVENTS = 2_000;

/** Largest event that fits in a message, with what the request says beside it. */
const EVENT_MAX_BYTES = CLIENT_WRITE_MAX_BYTES - 1024;

/** A coordinator that took nothing of a lease for so long is away: its executor is held up no longer. */
const AWAY_MS = 30_000;

/** Longest wait of a final report for its events, however steadily they are taken. */
const FINISH_MAX_MS = 300_000;

/** Sends a batch of about `bytes`. Rejects with ConnectError. */
export type SendEvents = (batches: EventBatch[], bytes: number) => Promise<AppendEventsResponse>;

/** What goes into one call. */
interface Taken {
  readonly batches: readonly EventBatch[];
  readonly bytes: number;
}

/**
 * Delivers the events of all leases, numbered from 1 in each. One AppendEvents is in flight; what comes meanwhile goes
 * together in the next, an equal share of each lease, so that the backlog of one run does not delay the end of another. What
 * cannot be sent is sent again as it was; only an event that is larger than a message may be, or that is refused for what it
 * says, is dropped. While more than 4 MiB of a lease wait there is no room for more, unless the coordinator has taken
 * nothing for 30 s: it is away then, and an executor does not wait for it. What comes beyond 8 MiB is dropped, and a
 * marker counts it.
 */
export class EventSender {
  readonly #uplink: Uplink;
  readonly #batches: BatchSender<Taken>;
  readonly #send: SendEvents;
  readonly #log: Log;
  readonly #onOver: (leaseId: string, verdict: EventBatchVerdict) => void;
  readonly #leases = new Map<string, LeaseEvents>();
  readonly #size = new BatchSize(LEASE_MAX_EVENTS);
  readonly #trouble: SendTrouble;

  /** `onOver` hears of a lease that was answered STALE or UNKNOWN. */
  constructor(
    uplink: Uplink,
    send: SendEvents,
    log: Log,
    onOver: (leaseId: string, verdict: EventBatchVerdict) => void,
  ) {
    this.#uplink = uplink;
    this.#batches = new BatchSender(uplink, {
      take: (storeId) => this.#take(storeId),
      attempt: (taken) => this.#attempt(taken),
    });
    this.#send = send;
    this.#log = log;
    this.#trouble = new SendTrouble("events", log);
    this.#onOver = onOver;
  }

  append(lease: { runId: string; leaseId: string; storeId: string }, event: ExecutorEvent): void {
    let buffer = this.#leases.get(lease.leaseId);
    if (buffer === undefined) {
      const { runId, leaseId, storeId } = lease;
      const nothing = { dropped: undefined, held: undefined, finished: undefined };
      buffer = { runId, leaseId, storeId, events: [], bytes: 0, committed: 0, takenAtMs: 0, ...nothing };
      this.#leases.set(leaseId, buffer);
    }
    const bytes = sizeOf(event);
    if (buffer.bytes + bytes > BUFFER_MAX_BYTES) {
      buffer.dropped ??= { events: 0, bytes: 0, idleMs: 0 };
      buffer.dropped.idleMs = performance.now() - buffer.takenAtMs;
      buffer.dropped.events += 1;
      buffer.dropped.bytes += bytes;
      return;
    }
    if (buffer.events.length === 0) buffer.takenAtMs = performance.now();
    markGap(buffer);
    buffer.events.push({ event, bytes });
    buffer.bytes += bytes;
    this.wake();
  }

  /** Undefined when there is room for more events of the lease; else what resolves when there is. */
  room(leaseId: string): Promise<void> | undefined {
    const buffer = this.#leases.get(leaseId);
    if (buffer === undefined || buffer.bytes < HOLD_BYTES) return undefined;
    const idleMs = performance.now() - buffer.takenAtMs;
    if (idleMs >= AWAY_MS) return undefined;
    return (buffer.held ??= waiting(AWAY_MS, () => (buffer.held = undefined))).promise;
  }

  /** Events of a lease that are not committed. */
  missing(leaseId: string): number {
    const buffer = this.#leases.get(leaseId);
    return buffer === undefined ? 0 : buffer.events.length + (buffer.dropped?.events ?? 0);
  }

  /**
   * Resolves when every event of the lease is committed, or the coordinator took none for `timeoutMs`; forgets them and
   * returns how many are missing.
   */
  async finish(leaseId: string, timeoutMs: number): Promise<number> {
    const buffer = this.#leases.get(leaseId);
    if (buffer === undefined) return 0;
    markGap(buffer);
    if (buffer.events.length > 0) {
      this.wake();
      buffer.finished = waiting(timeoutMs);
      const limit = setTimeout(buffer.finished.resolve, FINISH_MAX_MS);
      await buffer.finished.promise;
      clearTimeout(limit);
    }
    this.#leases.delete(leaseId);
    return buffer.events.length;
  }

  /** The lease is over: its events are given up. */
  drop(leaseId: string): void {
    const buffer = this.#leases.get(leaseId);
    if (buffer === undefined) return;
    this.#leases.delete(leaseId);
    buffer.events = [];
    buffer.held?.resolve();
    buffer.finished?.resolve();
  }

  /** Looks again whether something can be sent: the coordinator may have another store now. */
  wake(): void {
    this.#batches.wake();
  }

  /** False when nothing came of it. */
  async #attempt({ batches, bytes }: Taken): Promise<boolean> {
    const sentAtMs = performance.now();
    if (bytes > EVENT_MAX_BYTES)
      return this.#giveUpOnly(batches, `it is larger than a message of ${EVENT_MAX_BYTES} bytes`);
    try {
      const answer = await this.#send([...batches], bytes);
      this.#size.answered(bytes, performance.now() - sentAtMs);
      const progress = this.#deliver(batches, answer);
      if (progress) this.#trouble.over();
      else this.#trouble.failed(Code.Unknown, "the coordinator took none of them, and did not say why", bytes);
      return progress;
    } catch (error) {
      this.#afterFailure(batches, bytes, ConnectError.from(error));
      return false;
    }
  }

  /** The next batch: an equal share of each lease, and what is left then for those that have more. */
  #take(storeId: string): Taken | undefined {
    const { maxBytes, maxItems } = this.#size;
    const ours = [...this.#leases.values()].filter((one) => one.events.length > 0 && one.storeId === storeId);
    const leases = ours.slice(0, BATCH_MAX_LEASES);
    const taken = new Map(leases.map((lease) => [lease, { count: 0, bytes: 0 }]));
    let bytes = 0;
    let count = 0;
    for (const share of [1 / leases.length, 1]) {
      for (const [{ events }, part] of taken) {
        while (count < maxItems && part.count < Math.max(1, maxItems * share)) {
          const next = events[part.count]?.bytes;
          const full = next === undefined || part.bytes + next > maxBytes * share || bytes + next > maxBytes;
          // What is too large for any batch goes alone.
          if (next === undefined || (full && count > 0)) break;
          part.count += 1;
          part.bytes += next;
          count += 1;
          bytes += next;
        }
      }
    }
    const batches: EventBatch[] = [];
    for (const [lease, { count }] of taken) {
      if (count === 0) continue;
      const { runId, leaseId, committed } = lease;
      const events = lease.events.slice(0, count).map(({ event }) => event);
      batches.push(create(EventBatchSchema, { runId, leaseId, firstSeq: BigInt(committed + 1), events }));
      // Its next turn comes after those that had none.
      this.#leases.delete(leaseId);
      this.#leases.set(leaseId, lease);
    }
    return batches.length === 0 ? undefined : { batches, bytes };
  }

  #deliver(batches: readonly EventBatch[], answer: AppendEventsResponse): boolean {
    let progress = false;
    const verdicts = new Map(answer.verdicts.map((verdict) => [verdict.leaseId, verdict]));
    for (const batch of batches) {
      const verdict = verdicts.get(batch.leaseId);
      const buffer = this.#leases.get(batch.leaseId);
      if (verdict === undefined) continue;
      if (buffer === undefined) {
        // Its end waited no longer for them.
        progress = true;
        continue;
      }
      switch (verdict.kind) {
        case ReportVerdict_Kind.OK:
          if (commit(buffer, Number(verdict.committedSeq))) {
            progress = true;
            gotOn(buffer);
          }
          break;
        case ReportVerdict_Kind.STALE:
        case ReportVerdict_Kind.UNKNOWN:
          this.drop(batch.leaseId);
          oneItem(this.#log, "the end of a lease", batch, () => this.#onOver(batch.leaseId, verdict));
          progress = true;
          break;
        default: {
          // Of one event that is to blame, those before it are committed, and those after it are sent again.
          const one = verdict.invalidSeq > 0n && Number(verdict.committedSeq) >= buffer.committed;
          if (one) commit(buffer, Number(verdict.committedSeq));
          const count = one ? 1 : batch.events.length;
          this.#giveUp(buffer, count, `the coordinator refused ${one ? "it" : "them"}: ${verdict.message}`);
          progress = true;
        }
      }
    }
    this.#uplink.obey(answer.directives);
    return progress;
  }

  #afterFailure(batches: readonly EventBatch[], bytes: number, error: ConnectError): void {
    this.#trouble.failed(error.code, error.rawMessage, bytes);
    const { type } = reactionTo(error);
    if (type === "smaller") this.#size.failed(bytes);
    if (type === "repeat" || type === "smaller") return;
    if (type === "too-large" && bytes <= BATCH_MIN_BYTES) return;
    if (this.#giveUpOnly(batches, `the coordinator refused it: ${error.rawMessage}`)) return;
    if (type === "too-large") return this.#size.tooLarge(bytes);
    // One event may be the culprit: smaller batches find it.
    this.#size.refused(batches.reduce((count, { events }) => count + events.length, 0));
  }

  /** Gives up the event that was alone in its batch; false when it was not alone. */
  #giveUpOnly(batches: readonly EventBatch[], reason: string): boolean {
    const [only] = batches;
    if (only === undefined || batches.length > 1 || only.events.length > 1) return false;
    const lease = this.#leases.get(only.leaseId);
    if (lease !== undefined) this.#giveUp(lease, 1, reason);
    return true;
  }

  /** Puts one marker in the place of the first `count` events. */
  #giveUp(buffer: LeaseEvents, count: number, reason: string): void {
    const given = buffer.events.splice(0, count);
    const bytes = given.reduce((sum, buffered) => sum + buffered.bytes, 0);
    const gaveUpMarker = given.length === 1 && given[0]?.event.event.case === "dropped";
    buffer.bytes -= bytes;
    this.#log.warn({ run_id: buffer.runId, events: given.length, reason }, "events given up");
    // A coordinator that refuses even the marker gets nothing in its place.
    if (!gaveUpMarker) {
      const marker = dropMarker({ events: given.length, bytes }, reason);
      buffer.events.unshift(marker);
      buffer.bytes += marker.bytes;
    }
    gotOn(buffer);
  }
}
