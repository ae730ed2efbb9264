import { create, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { describe, expect, it } from "vitest";
import { HeldLeaseSchema, RunnerConfigSchema } from "../../../gen/agentrunner/v1/runner_pb.ts";
import { errorInfo } from "../../../lib/rpc/error-info.ts";
import { BUILT_IN, callTimeoutMs, heldBytes, timingOf } from "../../../runner/connection/timing.ts";
import { BATCH_MAX_BYTES, BatchSize } from "../../../runner/reports/batch-size.ts";
import { reactionTo } from "../../../runner/reports/send-failure.ts";

describe("the size of batches", () => {
  it("starts and stays under the 1 MiB that proxies take", () => {
    const size = new BatchSize(500);
    expect(size.maxBytes).toBeLessThan(2 ** 20);
    for (let i = 0; i < 20; i += 1) size.answered(size.maxBytes, 1);
    expect(size.maxBytes).toBe(BATCH_MAX_BYTES);
    expect(BATCH_MAX_BYTES).toBeLessThan(2 ** 20);
  });

  it("shrinks when batches fail or are slow, grows again, and never past what was too large", () => {
    const size = new BatchSize(500);
    for (let i = 0; i < 20; i += 1) size.failed(size.maxBytes);
    const least = size.maxBytes;
    expect(least).toBeGreaterThan(0);
    size.answered(least, 1);
    expect(size.maxBytes).toBe(2 * least);
    for (let i = 0; i < 20; i += 1) size.answered(size.maxBytes, 1);
    size.answered(size.maxBytes, 20_000);
    expect(size.maxBytes).toBeLessThan(BATCH_MAX_BYTES / 5);
    size.tooLarge(100_000);
    for (let i = 0; i < 20; i += 1) size.answered(size.maxBytes, 1);
    expect(size.maxBytes).toBe(50_000);
  });

  it("finds the one item that is refused", () => {
    const size = new BatchSize(500);
    for (let items = 400; items > 1; items = size.maxItems) size.refused(items);
    expect(size.maxItems).toBe(1);
    size.answered(1, 1);
    expect(size.maxItems).toBe(2);
  });
});

it.each([
  [new ConnectError("full", Code.Unavailable, undefined, [errorInfo("STORE_FULL")]), "repeat"],
  [new ConnectError("i/o", Code.Unavailable, undefined, [errorInfo("STORE_FAILED")]), "repeat"],
  [new ConnectError("gone", Code.Unavailable), "smaller"],
  [new ConnectError("slow", Code.DeadlineExceeded), "smaller"],
  [new ConnectError("exhausted", Code.ResourceExhausted), "smaller"],
  [new ConnectError("reset", Code.Canceled), "smaller"],
  [new ConnectError("HTTP 413", Code.Unknown), "too-large"],
  [new ConnectError("HTTP 418", Code.Unknown), "smaller"],
  [new ConnectError("no", Code.InvalidArgument), "refused"],
])("after %s the reaction is %s", (error, type) => {
  expect(reactionTo(error).type).toBe(type);
});

it("what a coordinator sets is kept within what timers take, and a runner never tries again without a pause", () => {
  const config = create(RunnerConfigSchema, {
    leaseTtl: { seconds: 3_000_000n },
    streamKeepalive: { seconds: 1_296_000_000n },
    heartbeatInterval: { seconds: 10n ** 12n },
    stopGrace: { seconds: 10n ** 12n },
    reconnectMin: { nanos: 1 },
    reconnectMax: { nanos: 1_000_000 },
  });
  const timing = timingOf(config, BUILT_IN);
  expect(Math.max(...Object.values(timing))).toBe(2 ** 31 - 1);
  expect(timing.reconnectMinMs).toBeGreaterThanOrEqual(50);
  expect(timing.reconnectMaxMs).toBeGreaterThanOrEqual(timing.reconnectMinMs);
});

it("a call has time for its size, up to ten minutes", () => {
  expect(callTimeoutMs(BUILT_IN)).toBe(10_000);
  expect(callTimeoutMs({ ...BUILT_IN, leaseTtlMs: 6_000 })).toBe(2_000);
  expect(callTimeoutMs(BUILT_IN, 800_000)).toBe(110_000);
  expect(callTimeoutMs(BUILT_IN, 2 ** 40)).toBe(600_000);
});

it("a call that lists leases has time for as many as a runner can hold", () => {
  const id = "x".repeat(64);
  const lease = create(HeldLeaseSchema, { runId: id, leaseId: id, attempt: 2 ** 32 - 1, phase: 3 });
  const bytes = 2_000 * (toBinary(HeldLeaseSchema, lease).length + 3);
  expect(heldBytes(Array.from({ length: 2_000 }))).toBeGreaterThanOrEqual(bytes);
  expect(callTimeoutMs(BUILT_IN, bytes)).toBeGreaterThan(bytes / 8);
});
