import { Code } from "@connectrpc/connect";
import { afterEach, describe, expect, it } from "vitest";
import { startTestCoordinator, stopTestCoordinators } from "../../../support/coordinator.ts";
import { held, RawRunner, stopsIn } from "../../../support/raw-runner.ts";
import { until } from "../../../support/until.ts";

afterEach(stopTestCoordinators);

const UNCONFIRMED = 12;

describe("a stop", () => {
  it("of a pending run ends it at once, and the run behind it in the session gets its turn", async () => {
    const c = await startTestCoordinator();
    const { runId, sessionId } = await c.create();
    const { runId: next } = await c.create({ sessionId });
    const { run } = await c.runs.stopRun({ runId, reason: "no longer needed" });
    expect(run).toMatchObject({ state: 8, message: "no longer needed" });
    const runner = await RawRunner.online(c);
    expect((await runner.take()).runId).toBe(next);
    expect(await c.history(runId)).toEqual(["PENDING", "STOPPED"]);
  });

  it("of an offered run withdraws the offer, and an accept is then STALE", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    const { runId } = await c.create();
    const offer = await runner.offer();
    await c.runs.stopRun({ runId });
    expect((await runner.stream.nth("stop")).leaseId).toBe(offer.leaseId);
    expect(await runner.report(offer, "ACCEPT")).toBe("STALE");
    expect(await c.run(runId)).toMatchObject({ state: 8, attempt: 0, message: "stopped by a user" });
    await c.create();
    await runner.take();
  });

  it.each(["CLAIMED", "RUNNING"] as const)(
    "of a %s run is an order that stands until it is resolved",
    async (place) => {
      const c = await startTestCoordinator({ streamKeepaliveMs: 50 });
      const runner = await RawRunner.online(c);
      const { runId } = await c.create();
      const offer = await runner.take(place);
      await c.runs.stopRun({ runId, grace: { seconds: 3n }, reason: "enough" });
      expect(await c.run(runId)).toMatchObject({ state: 5, message: "enough" });
      const order = await runner.stream.nth("stop");
      expect(order).toMatchObject({ runId, leaseId: offer.leaseId, grace: { seconds: 3n }, reason: "enough" });
      const wanted = [offer.leaseId];
      expect(stopsIn(await runner.stream.keepalive())).toEqual(wanted);
      expect(stopsIn((await runner.heartbeat({ held: [held(offer)] })).directives)).toEqual(wanted);
      expect(stopsIn((await runner.reports([runner.said(offer, "PROGRESS")])).directives)).toEqual(wanted);
      expect(stopsIn((await runner.reports([runner.said(offer, "STARTED")])).directives)).toEqual(wanted);
      const appended = await c.runners.appendEvents(
        { runnerId: runner.runnerId, batches: [{ runId, leaseId: offer.leaseId, firstSeq: 1n }] },
        runner.options,
      );
      expect(stopsIn(appended.directives)).toEqual(wanted);
      await runner.open({ held: [held(offer)] });
      expect((await runner.stream.nth("stop")).leaseId).toBe(offer.leaseId);
      const answer = await runner.reports([runner.said(offer, "STOPPED", { message: "SIGTERM" })]);
      expect(stopsIn(answer.directives)).toEqual([]);
      expect(stopsIn(await runner.stream.keepalive())).toEqual([]);
      expect(await c.run(runId)).toMatchObject({ state: 8, message: "SIGTERM" });
    },
  );

  it.each([
    ["COMPLETED", 6],
    ["FAILED", 7],
    ["STOPPED", 8],
  ] as const)("leaves %s as it is when the executor had ended by itself", async (kind, state) => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    const { runId } = await c.create();
    const offer = await runner.take();
    await c.runs.stopRun({ runId });
    await runner.ok(offer, kind);
    expect((await c.run(runId)).state).toBe(state);
  });

  it("that is heard before the spawn is answered with NOT_STARTED, and the run is STOPPED, not tried again", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    const { runId } = await c.create({ onLost: { policy: 2 } });
    const offer = await runner.take("CLAIMED");
    await c.runs.stopRun({ runId });
    await runner.ok(offer, "NOT_STARTED");
    expect(await c.state(runId)).toBe("STOPPED");
  });

  it("of a run whose lease is then lost is STOPPED and unconfirmed, under RETRY too", async () => {
    const c = await startTestCoordinator({ leaseTtlMs: 200 });
    const runner = await RawRunner.online(c);
    const { runId } = await c.create({ onLost: { policy: 2 } });
    const offer = await runner.take();
    await c.runs.stopRun({ runId, reason: "enough" });
    const run = await c.reached(runId, "STOPPED");
    expect(run.failure).toBe(UNCONFIRMED);
    expect(run.message).toMatch(/^enough; the end is unconfirmed/);
    expect(await runner.beat(held(offer))).toEqual(["STOP"]);
  });

  it("does not keep a lease from being renewed while the executor ends", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    const { runId } = await c.create();
    const offer = await runner.take();
    await c.runs.stopRun({ runId });
    expect(await runner.beat(held(offer))).toEqual(["RENEWED"]);
  });

  it("may be repeated: the shorter grace counts", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    const { runId } = await c.create();
    await runner.take();
    await c.runs.stopRun({ runId, grace: { seconds: 30n } });
    await c.runs.stopRun({ runId, grace: { seconds: 0n } });
    await c.runs.stopRun({ runId, grace: { seconds: 60n } });
    const orders = [await runner.stream.nth("stop", 0), await runner.stream.nth("stop", 2)];
    expect(orders.map(({ grace }) => grace?.seconds)).toEqual([30n, 0n]);
  });

  it("of a run that has ended answers it as it is; of one that never was is NOT_FOUND", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    const { runId } = await c.create();
    await runner.ok(await runner.take(), "COMPLETED");
    expect((await c.runs.stopRun({ runId })).run?.state).toBe(6);
    await expect(c.runs.stopRun({ runId: "run_none" })).rejects.toMatchObject({ code: Code.NotFound });
  });

  it("survives a restart of the coordinator", async () => {
    const c = await startTestCoordinator({ memory: false });
    const runner = await RawRunner.online(c);
    const { runId } = await c.create();
    const offer = await runner.take();
    await c.runs.stopRun({ runId });
    await c.restart();
    const { directives } = await until(
      () => runner.heartbeat({ held: [held(offer)] }).catch(() => undefined),
      "the coordinator answers",
    );
    expect(stopsIn(directives)).toEqual([offer.leaseId]);
  });
});

describe("a cascading stop", () => {
  it("reaches every run of the sessions below, held or waiting, and no other", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c, { maxConcurrentRuns: 3 });
    const top = await c.create();
    const child = await c.create({ parentSessionId: top.sessionId });
    const grandchild = await c.create({ parentSessionId: child.sessionId });
    const waiting = await c.create({ sessionId: child.sessionId });
    const stranger = await c.create();
    for (let n = 0; n < 3; n++) await runner.take();
    const { stoppedRunIds } = await c.runs.stopRun({ runId: top.runId, cascade: true });
    expect(stoppedRunIds.toSorted()).toEqual([child, grandchild, waiting].map(({ runId }) => runId).toSorted());
    const states = await Promise.all([top, child, grandchild, waiting, stranger].map(({ runId }) => c.state(runId)));
    expect(states).toEqual(["STOPPING", "STOPPING", "STOPPING", "STOPPED", "PENDING"]);
    await until(() => runner.stream.all("stop").length === 3, "three orders to stop");
  });

  it("is not the default", async () => {
    const c = await startTestCoordinator();
    const top = await c.create();
    const child = await c.create({ parentSessionId: top.sessionId });
    expect((await c.runs.stopRun({ runId: top.runId })).stoppedRunIds).toEqual([]);
    expect(await c.state(child.runId)).toBe("PENDING");
  });
});
