import { timestampMs } from "@bufbuild/protobuf/wkt";
import { afterEach, describe, expect, it, vi } from "vitest";
import { startTestCoordinator, stopTestCoordinators } from "../../../support/coordinator.ts";
import { held, RawRunner } from "../../../support/raw-runner.ts";
import { until } from "../../../support/until.ts";

afterEach(stopTestCoordinators);

const NO_MATCH = 8;
const ONE = { maxConcurrentRuns: 1 };

describe("a run goes to a runner", () => {
  it.each([
    ["of its executor profile", { executorProfile: "special" }, { executorProfile: "special" }],
    ["of its host", { hostname: "host-b" }, { hostname: "host-b" }],
    ["of its directory", { projectDir: "/srv/other" }, { projectDir: "/srv/other" }],
    ["that has all of its tags", { tags: ["gpu", "docker"] }, { tags: ["docker", "linux", "gpu"] }],
  ])("%s, and to no other", async (_, demands, about) => {
    const c = await startTestCoordinator();
    const wrong = await RawRunner.online(c, { tags: ["docker"] });
    const { runId } = await c.create({ demands });
    const usual = await c.create();
    expect((await wrong.take()).runId).toBe(usual.runId);
    expect(await c.state(runId)).toBe("PENDING");
    const right = await RawRunner.online(c, about);
    expect((await right.take()).runId).toBe(runId);
    expect(wrong.stream.offers).toHaveLength(1);
  });

  it("that takes only tagged runs when it names one of that runner's tags", async () => {
    const c = await startTestCoordinator();
    const picky = await RawRunner.online(c, { tags: ["gpu", "docker"], requireMatchingTags: true });
    const untagged = await c.create();
    const tagged = await c.create({ demands: { tags: ["gpu"] } });
    expect((await picky.take()).runId).toBe(tagged.runId);
    expect((await c.run(untagged.runId)).pendingReasons.join()).toMatch(/takes only runs that name one of its tags/);
  });
});

describe("what a runner can take", () => {
  it("is never exceeded, however many runs wait", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c, { maxConcurrentRuns: 3 });
    for (let n = 0; n < 8; n++) await c.create();
    const offers = [await runner.take(), await runner.offer(), await runner.offer()];
    const { runner: seen } = await c.fleet.getRunner({ runnerId: runner.runnerId });
    expect(seen?.activeRuns).toBe(3);
    expect(runner.stream.offers).toHaveLength(3);
    await runner.ok(offers[0] as (typeof offers)[0], "COMPLETED");
    await runner.offer();
    expect(runner.stream.offers).toHaveLength(4);
    expect((await c.runs.listRuns({ states: [1] })).runs).toHaveLength(4);
  });

  it("is lowered by what it reports, and not raised", async () => {
    const c = await startTestCoordinator({ streamKeepaliveMs: 50 });
    const runner = await RawRunner.register(c, { maxConcurrentRuns: 2 });
    await runner.open({ freeSlots: 1 });
    for (let n = 0; n < 4; n++) await c.create();
    await runner.take();
    await runner.stream.keepalive();
    await runner.stream.keepalive();
    expect(runner.stream.offers).toHaveLength(1);
    await runner.heartbeat({ freeSlots: 900 });
    await runner.take();
    await runner.heartbeat({ freeSlots: 900 });
    await runner.stream.keepalive();
    await runner.stream.keepalive();
    expect(runner.stream.offers).toHaveLength(2);
  });

  it("is not lowered by a run whose final report was taken while the heartbeat was on its way", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c, ONE);
    await c.create();
    const offer = await runner.take();
    await runner.ok(offer, "COMPLETED");
    await runner.heartbeat({ freeSlots: 0, held: [held(offer, "FINAL")] });
    await c.create();
    await runner.take();
  });

  it("is nothing while it drains, by itself or by order", async () => {
    const c = await startTestCoordinator({ streamKeepaliveMs: 50 });
    const [leaving, ordered] = [await RawRunner.online(c), await RawRunner.online(c)];
    await leaving.heartbeat({ draining: true });
    await c.fleet.drainRunner({ runnerId: ordered.runnerId, reason: "maintenance" });
    const { runId } = await c.create();
    for (const { stream } of [leaving, ordered]) {
      await stream.keepalive();
      await stream.keepalive();
      expect(stream.offers).toEqual([]);
    }
    const { pendingReasons } = await c.run(runId);
    expect(pendingReasons).toContain(`${leaving.runnerId} is draining`);
    expect((await ordered.stream.nth("drain")).reason).toBe("maintenance");
    expect((await ordered.heartbeat()).directives[0]?.kind).toMatchObject({ case: "drain" });
    await leaving.heartbeat({ draining: false });
    await leaving.take();
  });

  it("is nothing without an open stream, and a heartbeat then says that the stream is missing", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.register(c);
    const { runId } = await c.create();
    expect((await runner.heartbeat()).streamMissing).toBe(true);
    expect((await c.run(runId)).pendingReasons).toContain(`${runner.runnerId} is reconnecting`);
    await runner.open();
    expect((await runner.heartbeat()).streamMissing).toBe(false);
    await runner.take();
  });
});

describe("pending runs", () => {
  it("go to several runners evenly, also when they come one by one", async () => {
    const c = await startTestCoordinator();
    const runners = [await RawRunner.online(c), await RawRunner.online(c), await RawRunner.online(c)];
    for (let n = 0; n < 6; n++) {
      const { runId } = await c.create();
      await until(async () => (await c.state(runId)) === "OFFERED", "the run is offered");
    }
    expect(runners.map(({ stream }) => stream.offers.length)).toEqual([2, 2, 2]);
  });

  it("that are there already go to several runners evenly", async () => {
    const c = await startTestCoordinator();
    const runners = [await RawRunner.register(c), await RawRunner.register(c)];
    for (let n = 0; n < 4; n++) await c.create();
    for (const runner of runners) await runner.heartbeat({ freeSlots: 2 });
    await Promise.all(runners.map((runner) => runner.open({ freeSlots: 2 })));
    await until(() => runners.every(({ stream }) => stream.offers.length === 2), "two offers each");
  });

  it("go in the order in which they were made, whatever class they are of", async () => {
    const c = await startTestCoordinator();
    const made: string[] = [];
    for (let n = 0; n < 6; n++) {
      made.push((await c.create(n % 2 === 0 ? {} : { demands: { tags: ["docker"] } })).runId);
    }
    const runner = await RawRunner.online(c, { ...ONE, tags: ["docker"] });
    const taken: string[] = [];
    for (let n = 0; n < 6; n++) {
      const offer = await runner.take();
      taken.push(offer.runId);
      await runner.ok(offer, "COMPLETED");
    }
    expect(taken).toEqual(made);
  });

  it("that match nobody do not slow down those that match: two thousand cost no command of the store", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    const waits = (count: number, hosts: number) =>
      Promise.all(Array.from({ length: count }, (_, n) => c.create({ demands: { hostname: `host-${n % hosts}` } })));
    const commandsOfOne = async (): Promise<number> => {
      const before = await c.metric("agent_store_commands_total");
      await c.create();
      await runner.ok(await runner.take(), "COMPLETED");
      return (await c.metric("agent_store_commands_total")) - before;
    };
    await waits(20, 20);
    const offered = vi.spyOn(c.store, "offer");
    const few = await commandsOfOne();
    for (let n = 0; n < 20; n++) await waits(100, 500);
    offered.mockClear();
    expect(await commandsOfOne()).toBeLessThanOrEqual(few + 2);
    expect(offered.mock.calls.length).toBeLessThanOrEqual(2);
    for (const [candidates] of offered.mock.calls)
      expect(candidates.flatMap((one) => one.demandClasses)).toHaveLength(1);
  });
});

describe("a run that no runner can ever take", () => {
  it("fails with the reason of each runner when its time is over", async () => {
    const c = await startTestCoordinator({ noMatchTimeoutMs: 200 });
    const runner = await RawRunner.online(c);
    const { runId } = await c.create({ demands: { tags: ["docker"] } });
    const run = await c.reached(runId, "FAILED");
    expect(run.failure).toBe(NO_MATCH);
    expect(run.message).toBe(`no runner matches: 1 runner; ${runner.runnerId} lacks tag docker`);
    expect(run.attempt).toBe(0);
  });

  it("also when no runner is registered at all", async () => {
    const c = await startTestCoordinator({ noMatchTimeoutMs: 200 });
    const { runId } = await c.create();
    expect((await c.reached(runId, "FAILED")).message).toBe("no runner is registered");
  });

  it("says when it will, from the first answer on, for as long as nobody suits", async () => {
    const c = await startTestCoordinator({ noMatchTimeoutMs: 300_000 });
    await RawRunner.online(c, { executorProfile: "other" });
    const before = Date.now();
    const { runId } = await c.create({ demands: { executorProfile: "test" } });
    const { noMatchAt, pendingReasons } = await c.run(runId);
    expect(pendingReasons[0]).toBe("no runner matches: 1 runner");
    expect(timestampMs(noMatchAt!)).toBeGreaterThanOrEqual(before + 300_000);
    expect(timestampMs(noMatchAt!)).toBeLessThanOrEqual(Date.now() + 300_000);
    await RawRunner.online(c, { executorProfile: "test" });
    await until(async () => (await c.run(runId)).noMatchAt === undefined, "the run is no longer to fail");
  });

  it("says nothing of it while a runner suits it that is full", async () => {
    const c = await startTestCoordinator({ noMatchTimeoutMs: 300_000 });
    const runner = await RawRunner.online(c, { maxConcurrentRuns: 1 });
    await c.create();
    await runner.take();
    const { runId } = await c.create();
    await until(async () => (await c.run(runId)).pendingReasons.length > 1, "it waits for the full runner");
    expect((await c.run(runId)).noMatchAt).toBeUndefined();
  });

  it("begins to count anew after the coordinator was away itself", async () => {
    const c = await startTestCoordinator({ noMatchTimeoutMs: 300_000 });
    const { runId } = await c.create();
    await until(async () => (await c.store.unmatchedClasses(Number.MAX_SAFE_INTEGER)).length === 1, "the clock runs");
    await c.running.coordinator.dispatcher.resume();
    await until(async () => (await c.store.unmatchedClasses(Number.MAX_SAFE_INTEGER)).length === 1, "it runs again");
    expect((await c.run(runId)).noMatchAt).toBeDefined();
  });

  it("waits without end when the time is 0", async () => {
    const c = await startTestCoordinator({ noMatchTimeoutMs: 0 });
    const failPending = vi.spyOn(c.store, "failPending");
    const { runId } = await c.create();
    const { pendingReasons, noMatchAt } = await c.run(runId);
    expect({ pendingReasons, noMatchAt }).toEqual({
      pendingReasons: ["no runner is registered"],
      noMatchAt: undefined,
    });
    await c.running.coordinator.dispatcher.sweep();
    expect(failPending).not.toHaveBeenCalled();
  });

  it("has its clock ended by a runner that matches, even one that is away, and started anew when that one leaves", async () => {
    const wall = { ms: Date.now() };
    const c = await startTestCoordinator({ noMatchTimeoutMs: 10_000 }, () => ({
      wallMs: wall.ms,
      steadyMs: performance.now(),
    }));
    const { runId, sessionId } = await c.create({ demands: { tags: ["docker"] } });
    await until(() => c.logged.find(({ level }) => level === "warn"), "a warning");
    expect(c.logged.find(({ level }) => level === "warn")).toMatchObject({
      run_id: runId,
      session_id: sessionId,
      reason: "no runner is registered",
    });
    const sweep = () => c.running.coordinator.dispatcher.sweep();
    wall.ms += 9_000;
    const runner = await RawRunner.register(c, { tags: ["docker"] });
    wall.ms += 60_000;
    await sweep();
    expect(await c.state(runId)).toBe("PENDING");
    await runner.deregister();
    await until(
      () =>
        c.logged.filter(({ msg }) => msg === "no runner matches a pending run; it fails in 10s unless one comes")
          .length === 2,
      "the clock",
    );
    wall.ms += 9_000;
    await sweep();
    expect(await c.state(runId)).toBe("PENDING");
    wall.ms += 2_000;
    await until(async () => {
      await sweep();
      return (await c.state(runId)) === "FAILED";
    }, "the run has failed");
  });

  it("has its clock started anew by a restart: nobody could register meanwhile", async () => {
    const wall = { ms: Date.now() };
    const clock = () => ({ wallMs: wall.ms, steadyMs: performance.now() });
    const c = await startTestCoordinator({ memory: false, noMatchTimeoutMs: 10_000 }, clock);
    const { runId } = await c.create();
    await c.stop();
    wall.ms += 60_000;
    await c.start();
    await c.running.coordinator.dispatcher.sweep();
    expect(await c.state(runId)).toBe("PENDING");
    wall.ms += 11_000;
    await c.running.coordinator.dispatcher.sweep();
    expect(await c.state(runId)).toBe("FAILED");
  });
});

describe("why a run is pending", () => {
  it("is said of each runner, in words", async () => {
    const c = await startTestCoordinator();
    const busy = await RawRunner.online(c, { ...ONE, tags: ["docker"] });
    await c.create({ demands: { tags: ["docker"] } });
    await busy.take();
    const plain = await RawRunner.online(c, { executorProfile: "other" });
    const { runId } = await c.create({ demands: { tags: ["docker"], executorProfile: "test" } });
    expect((await c.run(runId)).pendingReasons).toEqual([
      "waits for a runner: 1 of 2 runners could take it",
      `${busy.runnerId} is full 1/1`,
      `${plain.runnerId} has executor profile other, not test and lacks tag docker`,
    ]);
    await busy.stream.leave();
    await until(
      async () => (await c.run(runId)).pendingReasons.includes(`${busy.runnerId} is reconnecting`),
      "the reason has changed",
    );
  });

  it("is not said of a run that does not wait", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    const { runId } = await c.create();
    const offer = await runner.offer();
    expect((await c.run(runId)).pendingReasons).toEqual([]);
    await runner.accepted(offer);
    expect((await c.run(runId)).pendingReasons).toEqual([]);
  });
});
