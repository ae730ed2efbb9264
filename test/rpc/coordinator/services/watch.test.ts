import { getEventListeners } from "node:events";
import { Code } from "@connectrpc/connect";
import { afterEach, describe, expect, it, vi } from "vitest";
import { Watchers } from "../../../../coordinator/follow/watchers.ts";
import type { WatchRunResponse } from "../../../../gen/agentrunner/v1/run_service_pb.ts";
import type { WatchSessionResponse } from "../../../../gen/agentrunner/v1/session_service_pb.ts";
import { startTestCoordinator, stopTestCoordinators } from "../../../support/coordinator.ts";
import type { TestCoordinator } from "../../../support/coordinator.ts";
import { output, RawRunner } from "../../../support/raw-runner.ts";
import type { LeaseOf } from "../../../support/raw-runner.ts";
import { until } from "../../../support/until.ts";

afterEach(stopTestCoordinators);

type Response = WatchRunResponse | WatchSessionResponse;

/** Numbers with a seed, so that a failure can be seen again. */
function randoms(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** Cursors of the events that a watch gives when it is cut after a few messages again and again, until `done`. */
async function cutAndResumed(
  watch: (cursor: string, signal: AbortSignal) => AsyncIterable<Response>,
  random: (below: number) => number,
  done: (seen: string[]) => boolean,
): Promise<string[]> {
  const seen: string[] = [];
  let cursor = "";
  for (let ended = false; !ended;) {
    const cut = new AbortController();
    let left = 1 + random(12);
    try {
      for await (const message of watch(cursor, cut.signal)) {
        cursor = message.cursor;
        if (message.update.case === "event") seen.push(message.cursor);
        if (done(seen)) return seen;
        left -= 1;
        if (left <= 0) cut.abort();
      }
      ended = true;
    } catch (error) {
      expect(error).toMatchObject({ code: Code.Canceled });
    }
  }
  return seen;
}

async function storedCursors(c: TestCoordinator, sessionId: string): Promise<string[]> {
  const { events } = await c.sessions.listSessionEvents({ sessionId, pageSize: 1000 });
  return events.map(({ cursor }) => cursor);
}

async function append(runner: RawRunner, offer: LeaseOf, from: number, count: number): Promise<void> {
  await runner.append(
    offer,
    from,
    Array.from({ length: count }, (_, n) => output(`line ${from + n}`)),
  );
}

describe("a watch that is cut at random places and resumed with its cursor", () => {
  it("of a run neither misses nor repeats an event, and ends with the run", async () => {
    const c = await startTestCoordinator({ streamKeepaliveMs: 50 });
    const runner = await RawRunner.online(c);
    const { runId, sessionId } = await c.create();
    const offer = await runner.take();
    const random = randoms(7);
    const watching = cutAndResumed(
      (cursor, signal) => c.runs.watchRun({ runId, cursor }, { signal }),
      random,
      () => false,
    );
    for (let from = 1; from <= 200; from += 20) await append(runner, offer, from, 20);
    await runner.ok(offer, "COMPLETED");
    expect(await watching).toEqual(await storedCursors(c, sessionId));
  });

  it("of a session neither misses nor repeats an event of any of its runs", async () => {
    const c = await startTestCoordinator({ streamKeepaliveMs: 50 });
    const runner = await RawRunner.online(c);
    const { sessionId } = await c.create();
    await c.create({ sessionId });
    const watching = cutAndResumed(
      (cursor, signal) => c.sessions.watchSession({ sessionId, cursor }, { signal }),
      randoms(11),
      (seen) => seen.length === 128,
    );
    for (let n = 0; n < 2; n++) {
      const offer = await runner.take();
      for (let from = 1; from <= 60; from += 15) await append(runner, offer, from, 15);
      await runner.ok(offer, "COMPLETED");
    }
    expect(await watching).toEqual(await storedCursors(c, sessionId));
  });
});

describe("a watch of a run", () => {
  it("gives only the events of that run, although others of the session surround them", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    const { sessionId } = await c.create();
    const { runId } = await c.create({ sessionId });
    const last = await c.create({ sessionId });
    for (let n = 0; n < 3; n++) {
      const offer = await runner.take();
      await append(runner, offer, 1, 3);
      await runner.ok(offer, "COMPLETED");
    }
    const messages = await c.watched(runId);
    expect(messages[0]?.cursor, "the first message can be gone on from, too").not.toBe("");
    const events = messages.flatMap(({ update }) => (update.case === "event" ? [update.value] : []));
    expect(events.map((event) => event.runId)).toEqual(Array.from({ length: 7 }, () => runId));
    expect((await c.watched(last.runId)).filter(({ update }) => update.case === "event")).toHaveLength(7);
    expect(messages.at(-1)?.update).toMatchObject({ case: "run", value: { state: 6 } });
  });

  it("stays silent no longer than a keep-alive, which carries the cursor", async () => {
    const c = await startTestCoordinator({ streamKeepaliveMs: 50 });
    const { runId } = await c.create();
    const cursors: string[] = [];
    for await (const { update, cursor } of c.runs.watchRun({ runId })) {
      if (update.case === "run") continue;
      cursors.push(cursor);
      if (update.case === "keepalive" && cursors.length > 3) break;
    }
    expect(new Set(cursors).size).toBe(1);
  });

  it("that never was is NOT_FOUND", async () => {
    const c = await startTestCoordinator();
    await expect(c.watched("run_none")).rejects.toMatchObject({ code: Code.NotFound });
  });

  it("with another store's cursor is OUT_OF_RANGE, and with no cursor at all INVALID_ARGUMENT", async () => {
    const c = await startTestCoordinator();
    const { runId, sessionId } = await c.create();
    const cases = [
      ["store_0123456789abcdef01234567.7", Code.OutOfRange],
      ["yesterday", Code.InvalidArgument],
      [`${c.store.storeId}.x`, Code.InvalidArgument],
      [`${c.store.storeId}.1.2`, Code.InvalidArgument],
      [`${c.store.storeId}.-1`, Code.InvalidArgument],
    ] as const;
    for (const [cursor, code] of cases) {
      await expect(c.watched(runId, cursor)).rejects.toMatchObject({ code });
      await expect(c.sessions.listSessionEvents({ sessionId, cursor })).rejects.toMatchObject({ code });
      const session = c.sessions.watchSession({ sessionId, cursor })[Symbol.asyncIterator]();
      await expect(session.next()).rejects.toMatchObject({ code });
    }
  });

  it("ends with UNAVAILABLE when the coordinator ends", async () => {
    const c = await startTestCoordinator();
    const { runId } = await c.create();
    const stream = c.runs.watchRun({ runId })[Symbol.asyncIterator]();
    await stream.next();
    await stream.next();
    const [ended] = await Promise.allSettled([stream.next(), c.stop(1000)]);
    expect(ended).toMatchObject({ status: "rejected", reason: { code: Code.Unavailable } });
  });
});

describe("a watcher that reads slowly", () => {
  it("is read for page by page: what it has not taken stays in the store", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    const { runId } = await c.create();
    const offer = await runner.take();
    const chunk = "x".repeat(60 * 1024);
    const listEvents = vi.spyOn(c.store, "listEvents");
    const stream = c.runs.watchRun({ runId })[Symbol.asyncIterator]();
    await stream.next();
    for (let from = 1; from <= 400; from += 40) {
      await runner.append(
        offer,
        from,
        Array.from({ length: 40 }, () => output(chunk)),
      );
    }
    await runner.ok(offer, "COMPLETED");
    await until(() => listEvents.mock.results.length > 0, "the watch reads");
    let settled = -1;
    await until(async () => {
      const pages = listEvents.mock.calls.length;
      const same = pages === settled;
      settled = pages;
      for (let n = 0; n < 5; n++) await c.runs.getRun({ runId });
      return same;
    }, "the watch stands still");
    const taken = await Promise.all(listEvents.mock.results.map(({ value }) => value));
    for (const [{ limit, maxBytes }] of listEvents.mock.calls) expect([limit, maxBytes]).toEqual([200, 1024 * 1024]);
    // 24 MB are stored; what was read for it is what the sockets and windows between took, and one page.
    const read = taken.reduce((sum, { events }) => sum + events.length, 0);
    expect(read).toBeLessThan(200);
    let events = 0;
    for (let next = await stream.next(); next.done !== true; next = await stream.next()) {
      if (next.value.update.case === "event") events += 1;
    }
    expect(events).toBe(404);
  });

  it("leaves no listener behind on the signal of its call each time it has waited", async () => {
    const subscription = new Watchers().subscribe("ses_1");
    const { signal } = new AbortController();
    for (let n = 0; n < 5; n++) expect(await subscription.changed(1, signal)).toBe(false);
    const waiting = subscription.changed(60_000, signal);
    subscription.wake();
    expect(await waiting).toBe(true);
    expect(getEventListeners(signal, "abort")).toEqual([]);
  });

  it("leaves nothing behind when it goes", async () => {
    const c = await startTestCoordinator();
    const { runId } = await c.create();
    const leave = new AbortController();
    const stream = c.runs.watchRun({ runId }, { signal: leave.signal })[Symbol.asyncIterator]();
    await stream.next();
    await stream.next();
    expect(c.running.coordinator.watchers.size).toBe(1);
    leave.abort();
    await expect(stream.next()).rejects.toMatchObject({ code: Code.Canceled });
    await until(() => c.running.coordinator.watchers.size === 0, "nobody watches");
  });
});
