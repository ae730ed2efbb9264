import { durationMs } from "@bufbuild/protobuf/wkt";
import type { Duration } from "@bufbuild/protobuf/wkt";
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

/** Serves a runner until Register is answered (ADR 3). */
export const BUILT_IN: Timing = {
  heartbeatMs: 10_000,
  leaseTtlMs: 45_000,
  streamKeepaliveMs: 15_000,
  reconnectMinMs: 100,
  reconnectMaxMs: 10_000,
  stopGraceMs: 10_000,
};

/** The settings of a coordinator; what it leaves out, or sets to nothing, stays as it is. */
export function timingOf(config: RunnerConfig | undefined, before: Timing): Timing {
  if (config === undefined) return before;
  return {
    heartbeatMs: msOf(config.heartbeatInterval) || before.heartbeatMs,
    leaseTtlMs: msOf(config.leaseTtl) || before.leaseTtlMs,
    streamKeepaliveMs: msOf(config.streamKeepalive) || before.streamKeepaliveMs,
    reconnectMinMs: msOf(config.reconnectMin) || before.reconnectMinMs,
    reconnectMaxMs: msOf(config.reconnectMax) || before.reconnectMaxMs,
    // A grace of nothing is a choice: it kills at once.
    stopGraceMs: config.stopGrace === undefined ? before.stopGraceMs : msOf(config.stopGrace),
  };
}

/** Milliseconds of a duration; 0 when it is absent or negative. */
export function msOf(duration: Duration | undefined): number {
  return duration === undefined ? 0 : Math.max(0, durationMs(duration));
}
