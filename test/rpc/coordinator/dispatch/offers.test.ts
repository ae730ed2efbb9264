import { afterEach, describe, expect, it } from "vitest";
import { startTestCoordinator, stopTestCoordinators } from "../../../support/coordinator.ts";
import { held, RawRunner } from "../../../support/raw-runner.ts";
import { until } from "../../../support/until.ts";

afterEach(stopTestCoordinators);

const ONE = { maxConcurrentRuns: 1 };

describe("accept before spawn", () => {
  it("an accept is answered OK, and again with the same number, also when the run has gone on", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    const { runId } = await c.create();
    const offer = await runner.offer();
    expect(await c.state(runId)).toBe("OFFERED");
    expect([offer.runId, offer.attempt, offer.invocation?.prompt]).toEqual([runId, 1, "say hello"]);
    expect(await runner.report(offer, "ACCEPT", { seq: 1n })).toBe("OK");
    expect(await runner.report(offer, "ACCEPT", { seq: 1n })).toBe("OK");
    await runner.ok(offer, "COMPLETED", { seq: 2n });
    expect(await runner.report(offer, "ACCEPT", { seq: 1n })).toBe("OK");
    const run = await c.run(runId);
    expect([run.attempt, run.attempts.length]).toEqual([1, 1]);
  });

  it("nothing but an accept is taken under an offer", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    const { runId } = await c.create();
    const offer = await runner.offer();
    for (const kind of ["STARTED", "PROGRESS", "COMPLETED", "FAILED", "STOPPED"] as const) {
      expect(await runner.report(offer, kind)).toBe("INVALID");
    }
    expect(await c.state(runId)).toBe("OFFERED");
    expect((await c.run(runId)).attempt).toBe(0);
  });

  it("an offer that is not accepted in time returns at no cost, and its accept is then STALE", async () => {
    const c = await startTestCoordinator({ acceptDeadlineMs: 100 });
    const runner = await RawRunner.online(c);
    const { runId } = await c.create();
    const offer = await runner.offer();
    expect(Number(offer.acceptDeadline?.nanos)).toBeLessThanOrEqual(100_000_000);
    await c.reached(runId, "PENDING");
    expect(await runner.report(offer, "ACCEPT")).toBe("STALE");
    const again = await runner.take();
    expect([again.attempt, again.leaseId === offer.leaseId]).toEqual([1, false]);
    expect(await runner.report(offer, "ACCEPT")).toBe("STALE");
    expect(await c.history(runId)).toEqual(["PENDING", "CLAIMED", "RUNNING"]);
  });

  it("a runner that let an offer lapse gets none until it is heard from", async () => {
    const c = await startTestCoordinator({ acceptDeadlineMs: 100, streamKeepaliveMs: 50 });
    const runner = await RawRunner.online(c);
    const { runId } = await c.create();
    await runner.offer();
    await c.reached(runId, "PENDING");
    for (let n = 0; n < 4; n++) await runner.stream.keepalive();
    expect(runner.stream.offers).toHaveLength(1);
    await runner.heartbeat();
    await runner.take();
    expect(await c.state(runId)).toBe("RUNNING");
  });

  it("a lapsed offer goes to another runner, and the first one's accept does not disturb it", async () => {
    const c = await startTestCoordinator({ acceptDeadlineMs: 150 });
    const deaf = await RawRunner.online(c, ONE);
    const { runId } = await c.create();
    const first = await deaf.offer();
    const other = await RawRunner.online(c, ONE);
    const second = await other.take();
    expect(await deaf.report(first, "ACCEPT")).toBe("STALE");
    await other.ok(second, "COMPLETED");
    expect((await c.run(runId)).runnerId).toBe(other.runnerId);
  });
});

describe("an offer on a stream that ends", () => {
  it("goes to another runner at once", async () => {
    const c = await startTestCoordinator();
    const leaving = await RawRunner.online(c, ONE);
    const { runId } = await c.create();
    await leaving.offer();
    const other = await RawRunner.online(c, ONE);
    await leaving.stream.leave();
    const offer = await other.take();
    expect([offer.runId, offer.attempt]).toEqual([runId, 1]);
  });

  it("is sent again on the next stream of the process, under the same lease and with the time that remains", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    await c.create();
    const offer = await runner.offer();
    const first = runner.stream;
    const second = await runner.open();
    expect(await first.end()).toBe("SUPERSEDED");
    const again = await second.offer();
    expect(again.leaseId).toBe(offer.leaseId);
    expect(again.runToken).toBe(offer.runToken);
    expect(Number(again.acceptDeadline?.seconds)).toBeLessThan(60);
    await runner.accepted(again);
    expect(second.open).toBe(true);
  });

  it("keeps its deadline although the stream is replaced again and again", async () => {
    const c = await startTestCoordinator({ acceptDeadlineMs: 300 });
    const runner = await RawRunner.online(c);
    const { runId } = await c.create();
    const { leaseId } = await runner.offer();
    await until(async () => {
      await runner.open();
      return (await c.run(runId)).state === 1 || runner.stream.offers[0]?.leaseId !== leaseId;
    }, "the offer has lapsed");
  });

  it("is ended and reopened at its age, and runs go on", async () => {
    const c = await startTestCoordinator({ streamMaxAgeMs: 2_000 });
    const runner = await RawRunner.online(c);
    const { runId } = await c.create();
    const offer = await runner.take();
    expect(await runner.stream.end()).toBe("RECYCLE");
    await runner.open({ held: [held(offer)] });
    expect(runner.stream.all("opened")[0]?.verdicts.map(({ kind }) => kind)).toEqual([1]);
    await runner.ok(offer, "COMPLETED");
    expect(await c.state(runId)).toBe("COMPLETED");
  });

  it("is said to be over with SHUTDOWN when the coordinator ends", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    const [why] = await Promise.all([runner.stream.end(), c.stop(1000)]);
    expect(why).toBe("SHUTDOWN");
  });
});

describe("a runner that cannot take an offer", () => {
  it("is not offered the run again for a second, while another one is at once", async () => {
    const c = await startTestCoordinator();
    const full = await RawRunner.online(c, ONE);
    const { runId } = await c.create();
    const refused = await full.offer();
    expect(await full.report(refused, "REFUSE", { message: "the disk is full", seq: 1n })).toBe("OK");
    expect(await full.report(refused, "REFUSE", { message: "the disk is full", seq: 1n })).toBe("OK");
    const other = await RawRunner.online(c, ONE);
    await other.take();
    expect((await c.run(runId)).runnerId).toBe(other.runnerId);
    expect(full.stream.offers).toHaveLength(1);
  });

  it("is offered it again when the rest is over", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c, ONE);
    await c.create();
    const start = performance.now();
    await runner.report(await runner.offer(), "REFUSE");
    await runner.take();
    expect(performance.now() - start).toBeGreaterThan(990);
  });

  it("is offered a run whose rest is over, although another one that it refused rests longer", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c, ONE);
    const long = await c.create();
    await runner.ok(await runner.offer(), "REFUSE");
    await runner.ok(await runner.offer(), "REFUSE");
    const short = await c.create();
    await runner.ok(await runner.offer(), "REFUSE");
    expect(runner.stream.offers.map(({ runId }) => runId)).toEqual([long.runId, long.runId, short.runId]);
    expect((await runner.take()).runId).toBe(short.runId);
  });

  it("may give an accepted run back before the spawn, at no cost in attempts", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c, ONE);
    const { runId } = await c.create({ onLost: { policy: 2, maxAttempts: 1 } });
    await runner.ok(await runner.take("CLAIMED"), "NOT_STARTED", { message: "restarted" });
    expect(await c.state(runId)).toBe("PENDING");
    const other = await RawRunner.online(c, ONE);
    const offer = await other.take();
    expect(offer.attempt).toBe(2);
    // Were the first accept counted, exit 75 or a loss could not be retried; max_attempts 1 allows the one real attempt.
    await other.ok(offer, "COMPLETED");
    expect((await c.run(runId)).attempts).toHaveLength(2);
  });

  it("fails the run with the reason at the tenth refusal", async () => {
    const c = await startTestCoordinator();
    const { runId } = await c.create();
    for (let n = 1; n <= 10; n++) {
      const runner = await RawRunner.online(c, ONE);
      await runner.ok(await runner.offer(), "REFUSE", { message: `no room on ${n}` });
    }
    const run = await c.reached(runId, "FAILED");
    expect(run.message).toMatch(/refused 10 times.*no room on 10/);
    expect(run.attempt).toBe(0);
  });
});
