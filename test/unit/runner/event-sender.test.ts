import { create } from "@bufbuild/protobuf";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { AppendEventsResponseSchema, ReportVerdict_Kind } from "../../../gen/agentrunner/v1/runner_service_pb.ts";
import type { EventBatch } from "../../../gen/agentrunner/v1/runner_service_pb.ts";
import { createLogger } from "../../../lib/log.ts";
import { EventSender } from "../../../runner/reports/event-sender.ts";
import { outputEvent } from "../../support/test-runner.ts";

const CHUNK = "x".repeat(64 * 1024);
const log = createLogger({ name: "test", level: "silent", format: "json" });

/** A sender whose calls wait until the test answers them. */
function sender() {
  const calls: { batches: EventBatch[]; answer: () => void }[] = [];
  const uplink = {
    ready: () => Promise.resolve("store_a"),
    obey: () => undefined,
    closing: new AbortController().signal,
    pause: () => Promise.resolve(),
  };
  const send = (batches: EventBatch[]) =>
    new Promise<ReturnType<typeof answerTo>>((resolve) =>
      calls.push({ batches, answer: () => resolve(answerTo(batches)) }),
    );
  return { calls, events: new EventSender(uplink, send, log, () => undefined) };
}

function answerTo(batches: readonly EventBatch[]) {
  const verdicts = batches.map(({ leaseId, firstSeq, events }) => ({
    leaseId,
    kind: ReportVerdict_Kind.OK,
    committedSeq: firstSeq + BigInt(events.length) - 1n,
  }));
  return create(AppendEventsResponseSchema, { verdicts });
}

const lease = (leaseId: string) => ({ runId: `run_${leaseId}`, leaseId, storeId: "store_a" });

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

/** Fills a lease until there is no room, and returns what waits for room. */
function fill(events: EventSender, leaseId: string): Promise<void> {
  for (let i = 0; i < 1_000; i += 1) {
    events.append(lease(leaseId), outputEvent(CHUNK));
    const room = events.room(leaseId);
    if (room !== undefined) return room;
  }
  throw new Error("there was always room");
}

/** Answers the calls that wait, and those that follow, until `enough` or nothing more comes. */
async function answerUntil(calls: { answer: () => void }[], enough: () => boolean = () => false): Promise<void> {
  for (let i = 0; i < calls.length && !enough(); i += 1) {
    calls[i]?.answer();
    await vi.advanceTimersByTimeAsync(1);
  }
}

async function isOver(promise: Promise<void>): Promise<boolean> {
  let over = false;
  void promise.then(() => (over = true));
  await vi.advanceTimersByTimeAsync(0);
  return over;
}

describe("room for events", () => {
  it("ends at half of what is kept, and is there again when most of it is committed", async () => {
    const { events, calls } = sender();
    const room = fill(events, "a");
    await vi.advanceTimersByTimeAsync(1);
    expect(await isOver(room)).toBe(false);
    await answerUntil(calls);
    expect(await isOver(room)).toBe(true);
    expect(events.room("a")).toBeUndefined();
  });

  it("is not waited for when the coordinator takes nothing for 30 s, and is waited for again when it does", async () => {
    const { events, calls } = sender();
    const room = fill(events, "a");
    await vi.advanceTimersByTimeAsync(29_000);
    expect(await isOver(room)).toBe(false);
    await vi.advanceTimersByTimeAsync(1_001);
    expect(await isOver(room)).toBe(true);
    expect(events.room("a")).toBeUndefined();
    for (let i = 0; i < 100; i += 1) events.append(lease("a"), outputEvent(CHUNK));
    calls[0]!.answer();
    await vi.advanceTimersByTimeAsync(1);
    expect(events.room("a")).toBeDefined();
    events.drop("a");
  });

  it("is not waited for when the lease is over", async () => {
    const { events } = sender();
    const room = fill(events, "a");
    events.drop("a");
    expect(await isOver(room)).toBe(true);
  });

  it("is of each lease: one with much to say does not silence another", async () => {
    const { events, calls } = sender();
    void fill(events, "a");
    await vi.advanceTimersByTimeAsync(1);
    for (let i = 0; i < 60; i += 1) events.append(lease("a"), outputEvent(CHUNK));
    events.append(lease("b"), outputEvent("hello"));
    calls[0]!.answer();
    await vi.advanceTimersByTimeAsync(1);
    expect(calls[1]!.batches.map(({ leaseId }) => leaseId)).toContain("b");
  });
});

describe("the end of a lease", () => {
  it("waits for events for as long as the coordinator takes some", async () => {
    const { events, calls } = sender();
    void fill(events, "a");
    const missing = events.finish("a", 30_000);
    await vi.advanceTimersByTimeAsync(25_000);
    calls[0]!.answer();
    await vi.advanceTimersByTimeAsync(25_000);
    await answerUntil(calls);
    expect(await missing).toBe(0);
  });
});
