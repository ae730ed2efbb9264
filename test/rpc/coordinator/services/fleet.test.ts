import { Code } from "@connectrpc/connect";
import { afterEach, describe, expect, it, vi } from "vitest";
import { Runner_Presence } from "../../../../gen/agentrunner/v1/runner_pb.ts";
import { nameOf, present, startTestCoordinator, stopTestCoordinators } from "../../../support/coordinator.ts";
import { held, output, RawRunner } from "../../../support/raw-runner.ts";
import { until } from "../../../support/until.ts";

afterEach(async () => {
  vi.useRealTimers();
  await stopTestCoordinators();
});

describe("the fleet", () => {
  it("is listed in pages, by host, with where each runner is", async () => {
    const c = await startTestCoordinator({ heartbeatMs: 100 });
    const online = await RawRunner.online(c, { hostname: "b", executor: { type: "test", command: "/bin/test" } });
    const away = await RawRunner.register(c, { hostname: "a", name: "spare", tags: ["gpu"] });
    await RawRunner.register(c, { hostname: "c" });
    const first = await c.fleet.listRunners({ pageSize: 2 });
    expect(first.runners.map(({ hostname }) => hostname)).toEqual(["a", "b"]);
    const second = await c.fleet.listRunners({ pageSize: 2, pageToken: first.nextPageToken });
    expect([second.runners.map(({ hostname }) => hostname), second.nextPageToken]).toEqual([["c"], ""]);
    await c.create();
    await online.take();
    const get = async (runnerId: string) => present((await c.fleet.getRunner({ runnerId })).runner);
    expect(await get(online.runnerId)).toMatchObject({
      activeRuns: 1,
      maxConcurrentRuns: 4,
      presence: Runner_Presence.ONLINE,
      executor: { type: "test", command: "/bin/test" },
      bootId: online.identity.bootId,
    });
    await until(
      async () => nameOf(Runner_Presence, (await get(away.runnerId)).presence) === "AWAY",
      "the runner without a stream is away",
    );
    expect(await get(away.runnerId)).toMatchObject({ name: "spare", tags: ["gpu"] });
    await expect(c.fleet.getRunner({ runnerId: "lnch_none" })).rejects.toMatchObject({ code: Code.NotFound });
    await expect(c.fleet.listRunners({ pageToken: "2" })).rejects.toMatchObject({ code: Code.InvalidArgument });
  });
});

describe("a drained runner", () => {
  it("finishes what it runs, takes nothing more, leaves, and is as new when it comes again", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    const { runId } = await c.create();
    const offer = await runner.take();
    const { runner: drained } = await c.fleet.drainRunner({ runnerId: runner.runnerId, reason: "upgrade" });
    expect(drained).toMatchObject({ draining: true, activeRuns: 1 });
    await c.create();
    await runner.open({ held: [held(offer)] });
    expect((await runner.stream.nth("drain")).reason).toBe("upgrade");
    await runner.ok(offer, "COMPLETED");
    await runner.deregister();
    expect(await runner.stream.end()).toBe("REMOVED");
    expect(await c.state(runId)).toBe("COMPLETED");
    expect((await c.fleet.listRunners({})).runners).toEqual([]);
    const again = await runner.again({ bootId: "boot_2" });
    await again.open();
    await again.take();
    expect(again.stream.all("drain")).toEqual([]);
    await expect(c.fleet.drainRunner({ runnerId: "lnch_none" })).rejects.toMatchObject({ code: Code.NotFound });
  });

  it("loses what it still holds when it leaves", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    const [fails, again] = [await c.create(), await c.create({ onLost: { policy: 2 } })];
    await runner.take();
    await runner.take();
    await runner.deregister();
    expect((await c.run(fails.runId)).message).toBe("its runner deregistered");
    expect(await c.state(again.runId)).toBe("PENDING");
  });
});

describe("a removed runner", () => {
  it("loses its runs now, named in the answer, and its sessions settle", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    const running = await c.create();
    const stopping = await c.create();
    const offered = await c.create();
    await runner.take();
    await runner.take();
    await runner.offer();
    await c.runs.stopRun({ runId: stopping.runId });
    const { lostRunIds } = await c.fleet.removeRunner({ runnerId: runner.runnerId });
    expect(lostRunIds.toSorted()).toEqual([running.runId, stopping.runId].toSorted());
    expect(await runner.stream.end()).toBe("REMOVED");
    const states = await Promise.all([running, stopping, offered].map(({ runId }) => c.state(runId)));
    expect(states).toEqual(["FAILED", "STOPPED", "PENDING"]);
    expect((await c.run(running.runId)).message).toBe("its runner was removed");
    const { sessions } = await c.sessions.listSessions({});
    expect(sessions.map(({ status }) => status)).toEqual([1, 6, 5]);
    await expect(runner.heartbeat()).rejects.toMatchObject({ code: Code.NotFound });
    await expect(c.fleet.removeRunner({ runnerId: runner.runnerId })).rejects.toMatchObject({ code: Code.NotFound });
    const again = await runner.again();
    await again.open();
    expect((await again.take()).runId).toBe(offered.runId);
  });
});

describe("finished runs", () => {
  it("are counted or deleted by age, with their events, and the sessions that they leave empty", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    const parent = await c.create();
    const child = await c.create({ parentSessionId: parent.sessionId });
    const waiting = await c.create({ sessionId: child.sessionId });
    for (let n = 0; n < 2; n++) {
      const offer = await runner.take();
      await runner.append(offer, 1, [output("x")]);
      await runner.ok(offer, "COMPLETED");
    }
    const running = await runner.take();
    expect(running.runId).toBe(waiting.runId);
    expect((await c.runs.pruneRuns({ olderThan: { seconds: 3600n } })).runs).toBe(0n);
    expect((await c.runs.pruneRuns({ olderThan: {}, dryRun: true })).runs).toBe(2n);
    expect((await c.runs.listRuns({})).runs).toHaveLength(3);
    expect((await c.runs.pruneRuns({ olderThan: {} })).runs).toBe(2n);
    await expect(c.run(parent.runId)).rejects.toMatchObject({ code: Code.NotFound });
    expect(await c.state(waiting.runId)).toBe("RUNNING");
    const { events } = await c.sessions.listSessionEvents({ sessionId: child.sessionId });
    expect(new Set(events.map(({ runId }) => runId))).toEqual(new Set([waiting.runId]));
    // A session whose child is left stays, for the child to have a parent.
    expect((await c.sessions.listSessions({})).sessions).toHaveLength(2);
    await runner.ok(running, "COMPLETED");
    await c.runs.pruneRuns({ olderThan: {} });
    expect((await c.sessions.listSessions({})).sessions).toEqual([]);
    await expect(c.runs.pruneRuns({})).rejects.toMatchObject({ code: Code.InvalidArgument });
    await expect(c.runs.pruneRuns({ olderThan: { seconds: -1n } })).rejects.toMatchObject({
      code: Code.InvalidArgument,
    });
  });

  it("are deleted by themselves at the age of --retain, and runners that are as long gone too", async () => {
    vi.useFakeTimers({ toFake: ["setInterval"] });
    const passed = { ms: 0 };
    const jumped = { ms: 0 };
    const begin = Date.now();
    const clock = () => ({ wallMs: begin + passed.ms + jumped.ms, steadyMs: passed.ms });
    const c = await startTestCoordinator({ retainMs: 86_400_000 }, clock);
    const runner = await RawRunner.online(c);
    const { runId } = await c.create();
    await runner.ok(await runner.take(), "COMPLETED");
    await runner.stream.leave();
    vi.advanceTimersByTime(60_000);
    expect(await c.state(runId)).toBe("COMPLETED");
    jumped.ms = 31 * 86_400_000;
    vi.advanceTimersByTime(60_000);
    await until(() => c.logged.some(({ msg }) => String(msg).includes("nothing is deleted")), "the jump is noticed");
    vi.advanceTimersByTime(600_000);
    expect(await c.state(runId), "a clock that jumped deletes nothing").toBe("COMPLETED");
    passed.ms += 2 * 86_400_000;
    vi.advanceTimersByTime(60_000);
    await until(async () => (await c.runs.listRuns({})).runs.length === 0, "the run is deleted");
    await until(async () => (await c.fleet.listRunners({})).runners.length === 0, "the runner is forgotten");
    await until(() => c.logged.some(({ runs, runners }) => runs === 1 && runners === 1), "it is said");
  });

  it("are kept for a day when the clock may have jumped while no coordinator looked", async () => {
    vi.useFakeTimers({ toFake: ["setInterval"] });
    const passed = { ms: 0 };
    const begin = Date.now();
    const clock = () => ({ wallMs: begin + passed.ms, steadyMs: passed.ms });
    const c = await startTestCoordinator({ memory: false, retainMs: 86_400_000 }, clock);
    const runner = await RawRunner.online(c);
    const { runId } = await c.create();
    await runner.ok(await runner.take(), "COMPLETED");
    await runner.stream.leave();
    await c.stop();
    passed.ms = 31 * 86_400_000;
    for (let restarts = 0; restarts < 2; restarts += 1) {
      await c.restart();
      vi.advanceTimersByTime(60_000);
      const seen = async () => (await c.store.clockNote(0)).seenAt === clock().wallMs;
      await until(seen, "it was the time to delete");
      expect(c.logged.filter(({ msg }) => String(msg).includes("may have jumped"))).toHaveLength(restarts + 1);
      expect(await c.state(runId)).toBe("COMPLETED");
    }
    passed.ms += 86_400_001;
    vi.advanceTimersByTime(60_000);
    await until(async () => (await c.runs.listRuns({})).runs.length === 0, "the run is deleted");
  });
});
