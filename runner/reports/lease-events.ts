import { create, toBinary } from "@bufbuild/protobuf";
import { ExecutorEventSchema } from "../../gen/agentrunner/v1/executor_pb.ts";
import type { ExecutorEvent } from "../../gen/agentrunner/v1/executor_pb.ts";
import type { Waiting } from "./waiting.ts";

/* The events of one lease while they wait in the runner. */

/** Most bytes of one lease's events that wait for a coordinator; then they are dropped, and a marker says so. */
export const BUFFER_MAX_BYTES = 8 * 1024 * 1024;

/** Bytes of one lease from which its executor is held up, and those at which it may go on. */
export const HOLD_BYTES = BUFFER_MAX_BYTES / 2;
export const GO_ON_BYTES = HOLD_BYTES / 2;

/** What an event costs beside its texts. */
const EVENT_OVERHEAD_BYTES = 48;

/** An event, and what it takes. */
export interface Buffered {
  readonly event: ExecutorEvent;
  readonly bytes: number;
}

/** Events of one lease. The first in `events` has number `committed + 1`. */
export interface LeaseEvents {
  readonly runId: string;
  readonly leaseId: string;
  readonly storeId: string;
  events: Buffered[];
  bytes: number;
  committed: number;
  /** What was given up since the last event in `events`; the next one is preceded by a marker. */
  dropped: { events: number; bytes: number; idleMs: number } | undefined;
  /** When the coordinator last took something of it, or could first have done so. */
  takenAtMs: number;
  /** Waits for room. */
  held: Waiting | undefined;
  /** Waits until all is committed. */
  finished: Waiting | undefined;
}

/** Drops what is committed; false when nothing was. */
export function commit(buffer: LeaseEvents, committedSeq: number): boolean {
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

/** Something of the lease was taken: whatever waits goes on, or waits anew. */
export function gotOn(buffer: LeaseEvents): void {
  buffer.takenAtMs = performance.now();
  buffer.held?.refresh();
  buffer.finished?.refresh();
  if (buffer.bytes <= GO_ON_BYTES) buffer.held?.resolve();
  if (buffer.events.length === 0) buffer.finished?.resolve();
}

export function markGap(buffer: LeaseEvents): void {
  if (buffer.dropped === undefined) return;
  const seconds = Math.round(buffer.dropped.idleMs / 1_000);
  const reason = `the coordinator took none of the run's events for ${seconds} s, and the runner keeps ${BUFFER_MAX_BYTES} bytes of them`;
  const marker = dropMarker(buffer.dropped, reason);
  buffer.dropped = undefined;
  buffer.events.push(marker);
  buffer.bytes += marker.bytes;
}

export function dropMarker(dropped: { events: number; bytes: number }, reason: string): Buffered {
  const value = { events: BigInt(dropped.events), bytes: BigInt(dropped.bytes), reason };
  return {
    event: create(ExecutorEventSchema, { event: { case: "dropped", value } }),
    bytes: EVENT_OVERHEAD_BYTES + reason.length,
  };
}

/** Encoded size, or a little more. */
export function sizeOf(event: ExecutorEvent): number {
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
