import { afterEach, describe, expect, it } from "vitest";
import { Runner_Presence } from "../../../../gen/agentrunner/v1/runner_pb.ts";
import { nameOf, startTestCoordinator, stopTestCoordinators } from "../../../support/coordinator.ts";
import type { TestCoordinator } from "../../../support/coordinator.ts";
import { RawRunner } from "../../../support/raw-runner.ts";
import { until } from "../../../support/until.ts";

afterEach(stopTestCoordinators);

const CONFIRMS = { confirmsStream: true };

async function presence(c: TestCoordinator, { runnerId }: RawRunner): Promise<string> {
  const { runner } = await c.fleet.getRunner({ runnerId });
  return nameOf(Runner_Presence, runner!.presence);
}

/** What the runner says when its stream has brought `opened`. */
async function confirm(runner: RawRunner): Promise<void> {
  await runner.heartbeat({ streamId: (await runner.stream.nth("opened")).streamId });
}

describe("a runner that confirms its streams", () => {
  it("is offered nothing until it has named the stream, which everybody can see", async () => {
    const c = await startTestCoordinator({ streamKeepaliveMs: 20 });
    const runner = await RawRunner.register(c);
    const stream = await runner.open(CONFIRMS);
    const { runId } = await c.create();
    await runner.heartbeat();
    await runner.heartbeat({ streamId: "stream_of_another" });
    expect(await presence(c, runner)).toBe("UNCONFIRMED");
    const reasons = await until(async () => (await c.run(runId)).pendingReasons.join("; "), "why it waits");
    expect(reasons).toContain(
      `${runner.runnerId} has not said that its stream arrives (a proxy on the way may keep it back)`,
    );
    await stream.keepalive();
    expect(stream.offers).toEqual([]);
    await confirm(runner);
    expect(await presence(c, runner)).toBe("ONLINE");
    expect((await runner.offer()).runId).toBe(runId);
  });

  it("confirms each stream anew", async () => {
    const c = await startTestCoordinator({ streamKeepaliveMs: 20 });
    const runner = await RawRunner.register(c);
    await runner.open(CONFIRMS);
    await confirm(runner);
    const second = await runner.open(CONFIRMS);
    await c.create();
    await second.keepalive();
    expect(second.offers).toEqual([]);
    await confirm(runner);
    await runner.offer();
  });

  it("gets its orders on the stream meanwhile", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.register(c);
    await runner.open(CONFIRMS);
    await c.fleet.drainRunner({ runnerId: runner.runnerId });
    await runner.stream.nth("drain");
  });
});

it("a runner that does not know of it is offered runs as soon as its stream is open", async () => {
  const c = await startTestCoordinator();
  const runner = await RawRunner.online(c);
  await c.create();
  await runner.offer();
  expect(await presence(c, runner)).toBe("ONLINE");
});
