import { afterEach, describe, expect, it } from "vitest";
import { ExecutionMode, FailureReason } from "../../../gen/agentrunner/v1/run_pb.ts";
import { ao, startAo } from "../../support/ao.ts";
import { startTestCoordinator, stopTestCoordinators } from "../../support/coordinator.ts";
import type { TestCoordinator } from "../../support/coordinator.ts";
import { RawRunner } from "../../support/raw-runner.ts";
import { until } from "../../support/until.ts";

afterEach(stopTestCoordinators);

async function ready() {
  const c = await startTestCoordinator();
  const runner = await RawRunner.online(c);
  return { c, runner };
}

const start = (c: TestCoordinator, ...args: string[]) => startAo(["-c", c.url, ...args]);

/** A session whose first run has completed, while a child of it runs. */
async function withChild(c: TestCoordinator, runner: RawRunner, executionMode: ExecutionMode) {
  const boss = await c.create({ sessionName: "boss" });
  const own = await runner.take();
  const child = await c.create({ sessionName: "child", parentSessionId: boss.sessionId, executionMode });
  const below = await runner.take();
  await runner.ok(own, "COMPLETED", { result: { text: "started one" } });
  return { boss, child, below };
}

describe("ao wait", () => {
  it("ends when the sessions have settled: with 0, or as the last run of the first that did not complete", async () => {
    const { c, runner } = await ready();
    const offers = [];
    for (const sessionName of ["good", "bad", "late"]) {
      await c.create({ sessionName });
      offers.push(await runner.take());
    }
    const [good, bad, late] = offers;
    const waits = [["good"], ["good", "bad", "good"], ["late", "bad"]].map((names) => start(c, "wait", ...names));
    await runner.ok(good!, "COMPLETED");
    await until(() => waits[1]!.stdout() !== "", "the first is told of at once");
    await runner.ok(bad!, "FAILED", { failure: FailureReason.EXECUTOR_EXIT });
    await runner.ok(late!, "FAILED", { failure: FailureReason.TIMEOUT });
    expect(await Promise.all(waits.map(({ exit }) => exit))).toEqual([0, 1, 6]);
    expect(waits[0]!.stdout()).toMatch(/^good {2}run_[0-9a-f]{28} {2}completed after .*\n$/);
    expect(waits[1]!.stdout()).toMatch(/^good .*\nbad .* failed after .* — executor exit\n$/);
    expect((await ao(["-c", c.url, "wait", "good", "-o", "json"])).stdout).toContain('"run_id"');
    expect((await ao(["-c", c.url, "wait", "nobody"])).exitCode).toBe(7);
  });

  it("ends at once for what has settled, however short the time is, and as the run that ended", async () => {
    const { c, runner } = await ready();
    const { sessionId } = await c.create({ sessionName: "over" });
    await runner.ok(await runner.take(), "FAILED", { failure: FailureReason.TIMEOUT });
    expect((await ao(["-c", c.url, "wait", "over", "--timeout", "0"])).exitCode).toBe(6);
    expect((await ao(["-c", c.url, "wait", "over", "--timeout", "0"])).stdout).toMatch(/^over .*failed/);
    await c.create({ sessionId });
    await runner.ok(await runner.take(), "COMPLETED");
    for (const more of [[], ["--tree"]]) {
      expect((await ao(["-c", c.url, "wait", "over", "--timeout", "0", ...more])).exitCode).toBe(0);
    }
  });

  it("goes on after a completed run while a child is to call back, and ends with the run that was told", async () => {
    const { c, runner } = await ready();
    const { below } = await withChild(c, runner, ExecutionMode.ASYNC_CALLBACK);
    const waiting = start(c, "wait", "boss");
    await runner.ok(below, "COMPLETED");
    const told = await runner.take();
    await runner.ok(told, "STOPPED");
    expect(await waiting.exit).toBe(5);
    expect(waiting.stdout()).toContain(told.runId);
  });

  it("waits for a whole tree with --tree, and without it only for those that call back", async () => {
    const { c, runner } = await ready();
    const { below } = await withChild(c, runner, ExecutionMode.ASYNC_POLL);
    const tree = start(c, "wait", "boss", "--tree");
    expect(await start(c, "wait", "boss").exit).toBe(0);
    expect(tree.stdout()).toBe("");
    await runner.ok(below, "COMPLETED");
    expect(await tree.exit).toBe(0);
  });

  it("ends with the first that settles with --any", async () => {
    const { c, runner } = await ready();
    await c.create({ sessionName: "a" });
    await runner.take();
    await c.create({ sessionName: "b" });
    const b = await runner.take();
    const waiting = start(c, "wait", "--any", "a", "b");
    await runner.ok(b, "FAILED", { failure: FailureReason.EXECUTOR_EXIT });
    expect(await waiting.exit).toBe(1);
    expect(waiting.stdout()).toMatch(/^b {2}run_.*\n$/);
  });

  it("gives up when the time is over: exit 6, naming those that have not settled", async () => {
    const { c, runner } = await ready();
    await c.create({ sessionName: "done" });
    await runner.ok(await runner.take(), "COMPLETED");
    await c.create({ sessionName: "slow" });
    const { exitCode, stdout, stderr } = await ao(["-c", c.url, "wait", "done", "slow", "--timeout", "1500ms"]);
    expect(exitCode).toBe(6);
    expect(stdout).toMatch(/^done /);
    expect(stderr).toBe(
      "error: the time is over, and 1 of 2 sessions has not settled: slow\nhint: `ao get slow` says where it stands\n",
    );
  });

  it("goes on across a restart of the coordinator, and leaves at Ctrl+C: exit 130", async () => {
    const c = await startTestCoordinator({ memory: false });
    for (const sessionName of ["one", "two"]) await c.create({ sessionName });
    const [waiting, left] = [start(c, "wait", "one"), start(c, "wait", "two")];
    await until(() => c.running.coordinator.watchers.size === 2, "both follow");
    await c.stop();
    await until(() => waiting.stderr().includes("is away"), "the cut is noticed");
    await c.start();
    left.interrupt();
    expect(await left.exit).toBe(130);
    const stopped = await ao(["-c", c.url, "stop", "one"]);
    expect(stopped.exitCode).toBe(0);
    expect(await waiting.exit).toBe(5);
  });
});

describe("ao start --follow", () => {
  it.each(["text", "json"])("shows the runs that callbacks make as well, and ends as the last: -o %s", async (form) => {
    const { c, runner } = await ready();
    const following = start(c, "start", "boss", "--prompt", "x", "-f", "-o", form);
    const own = await runner.take();
    const child = { parentSessionId: own.invocation?.sessionId ?? "", executionMode: ExecutionMode.ASYNC_CALLBACK };
    await c.create({ sessionName: "child", ...child });
    const below = await runner.take();
    await runner.ok(own, "COMPLETED", { result: { text: "started one" } });
    await runner.ok(below, "COMPLETED");
    const told = await runner.take();
    await runner.ok(told, "FAILED", { failure: FailureReason.EXECUTOR_EXIT, result: { text: "heard of it" } });
    expect(await following.exit).toBe(1);
    if (form === "text") expect(following.stdout()).toBe("started one\nheard of it\n");
    else expect(JSON.parse(following.stdout())).toMatchObject({ run_id: told.runId });
  });

  it("does not go on with what others queue in the session", async () => {
    const { c, runner } = await ready();
    const following = start(c, "start", "shared", "--prompt", "x", "-f");
    const own = await runner.take();
    await c.create({ sessionName: "shared", prompt: "of somebody else" });
    await runner.ok(own, "COMPLETED");
    expect(await following.exit).toBe(0);
  });
});
