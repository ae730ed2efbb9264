import { durationMs } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { afterEach, describe, expect, it, vi } from "vitest";
import { RunnerStream } from "../../../../coordinator/dispatch/runner-stream.ts";
import { StreamClosing_Reason } from "../../../../gen/agentrunner/v1/runner_service_pb.ts";
import { newId } from "../../../../lib/ids.ts";
import { startTestCoordinator, stopTestCoordinators } from "../../../support/coordinator.ts";
import type { TestCoordinator } from "../../../support/coordinator.ts";
import { RawRunner } from "../../../support/raw-runner.ts";
import type { LeaseOf } from "../../../support/raw-runner.ts";
import { until } from "../../../support/until.ts";

afterEach(stopTestCoordinators);

const broken = (): Promise<never> => Promise.reject(new Error("the store is out of order"));

async function said(c: TestCoordinator, words: string): Promise<void> {
  await until(() => c.logged.some(({ msg }) => String(msg).includes(words)), `the log says ${words}`);
}

describe("a store that fails for a moment", () => {
  it("while a run is offered: the run is offered a second later", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    vi.spyOn(c.store, "offer").mockImplementationOnce(broken);
    const { runId } = await c.create();
    await said(c, "trying again in a second");
    expect((await runner.take()).runId).toBe(runId);
  });

  it("while offers are taken back from a stream that ended: their deadline does it", async () => {
    const c = await startTestCoordinator({ acceptDeadlineMs: 300 });
    const runner = await RawRunner.online(c);
    const { runId } = await c.create();
    await runner.offer();
    vi.spyOn(c.store, "withdrawOffers").mockImplementationOnce(broken);
    await runner.stream.leave();
    await said(c, "their deadline will do it");
    await c.reached(runId, "PENDING");
  });

  it("while a keep-alive is made: the next one comes", async () => {
    const c = await startTestCoordinator({ streamKeepaliveMs: 50 });
    const runner = await RawRunner.online(c);
    vi.spyOn(c.store, "directives").mockImplementationOnce(broken);
    await said(c, "a keep-alive could not be sent");
    await runner.stream.keepalive();
  });

  it("while it looks for what is due: it looks again at the next tick", async () => {
    const c = await startTestCoordinator({ leaseTtlMs: 200 });
    vi.spyOn(c.store, "expire").mockImplementationOnce(broken);
    await said(c, "a periodic command failed");
    const runner = await RawRunner.online(c);
    const { runId } = await c.create();
    await runner.take();
    await c.reached(runId, "FAILED");
  });

  it("while it reads a runner that registered: the runner is known when it registers again", async () => {
    const c = await startTestCoordinator();
    vi.spyOn(c.store, "runnerFacts").mockImplementationOnce(broken);
    const runner = await RawRunner.online(c);
    await said(c, "the dispatcher could not read the store");
    await c.create();
    await runner.again();
    await runner.take();
  });

  it("while a call reads it: the caller gets INTERNAL with an id that is in the log, and no words of the cause", async () => {
    const c = await startTestCoordinator();
    vi.spyOn(c.store, "getRun").mockImplementationOnce(broken);
    await expect(c.run("run_1")).rejects.toMatchObject({ code: Code.Internal });
    vi.spyOn(c.store, "getRun").mockImplementationOnce(broken);
    await expect(c.run("run_1")).rejects.not.toThrow(/out of order/);
    await said(c, "handler failed");
  });
});

describe("a runner's stream that is not read", () => {
  it("ends with RESOURCE_EXHAUSTED when too much waits on it", async () => {
    const stream = new RunnerStream("lnch_1", "boot_1");
    for (let n = 0; n < 5000; n++) stream.send({ case: "keepalive", value: {} });
    let read = 0;
    const reading = async () => {
      for await (const _ of stream.messages(new AbortController().signal)) read += 1;
    };
    await expect(reading()).rejects.toMatchObject({ code: Code.ResourceExhausted });
    expect(read).toBe(4096);
  });

  const offer = (runId: string, bytes: number) =>
    ({ case: "offer", value: { runId, leaseId: newId("lease"), invocation: { prompt: "x".repeat(bytes) } } }) as const;

  it("ends when too many bytes wait on it, however few the messages are", () => {
    const stream = new RunnerStream("lnch_1", "boot_1");
    const messages = stream.messages(new AbortController().signal);
    for (let n = 0; n < 100; n += 1) stream.send(offer(`run_${n}`, 1_000_000));
    const reading = async () => {
      let read = 0;
      for await (const _ of messages) read += 1;
      return read;
    };
    return expect(reading()).rejects.toThrow(/ 1[56]\d{6} bytes wait/);
  });

  it("holds one offer of a run, the newest", async () => {
    const stream = new RunnerStream("lnch_1", "boot_1");
    for (let n = 0; n < 1_000; n += 1) stream.send(offer("run_1", 1_000_000));
    const last = offer("run_1", 1);
    stream.send(last);
    stream.close(StreamClosing_Reason.RECYCLE);
    const read = [];
    for await (const { event } of stream.messages(new AbortController().signal)) read.push(event);
    expect(read).toMatchObject([{ value: { leaseId: last.value.leaseId } }, { case: "closing" }]);
  });

  it("has no room for offers while a large one is on its way, and says when it has room again", async () => {
    const stream = new RunnerStream("lnch_1", "boot_1");
    let rooms = 0;
    stream.whenRoom(() => (rooms += 1));
    const messages = stream.messages(new AbortController().signal);
    stream.send(offer("run_1", 1_000_000));
    await messages.next();
    stream.send({ case: "keepalive", value: {} });
    expect([stream.crowded, rooms]).toEqual([true, 0]);
    // Who asks for the next message has sent the one before.
    await messages.next();
    expect([stream.crowded, rooms]).toEqual([false, 1]);
    await messages.return(undefined);
  });

  it("gives an offer time for its size", async () => {
    const c = await startTestCoordinator({ acceptDeadlineMs: 1_000 });
    const runner = await RawRunner.online(c);
    await c.create({ prompt: "small" });
    expect(durationMs((await runner.take()).acceptDeadline!)).toBeLessThanOrEqual(1_000);
    await c.create({ prompt: "x".repeat(1_000_000) });
    expect(durationMs((await runner.take()).acceptDeadline!)).toBeGreaterThan(100_000);
  });
});

/** Numbers with a seed, so that a failure can be seen again. */
function randoms(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

describe("runners that refuse, do not answer, come and go", () => {
  it("bring every run to its one end, and none is given more than it can take", async () => {
    // Only who does not answer is to lapse, and no runner of this test is that slow.
    const c = await startTestCoordinator({ acceptDeadlineMs: 2_500 });
    const random = randoms(2026);
    const made: string[] = [];
    const play = { on: true };

    const handle = async (runner: RawRunner, offer: LeaseOf): Promise<void> => {
      const dice = random();
      if (dice < 0.06) return;
      if (dice < 0.12) return void (await runner.report(offer, "REFUSE"));
      if ((await runner.report(offer, "ACCEPT")) !== "OK") return;
      if (dice < 0.18) return void (await runner.report(offer, "NOT_STARTED"));
      if (dice < 0.9) await runner.ok(offer, "STARTED");
      await runner.ok(offer, "COMPLETED");
    };
    const life = async (): Promise<void> => {
      let runner = await RawRunner.online(c, { maxConcurrentRuns: 2 });
      while (play.on) {
        const { stream } = runner;
        const seen = new Set<string>();
        for (let turn = 0; turn < 25 && play.on; turn++) {
          for (const offer of stream.offers.filter(({ leaseId }) => !seen.has(leaseId))) {
            seen.add(offer.leaseId);
            await handle(runner, offer);
          }
          const { runner: now } = await c.fleet.getRunner({ runnerId: runner.runnerId });
          expect(now?.activeRuns).toBeLessThanOrEqual(2);
          await runner.heartbeat();
        }
        const dice = random();
        if (dice < 0.3) await stream.leave();
        if (dice < 0.2) {
          const { bootId } = runner.identity;
          runner = await runner.again({ bootId: `boot_${Math.floor(random() * 1e9)}`, previousBootId: bootId });
        }
        await runner.open();
      }
    };
    const lives = Promise.all([life(), life(), life()]);
    for (let n = 0; n < 60; n++) made.push((await c.create({ onLost: { policy: 2, maxAttempts: 100 } })).runId);
    const done = until(
      async () => (await c.runs.listRuns({ states: [6], pageSize: 1000 })).runs.length === made.length,
      "every run has completed",
    );
    await Promise.race([done, lives]).finally(() => (play.on = false));
    await Promise.all([done, lives]);
    for (const runId of made) {
      const ends = (await c.history(runId)).filter((state) => ["COMPLETED", "FAILED", "STOPPED"].includes(state));
      expect(ends).toEqual(["COMPLETED"]);
    }
  });
});
