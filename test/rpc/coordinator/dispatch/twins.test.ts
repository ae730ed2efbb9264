import { Code } from "@connectrpc/connect";
import { afterEach, describe, expect, it } from "vitest";
import { startTestCoordinator, stopTestCoordinators } from "../../../support/coordinator.ts";
import { held, RawRunner } from "../../../support/raw-runner.ts";
import { until } from "../../../support/until.ts";

afterEach(stopTestCoordinators);

const RETRY = { onLost: { policy: 2 } } as const;

describe("two processes with one identity", () => {
  it("cannot be registered at once: the second is told who has it and what to do", async () => {
    const c = await startTestCoordinator();
    const first = await RawRunner.online(c, { name: "" });
    const refused = first.again({ bootId: "boot_twin" });
    await expect(refused).rejects.toMatchObject({ code: Code.AlreadyExists });
    await expect(refused).rejects.toThrow(/host-a, registered \d{4}-.*--name/);
    const other = await first.again({ bootId: "boot_twin", name: "second" });
    expect(other.runnerId).not.toBe(first.runnerId);
  });

  it("cannot both have it while the first was heard from within two heartbeats, also without its stream", async () => {
    const c = await startTestCoordinator({ heartbeatMs: 150 });
    const first = await RawRunner.register(c);
    await expect(first.again({ bootId: "boot_twin" })).rejects.toMatchObject({ code: Code.AlreadyExists });
    const second = await until(() => first.again({ bootId: "boot_twin" }).catch(() => undefined), "the first is dead");
    expect(second.runnerId).toBe(first.runnerId);
    await expect(first.heartbeat()).rejects.toMatchObject({ code: Code.Unauthenticated });
  });

  it("cannot both have it while the first has its stream open, however long it is silent", async () => {
    const c = await startTestCoordinator({ heartbeatMs: 50, streamKeepaliveMs: 50 });
    const first = await RawRunner.online(c);
    for (let n = 0; n < 4; n++) await first.stream.keepalive();
    await expect(first.again({ bootId: "boot_twin" })).rejects.toMatchObject({ code: Code.AlreadyExists });
  });

  it("cannot share a token: a stream or heartbeat of another boot is ALREADY_EXISTS", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    const twin = { bootId: "boot_twin" };
    await expect(runner.heartbeat(twin)).rejects.toMatchObject({ code: Code.AlreadyExists });
    await expect(runner.open(twin)).rejects.toMatchObject({ code: Code.AlreadyExists });
    const { runnerId, options } = runner;
    const leaving = c.runners.deregister({ runnerId, ...twin }, options);
    await expect(leaving).rejects.toMatchObject({ code: Code.AlreadyExists });
  });
});

describe("a runner that names the identity which it kept", () => {
  it("is that one, also to a coordinator that never heard of it", async () => {
    const c = await startTestCoordinator();
    const runnerId = "lnch_0123456789ab";
    const kept = await RawRunner.online(c, { runnerId, name: "" });
    expect(kept.runnerId).toBe(runnerId);
    // The clone of its machine, under another host name and without knowing its process.
    const clone = kept.again({ bootId: "boot_clone", hostname: "host-b" });
    await expect(clone).rejects.toMatchObject({ code: Code.AlreadyExists });
  });

  it("is not somebody else: another directory, profile or name has an identity of its own", async () => {
    const c = await startTestCoordinator();
    const first = await RawRunner.online(c, { runnerId: "lnch_0123456789ab" });
    for (const about of [{ projectDir: "/srv/other" }, { executorProfile: "other" }, { name: "other" }]) {
      expect((await first.again({ bootId: "boot_2", ...about })).runnerId).not.toBe(first.runnerId);
    }
    await expect(first.again({ runnerId: "../x" })).rejects.toMatchObject({ code: Code.InvalidArgument });
  });
});

describe("a process that names its predecessor", () => {
  it("replaces it at once: the old token dies, the old stream is closed with REPLACED", async () => {
    const c = await startTestCoordinator();
    const first = await RawRunner.online(c);
    const oldStream = first.stream;
    const second = await first.again({ bootId: "boot_2", previousBootId: first.identity.bootId });
    expect(await oldStream.end()).toBe("REPLACED");
    await expect(first.heartbeat()).rejects.toMatchObject({ code: Code.Unauthenticated });
    await expect(first.open()).rejects.toMatchObject({ code: Code.Unauthenticated });
    await second.open();
    await c.create();
    await second.take();
  });

  it("keeps the leases that it lists and loses the others now", async () => {
    const c = await startTestCoordinator();
    const first = await RawRunner.online(c);
    const [keep, lose, open] = [await c.create(), await c.create(RETRY), await c.create()];
    const kept = await first.take();
    await first.take();
    await first.offer();
    const second = await first.again({
      bootId: "boot_2",
      previousBootId: first.identity.bootId,
      held: [held(kept), { runId: "run_none", leaseId: "lease_none" }],
    });
    expect(second.registered.verdicts.map(({ kind }) => kind)).toEqual([1, 3]);
    const states = await Promise.all([keep, lose, open].map(({ runId }) => c.state(runId)));
    expect(states).toEqual(["RUNNING", "PENDING", "PENDING"]);
    await second.ok(kept, "COMPLETED", { seq: 9n });
    expect((await c.run(keep.runId)).state).toBe(6);
  });

  it("counts as any other when the predecessor is not the registered process", async () => {
    const c = await startTestCoordinator();
    const first = await RawRunner.online(c);
    const twin = first.again({ bootId: "boot_2", previousBootId: "boot_of_long_ago" });
    await expect(twin).rejects.toMatchObject({ code: Code.AlreadyExists });
  });
});

describe("the same process", () => {
  it("may register again: it gets a further token and the first stays valid, its stream and its runs too", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    const { runId } = await c.create();
    const offer = await runner.take();
    const again = await runner.again({ tags: ["docker"] });
    expect(again.registered.runnerToken).not.toBe(runner.registered.runnerToken);
    expect(await again.beat(held(offer))).toEqual(["RENEWED"]);
    expect(await runner.beat(held(offer))).toEqual(["RENEWED"]);
    expect(runner.stream.open).toBe(true);
    expect(await c.state(runId)).toBe("RUNNING");
    expect((await c.fleet.getRunner({ runnerId: runner.runnerId })).runner?.tags).toEqual(["docker"]);
    await c.create({ demands: { tags: ["docker"] } });
    await runner.take();
  });

  it("may do so often: the newest sixteen tokens are valid", async () => {
    const c = await startTestCoordinator();
    const first = await RawRunner.register(c);
    const others: RawRunner[] = [];
    for (let n = 0; n < 16; n++) others.push(await first.again());
    await expect(first.heartbeat()).rejects.toMatchObject({ code: Code.Unauthenticated });
    for (const other of others) await other.heartbeat();
  });
});

describe("a token", () => {
  it("is asked for only after the runner is known: NOT_FOUND comes before UNAUTHENTICATED", async () => {
    const c = await startTestCoordinator();
    const { runnerId } = await RawRunner.register(c);
    const call = (id: string, authorization?: string) =>
      c.runners.heartbeat(
        { runnerId: id, bootId: "b" },
        authorization === undefined ? {} : { headers: { authorization } },
      );
    await expect(call("lnch_none")).rejects.toMatchObject({ code: Code.NotFound });
    await expect(call("lnch_none", "Bearer x")).rejects.toMatchObject({ code: Code.NotFound });
    for (const wrong of [undefined, "Bearer x", "Bearer ", "Basic eDp5"]) {
      await expect(call(runnerId, wrong)).rejects.toMatchObject({ code: Code.Unauthenticated });
    }
  });

  it("is good for its own runner only", async () => {
    const c = await startTestCoordinator();
    const [a, b] = [await RawRunner.register(c), await RawRunner.register(c)];
    const call = c.runners.heartbeat({ runnerId: a.runnerId, bootId: a.identity.bootId }, b.options);
    await expect(call).rejects.toMatchObject({ code: Code.Unauthenticated });
  });

  it("is asked for in every call but Register", async () => {
    const c = await startTestCoordinator();
    const { runnerId, identity } = await RawRunner.register(c);
    const who = { runnerId, bootId: identity.bootId };
    const report = { runId: "run_1", leaseId: "lease_1", seq: 1n, kind: 1 } as const;
    const calls = [
      () => c.runners.heartbeat(who),
      () => c.runners.reportStatus({ runnerId, reports: [report] }),
      () => c.runners.appendEvents({ runnerId, batches: [{ runId: "run_1", leaseId: "lease_1", firstSeq: 1n }] }),
      () => c.runners.deregister(who),
      async () => {
        for await (const _ of c.runners.watchRuns(who)) expect.unreachable();
      },
    ];
    for (const call of calls) await expect(call()).rejects.toMatchObject({ code: Code.Unauthenticated });
  });
});

describe("Register", () => {
  it("answers every setting, the store and the protocol", async () => {
    const c = await startTestCoordinator({ leaseTtlMs: 60_000, heartbeatMs: 10_000, acceptDeadlineMs: 2500 });
    const { registered } = await RawRunner.register(c);
    expect(registered).toMatchObject({ storeId: c.store.storeId, protocol: 1 });
    expect(registered.runnerId).toMatch(/^lnch_[0-9a-f]{12}$/);
    expect(registered.config).toMatchObject({
      leaseTtl: { seconds: 60n },
      heartbeatInterval: { seconds: 10n },
      acceptDeadline: { seconds: 2n, nanos: 500_000_000 },
      limits: { messageMaxBytes: BigInt(4 * 1024 * 1024) },
    });
  });

  it("refuses a protocol that it does not speak with FAILED_PRECONDITION", async () => {
    const c = await startTestCoordinator();
    const call = RawRunner.register(c, { protocolMin: 2, protocolMax: 3 });
    await expect(call).rejects.toMatchObject({ code: Code.FailedPrecondition });
    expect((await RawRunner.register(c, { protocolMin: 1, protocolMax: 3 })).registered.protocol).toBe(1);
  });

  it("refuses more runners than are allowed, but none that is registered", async () => {
    const c = await startTestCoordinator({ maxRunners: 1 });
    const runner = await RawRunner.register(c);
    await expect(RawRunner.register(c)).rejects.toMatchObject({ code: Code.ResourceExhausted });
    await runner.again();
  });

  it.each([
    { hostname: "" },
    { projectDir: "relative/path" },
    { executorProfile: "" },
    { bootId: "" },
    { maxConcurrentRuns: 1001 },
    { tags: ["a", "a"] },
  ])("refuses %j with INVALID_ARGUMENT", async (wrong) => {
    const c = await startTestCoordinator();
    await expect(RawRunner.register(c, wrong)).rejects.toMatchObject({ code: Code.InvalidArgument });
    expect((await c.fleet.listRunners({})).runners).toHaveLength(0);
  });
});
