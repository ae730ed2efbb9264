import { durationMs } from "@bufbuild/protobuf/wkt";
import type { Duration } from "@bufbuild/protobuf/wkt";
import { TIMER_MAX_MS } from "../../lib/config/kinds.ts";
import type { RunnerConfig } from "../../gen/agentrunner/v1/runner_pb.ts";

/** What the coordinator sets for a runner, in milliseconds. */
export interface Timing {
  readonly heartbeatMs: number;
  readonly leaseTtlMs: number;
  readonly streamKeepaliveMs: number;
  readonly reconnectMinMs: number;
  readonly reconnectMaxMs: number;
  readonly stopGraceMs: number;
}

/** Whatever a coordinator says, a runner does not try again and again without a pause. */
const RECONNECT_FLOOR_MS = 50;
const RECONNECT_MAX_FLOOR_MS = 250;

/** Serves a runner until Register is answered (ADR 3). */
export const BUILT_IN: Timing = {
  heartbeatMs: 10_000,
  leaseTtlMs: 45_000,
  streamKeepaliveMs: 15_000,
  reconnectMinMs: 100,
  reconnectMaxMs: 10_000,
  stopGraceMs: 10_000,
};

/** Longest wait for the answer to a small call, unless a third of the lease is shorter. */
const CALL_MAX_MS = 10_000;
/** The slowest way up that a message is given time for, 64 kbit/s. */
const SLOW_BYTES_PER_MS = 8;
/** Longest wait for the answer to any call. */
const LARGE_CALL_MAX_MS = 600_000;

/** A lease in `held` at most: three fields of 64 characters and less, with their tags. */
const HELD_LEASE_MAX_BYTES = 160;

/** Most bytes that a list of leases takes in a message, for `callTimeoutMs`. */
export function heldBytes(held: readonly unknown[]): number {
  return held.length * HELD_LEASE_MAX_BYTES;
}

/** How long to wait for the answer to a call whose request has `bytes`. */
export function callTimeoutMs({ leaseTtlMs }: Timing, bytes = 0): number {
  const smallMs = Math.min(CALL_MAX_MS, leaseTtlMs / 3);
  return Math.ceil(Math.min(LARGE_CALL_MAX_MS, smallMs + bytes / SLOW_BYTES_PER_MS));
}

/** The settings of a coordinator; what it leaves out, or sets to nothing, stays as it is. */
export function timingOf(config: RunnerConfig | undefined, before: Timing): Timing {
  if (config === undefined) return before;
  return {
    heartbeatMs: msOf(config.heartbeatInterval) || before.heartbeatMs,
    leaseTtlMs: msOf(config.leaseTtl) || before.leaseTtlMs,
    streamKeepaliveMs: msOf(config.streamKeepalive) || before.streamKeepaliveMs,
    reconnectMinMs: Math.max(RECONNECT_FLOOR_MS, msOf(config.reconnectMin) || before.reconnectMinMs),
    reconnectMaxMs: Math.max(RECONNECT_MAX_FLOOR_MS, msOf(config.reconnectMax) || before.reconnectMaxMs),
    // A grace of nothing is a choice: it kills at once.
    stopGraceMs: config.stopGrace === undefined ? before.stopGraceMs : msOf(config.stopGrace),
  };
}

/** Milliseconds of a duration, at most what a timer can take; 0 when it is absent or negative. */
export function msOf(duration: Duration | undefined): number {
  return duration === undefined ? 0 : Math.min(TIMER_MAX_MS, Math.max(0, durationMs(duration)));
}
