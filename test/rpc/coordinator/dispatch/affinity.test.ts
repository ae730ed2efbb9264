import { afterEach, describe, expect, it, vi } from "vitest";
import { startTestCoordinator, stopTestCoordinators } from "../../../support/coordinator.ts";
import type { TestCoordinator } from "../../../support/coordinator.ts";
import { RawRunner } from "../../../support/raw-runner.ts";
import { until } from "../../../support/until.ts";

afterEach(stopTestCoordinators);

const AFFINITY = 10;
/** Looks for runs whose runner is gone every 50 ms. */
const SOON = { noMatchTimeoutMs: 500 } as const;

/** A session whose one run completed on a runner. */
async function session(c: TestCoordinator, about: Parameters<typeof RawRunner.online>[1] = {}) {
  const home = await RawRunner.online(c, about);
  const { sessionId } = await c.create();
  const offer = await home.take();
  await home.ok(offer, "PROGRESS", { executorSessionId: "conversation-1" });
  await home.ok(offer, "COMPLETED");
  return { home, sessionId };
}

describe("a resume", () => {
  it("goes to the runner that has the session's files, and waits for it", async () => {
    const c = await startTestCoordinator();
    const { home, sessionId } = await session(c);
    const other = await RawRunner.online(c);
    await home.stream.leave();
    const { runId } = await c.create({ sessionId, prompt: "and then?" });
    const { pendingReasons } = await c.run(runId);
    expect(pendingReasons).toEqual([
      "waits for a runner: 1 of 2 runners could take it",
      `${home.runnerId} is reconnecting`,
      `${other.runnerId} does not hold the session's files, ${home.runnerId} does`,
      `the session's files are with ${home.runnerId}: bring it back, or stop this run and go on without them: ` +
        "ao resume SESSION --any-runner",
    ]);
    await home.open();
    const { invocation } = await home.take();
    expect(invocation).toMatchObject({ mode: "resume", prompt: "and then?", executorSessionId: "conversation-1" });
    expect(other.stream.offers).toEqual([]);
    expect((await c.sessions.getSession({ sessionId })).session).toMatchObject({
      runnerId: home.runnerId,
      executorProfile: "test",
      executorSessionId: "conversation-1",
    });
  });

  it("that waits names the way out, which works", async () => {
    const c = await startTestCoordinator();
    const { home, sessionId } = await session(c);
    const other = await RawRunner.online(c);
    await home.stream.leave();
    const { runId } = await c.create({ sessionId });
    expect((await c.run(runId)).pendingReasons.join()).toContain("stop this run and go on without them: ao resume");
    await c.runs.stopRun({ runId });
    const next = await c.create({ sessionId, anyRunner: true });
    expect((await other.take()).runId).toBe(next.runId);
  });

  it("goes to the same runner under another host name", async () => {
    const c = await startTestCoordinator();
    const { home, sessionId } = await session(c, { name: "" });
    const { runnerId } = home;
    const again = { runnerId, hostname: "dhcp-10-0-7-23", bootId: "boot_2", previousBootId: home.identity.bootId };
    const renamed = await home.again(again);
    expect(renamed.runnerId).toBe(runnerId);
    await renamed.open();
    const { runId } = await c.create({ sessionId, demands: { hostname: "dhcp-10-0-7-23" } });
    expect((await renamed.take()).runId).toBe(runId);
    const { runners } = await c.fleet.listRunners({});
    expect(runners.map(({ hostname }) => hostname)).toEqual(["dhcp-10-0-7-23"]);
  });

  it("of a portable executor goes to any runner of its profile", async () => {
    const c = await startTestCoordinator();
    const { home, sessionId } = await session(c, { executor: { type: "test", portable: true } });
    await home.stream.leave();
    const stranger = await RawRunner.online(c, { executorProfile: "other" });
    const sibling = await RawRunner.online(c);
    const { runId } = await c.create({ sessionId });
    expect((await sibling.take()).runId).toBe(runId);
    expect(stranger.stream.offers).toEqual([]);
  });

  it("fails when that runner is removed, and names the way out, which works", async () => {
    const c = await startTestCoordinator(SOON);
    const { home, sessionId } = await session(c);
    const other = await RawRunner.online(c);
    await c.fleet.removeRunner({ runnerId: home.runnerId });
    const stranded = await c.reached((await c.create({ sessionId })).runId, "FAILED");
    expect(stranded.failure).toBe(AFFINITY);
    expect(stranded.message).toMatch(new RegExp(`${home.runnerId}.* was removed.*ao resume --any-runner`));
    const { runId } = await c.create({ sessionId, anyRunner: true });
    const offer = await other.take();
    expect([offer.runId, offer.invocation?.mode]).toEqual([runId, "resume"]);
    await other.ok(offer, "COMPLETED");
    const next = await c.create({ sessionId });
    expect((await other.take()).runId).toBe(next.runId);
  });

  it("waits for that runner when it has left after a drain, and nobody else does", async () => {
    const c = await startTestCoordinator(SOON);
    const { home, sessionId } = await session(c);
    await home.deregister();
    expect((await c.fleet.listRunners({})).runners).toEqual([]);
    const { runId } = await c.create({ sessionId });
    const stranger = await c.create({ prompt: "anybody?" });
    expect(await c.reached(stranger.runId, "FAILED")).toMatchObject({ message: "no runner is registered" });
    expect((await c.run(runId)).pendingReasons).toContain(`${home.runnerId} is reconnecting`);
    const back = await home.again();
    await back.open();
    expect((await back.take()).runId).toBe(runId);
  });

  it("that waits already fails too when that runner is removed", async () => {
    const c = await startTestCoordinator(SOON);
    const { home, sessionId } = await session(c);
    await home.stream.leave();
    const { runId } = await c.create({ sessionId });
    await c.fleet.removeRunner({ runnerId: home.runnerId });
    expect((await c.reached(runId, "FAILED")).failure).toBe(AFFINITY);
  });

  it("fails when that runner has been away too long, and not before", async () => {
    const c = await startTestCoordinator({ ...SOON, runnerAwayMs: 600 });
    const { home, sessionId } = await session(c);
    await home.stream.leave();
    const { runId } = await c.create({ sessionId });
    await c.running.coordinator.dispatcher.sweep();
    expect(await c.state(runId)).toBe("PENDING");
    expect((await c.reached(runId, "FAILED")).message).toMatch(/has been away too long/);
  });

  it("does not fail for time in which the coordinator was away itself, or paused", async () => {
    const wall = { ms: Date.now() };
    const clock = () => ({ wallMs: wall.ms, steadyMs: performance.now() });
    const c = await startTestCoordinator({ ...SOON, memory: false, leaseTtlMs: 5_000 }, clock);
    const { home, sessionId } = await session(c);
    await home.stream.leave();
    const { runId } = await c.create({ sessionId });
    const dispatched = () => c.running.coordinator.dispatcher;
    await c.stop();
    wall.ms += 10 * 3_600_000;
    await c.start();
    await dispatched().sweep();
    expect(await c.state(runId)).toBe("PENDING");
    const resume = vi.spyOn(dispatched(), "resume");
    wall.ms += 10 * 3_600_000;
    await until(() => resume.mock.settledResults[0]?.type === "fulfilled", "the pause is noticed");
    await dispatched().sweep();
    expect(await c.state(runId)).toBe("PENDING");
    await home.open();
    expect((await home.take()).runId).toBe(runId);
  });

  it("finds that runner again when it comes back after having been away too long", async () => {
    const c = await startTestCoordinator({ ...SOON, runnerAwayMs: 100 });
    const { home, sessionId } = await session(c);
    await home.stream.leave();
    await c.reached((await c.create({ sessionId })).runId, "FAILED");
    await home.open();
    const { runId } = await c.create({ sessionId });
    expect((await home.take()).runId).toBe(runId);
  });
});
