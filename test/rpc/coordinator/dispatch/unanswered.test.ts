import { afterEach, describe, expect, it } from "vitest";
import { startTestCoordinator, stopTestCoordinators } from "../../../support/coordinator.ts";
import type { TestCoordinator } from "../../../support/coordinator.ts";
import { RawRunner } from "../../../support/raw-runner.ts";
import { until } from "../../../support/until.ts";

afterEach(stopTestCoordinators);

const ONE = { maxConcurrentRuns: 1 };

/** Why the run waits, with the refusals first; undefined while it does not. */
async function reasonsOf(c: TestCoordinator, runId: string): Promise<string[]> {
  return until(async () => {
    const { pendingReasons } = await c.run(runId);
    return pendingReasons.length > 0 && pendingReasons;
  }, "why the run is pending");
}

describe("an offer that breaks its runner's stream", () => {
  it("counts as refused: the pair rests, and the run says so first", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c, ONE);
    const { runId } = await c.create();
    await runner.offer();
    await runner.stream.leave();
    const [first] = await reasonsOf(c, runId);
    expect(first).toBe(`refused by ${runner.runnerId}: its stream ended while the offer was open`);
    await runner.open();
    const start = performance.now();
    await runner.offer();
    // It was not offered in a circle: the first rest is a second.
    expect(runner.stream.offers).toHaveLength(1);
    expect(performance.now() - start).toBeGreaterThan(500);
  });

  it("fails at the tenth runner, and says what happened", async () => {
    const c = await startTestCoordinator();
    const { runId } = await c.create();
    for (let n = 1; n <= 10; n += 1) {
      const runner = await RawRunner.online(c, ONE);
      await runner.offer();
      await runner.stream.leave();
    }
    const run = await c.reached(runId, "FAILED");
    expect(run.message).toMatch(/refused 10 times.*its stream ended while the offer was open/);
  });

  it("is the first of those that were open; those behind it were not read and do not count", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    const [poison, behind] = [await c.create(), await c.create()];
    await until(() => runner.stream.offers.length === 2, "both offers");
    await runner.stream.leave();
    await reasonsOf(c, poison.runId);
    const other = await RawRunner.online(c, ONE);
    expect((await reasonsOf(c, behind.runId)).join()).not.toContain("refused by");
    await other.offer();
  });
});

describe("an offer that lapses", () => {
  it("counts as refused, with the time that the runner had", async () => {
    const c = await startTestCoordinator({ acceptDeadlineMs: 200 });
    const runner = await RawRunner.online(c, ONE);
    const { runId } = await c.create();
    await runner.offer();
    const [first] = await reasonsOf(c, runId);
    expect(first).toBe(`refused by ${runner.runnerId}: the offer was not accepted within 0.2 s`);
  });
});

describe("an offer that is taken back for a reason of the coordinator's", () => {
  it.each<[string, (c: TestCoordinator, runner: RawRunner) => Promise<unknown>]>([
    ["the runner deregisters", (_, runner) => runner.deregister()],
    [
      "another process replaces it",
      (_, runner) => runner.again({ bootId: "boot_next", previousBootId: runner.identity.bootId }),
    ],
  ])("does not count: %s", async (_, act) => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c, ONE);
    const { runId } = await c.create();
    await runner.offer();
    await act(c, runner);
    expect((await reasonsOf(c, runId)).join()).not.toContain("refused by");
  });

  it("does not count: the stream reaches its age", async () => {
    const c = await startTestCoordinator({ streamMaxAgeMs: 200 });
    const runner = await RawRunner.online(c, ONE);
    const { runId } = await c.create();
    await runner.offer();
    expect(await runner.stream.end()).toBe("RECYCLE");
    expect((await reasonsOf(c, runId)).join()).not.toContain("refused by");
  });
});

describe("a refusal for good", () => {
  const FOR_GOOD = { permanent: true, message: "project_dir /x is not a directory on the runner's host" };

  it("by every runner that suits the run fails it in seconds, with the reason", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c, ONE);
    await RawRunner.online(c, { ...ONE, executorProfile: "another" });
    const { runId } = await c.create({ demands: { executorProfile: "test" } });
    await runner.ok(await runner.offer(), "REFUSE", FOR_GOOD);
    expect((await reasonsOf(c, runId))[0]).toBe(`refused by ${runner.runnerId}: ${FOR_GOOD.message}`);
    for (let n = 2; n <= 3; n += 1) await runner.ok(await runner.offer(), "REFUSE", FOR_GOOD);
    const run = await c.reached(runId, "FAILED");
    expect(run.message).toBe(
      `every runner that suits the run refuses it for good; ${runner.runnerId}: ${FOR_GOOD.message}`,
    );
  });

  it("leaves the run to a runner that has not said so", async () => {
    const c = await startTestCoordinator();
    const [one, other] = [await RawRunner.online(c, ONE), await RawRunner.online(c, ONE)];
    const { runId } = await c.create();
    // Who is asked first is not said: whoever has it refuses for now, or for good.
    for (let n = 1; n <= 4; n += 1) {
      const open = await until(
        () => [one, other].find((runner) => runner.stream.offers.length > answered(runner)),
        "the next offer",
      );
      counts.set(open, answered(open) + 1);
      const offer = open.stream.offers.at(-1)!;
      if (open === one) await open.ok(offer, "REFUSE", FOR_GOOD);
      else await open.ok(offer, "REFUSE", { message: "no room" });
    }
    expect(await c.state(runId)).not.toBe("FAILED");
  });

  const counts = new Map<RawRunner, number>();
  const answered = (runner: RawRunner): number => counts.get(runner) ?? 0;
});
