import { afterEach, describe, expect, it } from "vitest";
import type { RunOffer } from "../../../../gen/agentrunner/v1/runner_service_pb.ts";
import type { CoordinatorConfig } from "../../../../coordinator/config.ts";
import { startTestCoordinator, stopTestCoordinators } from "../../../support/coordinator.ts";
import type { NewRun, TestCoordinator } from "../../../support/coordinator.ts";
import { held, RawRunner } from "../../../support/raw-runner.ts";
import { until } from "../../../support/until.ts";

afterEach(stopTestCoordinators);

const FAIL = {} satisfies NewRun;
const RETRY = { onLost: { policy: 2, maxAttempts: 2 } } as const satisfies NewRun;
const RESUME = { onLost: { policy: 3, maxAttempts: 5 } } as const satisfies NewRun;
const ONE = { maxConcurrentRuns: 1 };
const LOST = 7;

interface Held {
  readonly c: TestCoordinator;
  readonly runner: RawRunner;
  readonly runId: string;
  readonly offer: RunOffer;
}

/** A run that a runner runs. */
async function running(request: NewRun, config: Partial<CoordinatorConfig> = {}): Promise<Held> {
  const c = await startTestCoordinator(config);
  const runner = await RawRunner.online(c);
  const { runId } = await c.create(request);
  return { c, runner, runId, offer: await runner.take() };
}

/** The process of the runner is replaced by one that does not know of its leases. Returns the new process. */
function dies({ runner }: Pick<Held, "runner">): Promise<RawRunner> {
  const { bootId } = runner.identity;
  return runner.again({ bootId: `${bootId.slice(0, 50)}_next`, previousBootId: bootId });
}

describe("a lease that is not renewed", () => {
  it("under FAIL ends the run, and a later report is kept as evidence on the attempt", async () => {
    const { c, runner, runId, offer } = await running(FAIL, { leaseTtlMs: 150 });
    const failed = await c.reached(runId, "FAILED");
    expect([failed.failure, failed.message]).toEqual([LOST, `${runner.runnerId} was not heard from in time`]);
    expect(await runner.beat(held(offer))).toEqual(["STOP"]);
    const late = { message: "done after all", result: { text: "42" } };
    expect(await runner.report(offer, "COMPLETED", late)).toBe("STALE");
    expect(await runner.report(offer, "FAILED", { message: "the second one is not kept" })).toBe("STALE");
    const { state, result, attempts } = await c.run(runId);
    expect([state, result, attempts.length]).toEqual([7, undefined, 1]);
    const [attempt] = attempts;
    expect([attempt?.outcome, attempt?.failure]).toEqual([7, LOST]);
    expect(attempt?.lateReport).toMatchObject({ state: 6, message: "done after all", result: { text: "42" } });
    expect(await c.history(runId)).toEqual(["PENDING", "CLAIMED", "RUNNING", "FAILED"]);
  });

  it("also when the run was accepted and never started", async () => {
    const c = await startTestCoordinator({ leaseTtlMs: 150 });
    const runner = await RawRunner.online(c);
    const { runId } = await c.create();
    await runner.take("CLAIMED");
    expect((await c.reached(runId, "FAILED")).failure).toBe(LOST);
  });

  it("under RETRY queues the run again, on any runner, until its attempts are used up", async () => {
    const first = await running(RETRY);
    const { c, runId, offer } = first;
    await dies(first);
    expect(await c.state(runId)).toBe("PENDING");
    const second = await RawRunner.online(c);
    const again = await second.take();
    expect([again.runId, again.attempt]).toEqual([runId, 2]);
    expect(again.invocation).toMatchObject({ mode: "start", prompt: "say hello", attempt: 2 });
    expect(await c.history(runId)).toEqual(["PENDING", "CLAIMED", "RUNNING", "PENDING", "CLAIMED", "RUNNING"]);
    await dies({ runner: second });
    const failed = await c.run(runId);
    expect([failed.state, failed.failure]).toEqual([7, LOST]);
    expect(failed.message).toMatch(/attempt 2 of 2/);
    expect(failed.attempts.map(({ leaseId, outcome }) => [leaseId, outcome])).toEqual([
      [offer.leaseId, 1],
      [again.leaseId, 7],
    ]);
  });

  it("under RETRY starts the session over: it is not told of the lost attempt's conversation", async () => {
    const first = await running(RETRY);
    await first.runner.ok(first.offer, "PROGRESS", { executorSessionId: "conversation-1" });
    await dies(first);
    const second = await RawRunner.online(first.c);
    expect((await second.offer()).invocation).toMatchObject({ mode: "start", executorSessionId: "" });
  });

  it("is kept for lost_after of the run instead of the lease time, longer or shorter", async () => {
    const c = await startTestCoordinator({ leaseTtlMs: 150 });
    const runner = await RawRunner.online(c);
    const { runId: patient } = await c.create({ lostAfter: { seconds: 600n } });
    await runner.take();
    const { runId: usual } = await c.create();
    await runner.take();
    await c.reached(usual, "FAILED");
    expect(await c.state(patient)).toBe("RUNNING");
    const other = await startTestCoordinator();
    const { runId: hasty } = await other.create({ lostAfter: { nanos: 50_000_000 } });
    await (await RawRunner.online(other)).take();
    await other.reached(hasty, "FAILED");
  });

  it("is lost although its runner is heard from, when the runner does not list it", async () => {
    const { c, runner, runId } = await running(FAIL, { leaseTtlMs: 300 });
    await runner.beat();
    expect(await c.state(runId)).toBe("RUNNING");
    await until(async () => {
      await runner.beat();
      return (await c.state(runId)) === "FAILED";
    }, "the run is lost");
  });
});

describe("a lease that is renewed", () => {
  it("by heartbeats lives on", async () => {
    const { c, runner, runId, offer } = await running(FAIL, { leaseTtlMs: 500 });
    const claimedAt = Date.now();
    await until(async () => {
      expect(await runner.beat(held(offer))).toEqual(["RENEWED"]);
      return Date.now() > claimedAt + 1500;
    }, "three lease times have passed");
    expect(await c.state(runId)).toBe("RUNNING");
  });

  it("while its executor has ended is asked for the final report", async () => {
    const { runner, offer } = await running(FAIL);
    expect(await runner.beat(held(offer, "FINAL"))).toEqual(["RESEND_FINAL"]);
    await runner.ok(offer, "COMPLETED", { seq: 9n });
    expect(await runner.beat(held(offer, "FINAL"))).toEqual(["RESEND_FINAL"]);
    expect(await runner.report(offer, "COMPLETED", { seq: 9n })).toBe("OK");
  });

  it("while its accept is on the way is not lost", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    await c.create();
    const offer = await runner.offer();
    expect(await runner.beat(held(offer, "ACCEPTING"))).toEqual(["RENEWED"]);
    await runner.accepted(offer);
  });
});

describe("RESUME", () => {
  const resume = { ...RESUME, onLost: { ...RESUME.onLost, resumePrompt: "go on, please" } };

  it.each([
    ["You were interrupted; continue.", RESUME],
    ["go on, please", resume],
  ])("continues the run where it was, with the prompt %j", async (prompt, request) => {
    const first = await running(request);
    const { c, runner, runId, offer } = first;
    await runner.ok(offer, "PROGRESS", { executorSessionId: "conversation-1" });
    const other = await RawRunner.online(c);
    const successor = await dies(first);
    const waiting = await c.run(runId);
    expect(waiting.pendingReasons.join()).toMatch(`does not hold the session's files, ${runner.runnerId} does`);
    await successor.open();
    const again = await successor.take();
    expect([again.runId, again.attempt]).toEqual([runId, 2]);
    expect(again.invocation).toMatchObject({ mode: "resume", prompt, executorSessionId: "conversation-1" });
    expect(other.stream.offers).toHaveLength(0);
    await successor.ok(again, "COMPLETED");
    expect((await c.run(runId)).attempts.map(({ outcome }) => outcome)).toEqual([1, 6]);
  });

  it("fails when the executor never named its session", async () => {
    const first = await running(RESUME);
    await dies(first);
    const run = await first.c.run(first.runId);
    expect([run.state, run.failure]).toEqual([7, LOST]);
    expect(run.message).toMatch(/cannot be resumed/);
  });
});

describe("a late report of a lapsed lease", () => {
  it.each([
    ["COMPLETED", 6],
    ["FAILED", 7],
  ] as const)(
    "%s is the outcome while nobody has accepted the run again, and the open offer is withdrawn",
    async (kind, state) => {
      const first = await running(RETRY, { leaseTtlMs: 150, acceptDeadlineMs: 60_000 });
      const { c, runner, runId, offer } = first;
      await runner.stream.leave();
      await c.reached(runId, "PENDING");
      const second = await RawRunner.online(c, ONE);
      const open = await second.offer();
      expect(await runner.report(offer, kind, { result: { text: "it was done" } })).toBe("OK");
      expect((await second.stream.nth("stop")).leaseId).toBe(open.leaseId);
      expect(await second.report(open, "ACCEPT")).toBe("STALE");
      const run = await c.run(runId);
      expect([run.state, run.attempt, run.runnerId, run.result?.text]).toEqual([
        state,
        1,
        runner.runnerId,
        "it was done",
      ]);
      expect(run.attempts.map(({ outcome }) => outcome)).toEqual([state]);
      await c.create();
      await second.take();
    },
  );

  it("STOPPED, as of a runner that was told to let go, does not stop the run", async () => {
    const { c, runner, runId, offer } = await running(RETRY, { leaseTtlMs: 150 });
    await runner.stream.leave();
    await c.reached(runId, "PENDING");
    expect(await runner.beat(held(offer))).toEqual(["STOP"]);
    expect(await runner.report(offer, "STOPPED", { message: "SIGTERM" })).toBe("STALE");
    expect(await c.state(runId)).toBe("PENDING");
  });

  it("is STALE once the run was accepted again", async () => {
    const { c, runner, runId, offer } = await running(RETRY, { leaseTtlMs: 150 });
    await runner.stream.leave();
    await c.reached(runId, "PENDING");
    const second = await RawRunner.online(c);
    await second.take("CLAIMED");
    expect(await runner.report(offer, "COMPLETED")).toBe("STALE");
    expect(await c.state(runId)).toBe("CLAIMED");
  });
});

describe("exit 75", () => {
  const exit75 = { failure: 2, message: "no network", exit: { code: 75 } } as const;

  it("is tried again while attempts remain, and is then the failure", async () => {
    const { c, runner, runId, offer } = await running(RETRY);
    await runner.ok(offer, "FAILED", { ...exit75, result: { text: "half" } });
    const again = await runner.take();
    expect([again.attempt, again.invocation?.mode]).toEqual([2, "start"]);
    const between = await c.run(runId);
    expect([between.exit, between.result]).toEqual([undefined, undefined]);
    expect(between.attempts[0]).toMatchObject({ outcome: 1, failure: 2, message: "no network", exit: { code: 75 } });
    await runner.ok(again, "FAILED", exit75);
    expect(await c.run(runId)).toMatchObject({ state: 7, failure: 2, message: "no network", exit: { code: 75 } });
  });

  it("is the failure under FAIL", async () => {
    const { c, runner, runId, offer } = await running(FAIL);
    await runner.ok(offer, "FAILED", exit75);
    expect(await c.run(runId)).toMatchObject({ state: 7, failure: 2 });
  });
});
