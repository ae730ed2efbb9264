import { create, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { ExecutorEventSchema } from "../../gen/agentrunner/v1/executor_pb.ts";
import type { ExecutorEvent } from "../../gen/agentrunner/v1/executor_pb.ts";
import { EventBatchSchema, ReportVerdict_Kind } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import type {
  AppendEventsResponse,
  EventBatch,
  EventBatchVerdict,
} from "../../gen/agentrunner/v1/runner_service_pb.ts";
import type { Log } from "../../lib/log.ts";
import { oneItem } from "../one-item.ts";
import { BatchSender } from "./batch-sender.ts";
import type { Uplink } from "./uplink.ts";

/** Limits of one AppendEvents: the protocol's, and well under the 4 MiB of a message. */
const BATCH_MAX_LEASES = 500;
const LEASE_MAX_EVENTS = 2_000;
const BATCH_MAX_BYTES = 3.5 * 1024 * 1024;

/** Most bytes of one lease's events that wait for a coordinator; then they are dropped, and a marker says so. */
const BUFFER_MAX_BYTES = 8 * 1024 * 1024;

/** What an event costs beside its texts. */
const EVENT_OVERHEAD_BYTES = 48;

/** Sends a batch. Rejects with ConnectError. */
export type SendEvents = (batches: EventBatch[]) => Promise<AppendEventsResponse>;

interface Buffered {
  readonly event: ExecutorEvent;
  readonly bytes: number;
}

/** Events of one lease. The first in `events` has number `committed + 1`. */
interface LeaseEvents {
  readonly runId: string;
  readonly leaseId: string;
  readonly storeId: string;
  events: Buffered[];
  bytes: number;
  committed: number;
  /** What was given up since the last event in `events`; the next one is preceded by a marker. */
  dropped: { events: number; bytes: number } | undefined;
  /** Waits until all is committed. */
  finished: PromiseWithResolvers<void> | undefined;
}

/**
 * Delivers the events of all leases, numbered from 1 in each. One AppendEvents is in flight; what comes meanwhile goes
 * together in the next. An executor is never held up: beyond 8 MiB a run's events are dropped, and a marker counts them.
 */
export class EventSender {
  readonly #uplink: Uplink;
  readonly #batches: BatchSender<EventBatch[]>;
  readonly #send: SendEvents;
  readonly #log: Log;
  readonly #onOver: (leaseId: string, verdict: EventBatchVerdict) => void;
  readonly #leases = new Map<string, LeaseEvents>();
  #maxEvents = LEASE_MAX_EVENTS;
  #maxBytes = BATCH_MAX_BYTES;

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
      attempt: (batches) => this.#attempt(batches),
    });
    this.#send = send;
    this.#log = log;
    this.#onOver = onOver;
  }

  append(lease: { runId: string; leaseId: string; storeId: string }, event: ExecutorEvent): void {
    let buffer = this.#leases.get(lease.leaseId);
    if (buffer === undefined) {
      const { runId, leaseId, storeId } = lease;
      buffer = { runId, leaseId, storeId, events: [], bytes: 0, committed: 0, dropped: undefined, finished: undefined };
      this.#leases.set(leaseId, buffer);
    }
    const bytes = sizeOf(event);
    if (buffer.bytes + bytes > BUFFER_MAX_BYTES) {
      buffer.dropped ??= { events: 0, bytes: 0 };
      buffer.dropped.events += 1;
      buffer.dropped.bytes += bytes;
      return;
    }
    markGap(buffer);
    buffer.events.push({ event, bytes });
    buffer.bytes += bytes;
    this.wake();
  }

  /** Events of a lease that are not committed. */
  missing(leaseId: string): number {
    const buffer = this.#leases.get(leaseId);
    return buffer === undefined ? 0 : buffer.events.length + (buffer.dropped?.events ?? 0);
  }

  /** Resolves when every event of the lease is committed, or after `timeoutMs`; forgets them and returns how many are missing. */
  async finish(leaseId: string, timeoutMs: number): Promise<number> {
    const buffer = this.#leases.get(leaseId);
    if (buffer === undefined) return 0;
    markGap(buffer);
    if (buffer.events.length > 0) {
      this.wake();
      buffer.finished = Promise.withResolvers();
      const timer = setTimeout(buffer.finished.resolve, timeoutMs);
      await buffer.finished.promise;
      clearTimeout(timer);
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
    buffer.finished?.resolve();
  }

  /** Looks again whether something can be sent: the coordinator may have another store now. */
  wake(): void {
    this.#batches.wake();
  }

  /** False when nothing came of it. */
  async #attempt(batches: readonly EventBatch[]): Promise<boolean> {
    try {
      const answer = await this.#send([...batches]);
      this.#maxEvents = Math.min(LEASE_MAX_EVENTS, this.#maxEvents * 2);
      this.#maxBytes = Math.min(BATCH_MAX_BYTES, this.#maxBytes * 2);
      return this.#deliver(batches, answer);
    } catch (error) {
      this.#afterFailure(batches, ConnectError.from(error));
      return false;
    }
  }

  #take(storeId: string): EventBatch[] | undefined {
    const batches: EventBatch[] = [];
    let bytes = 0;
    for (const buffer of this.#leases.values()) {
      if (buffer.events.length === 0 || buffer.storeId !== storeId) continue;
      if (batches.length >= BATCH_MAX_LEASES || bytes >= this.#maxBytes) break;
      const events: ExecutorEvent[] = [];
      for (const buffered of buffer.events) {
        const first = events.length === 0 && batches.length === 0;
        if (events.length >= this.#maxEvents || (!first && bytes + buffered.bytes > this.#maxBytes)) break;
        events.push(buffered.event);
        bytes += buffered.bytes;
      }
      if (events.length === 0) break;
      const { runId, leaseId, committed } = buffer;
      batches.push(create(EventBatchSchema, { runId, leaseId, firstSeq: BigInt(committed + 1), events }));
    }
    return batches.length === 0 ? undefined : batches;
  }

  #deliver(batches: readonly EventBatch[], answer: AppendEventsResponse): boolean {
    let progress = false;
    for (const [i, batch] of batches.entries()) {
      const verdict = answer.verdicts[i];
      const buffer = this.#leases.get(batch.leaseId);
      if (verdict === undefined || buffer === undefined) continue;
      switch (verdict.kind) {
        case ReportVerdict_Kind.OK:
          progress = commit(buffer, Number(verdict.committedSeq)) || progress;
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
      if (buffer.events.length === 0) buffer.finished?.resolve();
    }
    this.#uplink.obey(answer.directives);
    return progress;
  }

  #afterFailure(batches: readonly EventBatch[], error: ConnectError): void {
    const tooMuch = error.code === Code.ResourceExhausted || error.code === Code.InvalidArgument;
    if (!tooMuch) {
      this.#log.debug({ code: Code[error.code], reason: error.rawMessage }, "events could not be sent");
      return;
    }
    const [only] = batches;
    if (only !== undefined && batches.length === 1 && only.events.length === 1) {
      const buffer = this.#leases.get(only.leaseId);
      if (buffer !== undefined) this.#giveUp(buffer, 1, `the coordinator refused it: ${error.rawMessage}`);
      return;
    }
    // One event may be the culprit: smaller batches find it.
    this.#maxEvents = Math.max(1, Math.floor(this.#maxEvents / 2));
    this.#maxBytes = Math.max(1, Math.floor(this.#maxBytes / 2));
  }

  /** Puts one marker in the place of the first `count` events. */
  #giveUp(buffer: LeaseEvents, count: number, reason: string): void {
    const given = buffer.events.splice(0, count);
    const bytes = given.reduce((sum, buffered) => sum + buffered.bytes, 0);
    const gaveUpMarker = given.length === 1 && given[0]?.event.event.case === "dropped";
    buffer.bytes -= bytes;
    this.#log.warn({ run_id: buffer.runId, events: given.length, reason }, "events given up");
    // A coordinator that refuses even the marker gets nothing in its place.
    if (gaveUpMarker) return;
    const marker = dropMarker({ events: given.length, bytes }, reason);
    buffer.events.unshift(marker);
    buffer.bytes += marker.bytes;
  }
}

/** Drops what is committed; false when nothing was. */
function commit(buffer: LeaseEvents, committedSeq: number): boolean {
  if (committedSeq < buffer.committed) {
    // The coordinator lost events that it had, as after a restored copy: they are gone here too, and the count goes on.
    const lost = { events: buffer.committed - committedSeq, bytes: 0 };
    const marker = dropMarker(lost, "the coordinator lost them");
    buffer.committed = committedSeq;
    buffer.events.unshift(marker);
    buffer.bytes += marker.bytes;
    return true;
  }
  const count = Math.min(committedSeq - buffer.committed, buffer.events.length);
  for (const { bytes } of buffer.events.slice(0, count)) buffer.bytes -= bytes;
  buffer.events = buffer.events.slice(count);
  buffer.committed += count;
  return count > 0;
}

function markGap(buffer: LeaseEvents): void {
  if (buffer.dropped === undefined) return;
  const marker = dropMarker(buffer.dropped, `the coordinator was away and the runner keeps ${BUFFER_MAX_BYTES} bytes`);
  buffer.dropped = undefined;
  buffer.events.push(marker);
  buffer.bytes += marker.bytes;
}

function dropMarker(dropped: { events: number; bytes: number }, reason: string): Buffered {
  const value = { events: BigInt(dropped.events), bytes: BigInt(dropped.bytes), reason };
  return {
    event: create(ExecutorEventSchema, { event: { case: "dropped", value } }),
    bytes: EVENT_OVERHEAD_BYTES + reason.length,
  };
}

/** Encoded size, or a little more. */
function sizeOf(event: ExecutorEvent): number {
  const { event: one } = event;
  switch (one.case) {
    case "output":
    case "status":
    case "message":
      return Buffer.byteLength(one.value.text) + EVENT_OVERHEAD_BYTES;
    default:
      return toBinary(ExecutorEventSchema, event).length + EVENT_OVERHEAD_BYTES;
  }
}
