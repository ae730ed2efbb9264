import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { Code, createClient } from "@connectrpc/connect";
import { afterEach, describe, expect, it } from "vitest";
import { RunService } from "../../../../gen/agentrunner/v1/run_service_pb.ts";
import { connectTransport } from "../../../../lib/rpc/transport.ts";
import { startTestCoordinator, stopTestCoordinators, tempDir } from "../../../support/coordinator.ts";
import type { TestCoordinator } from "../../../support/coordinator.ts";
import { held, RawRunner } from "../../../support/raw-runner.ts";
import { until } from "../../../support/until.ts";
import { inRepository } from "../../../support/paths.ts";

afterEach(stopTestCoordinators);

const FILE = { memory: false } as const;
const RETRY = { onLost: { policy: 2 } } as const;

/** Opens the stream again, as a runner does after a restart. */
async function back(runner: RawRunner, said: Parameters<RawRunner["open"]>[0] = {}): Promise<void> {
  await until(() => runner.open(said).catch(() => undefined), "the stream is open again");
}

describe("after a restart", () => {
  it("open offers are pending again, at no cost, and their accepts STALE", async () => {
    const c = await startTestCoordinator(FILE);
    const runner = await RawRunner.online(c);
    const { runId } = await c.create();
    const offer = await runner.offer();
    await c.restart();
    expect(await c.state(runId)).toBe("PENDING");
    expect(await runner.report(offer, "ACCEPT")).toBe("STALE");
    await back(runner);
    expect((await runner.take()).attempt).toBe(1);
  });

  it("accepted leases are still held and the completion is recorded once", async () => {
    const c = await startTestCoordinator(FILE);
    const runner = await RawRunner.online(c);
    const { runId } = await c.create();
    const offer = await runner.take();
    await runner.append(offer, 1, [{ event: { case: "status", value: { text: "at it" } } }]);
    await c.restart();
    expect(await c.state(runId)).toBe("RUNNING");
    expect(await runner.beat(held(offer))).toEqual(["RENEWED"]);
    await runner.ok(offer, "COMPLETED", { seq: 9n, result: { text: "whole" } });
    await c.restart();
    expect(await runner.report(offer, "COMPLETED", { seq: 9n, result: { text: "again" } })).toBe("OK");
    const run = await c.run(runId);
    expect([run.state, run.result?.text, run.attempts.length]).toEqual([6, "whole", 1]);
    expect(await c.history(runId)).toEqual(["PENDING", "CLAIMED", "RUNNING", "COMPLETED"]);
  });

  it("a runner's token, a run's token, the store's id and its cursors are what they were", async () => {
    const c = await startTestCoordinator(FILE);
    const runner = await RawRunner.online(c);
    const { sessionId } = await c.create();
    const offer = await runner.take();
    const { storeId } = c.store;
    const { nextCursor } = await c.sessions.listSessionEvents({ sessionId });
    await c.restart();
    expect(c.store.storeId).toBe(storeId);
    await runner.heartbeat();
    const headers = { authorization: `Bearer ${offer.runToken}` };
    expect((await c.sessions.getSession({ sessionId }, { headers })).session?.sessionId).toBe(sessionId);
    expect((await c.sessions.listSessionEvents({ sessionId, cursor: nextCursor })).events).toEqual([]);
  });

  it("pending runs keep their order", async () => {
    const c = await startTestCoordinator(FILE);
    const made: string[] = [];
    for (let n = 0; n < 3; n++) made.push((await c.create()).runId);
    await c.restart();
    made.push((await c.create()).runId);
    const runner = await RawRunner.online(c, { maxConcurrentRuns: 1 });
    const taken: string[] = [];
    for (let n = 0; n < 4; n++) {
      const offer = await runner.take();
      taken.push(offer.runId);
      await runner.ok(offer, "COMPLETED");
    }
    expect(taken).toEqual(made);
  });

  it("a repeated request_id answers the same run, and with other content is ALREADY_EXISTS", async () => {
    const c = await startTestCoordinator(FILE);
    const request = { requestId: "r-1", prompt: "once", parameters: { a: 1 } };
    const { runId } = await c.create(request);
    expect((await c.create(request)).runId).toBe(runId);
    await c.restart();
    expect((await c.create(request)).runId).toBe(runId);
    const other = c.create({ ...request, prompt: "twice" });
    await expect(other).rejects.toMatchObject({ code: Code.AlreadyExists });
    expect((await c.runs.listRuns({})).runs).toHaveLength(1);
  });
});

describe("the grace after a start", () => {
  /** Two runners, each with a run whose lease is over when the coordinator starts again. Ticks come every 20 ms. */
  const away = async (restartGraceMs: number) => {
    const clock = { wallMs: Date.now(), steadyMs: 0 };
    const c = await startTestCoordinator({ ...FILE, acceptDeadlineMs: 200, restartGraceMs }, () => ({ ...clock }));
    const holder = async () => {
      const runner = await RawRunner.online(c, { maxConcurrentRuns: 1 });
      const { runId } = await c.create(RETRY);
      return { runner, runId, offer: await runner.take() };
    };
    const [a, b] = [await holder(), await holder()];
    await c.stop();
    clock.wallMs += 3_600_000;
    await c.start();
    const pass = (ms: number): void => {
      clock.wallMs += ms;
      clock.steadyMs += ms;
    };
    return { c, a, b, pass };
  };
  /** Longer than any tick: what is due has been looked at. */
  const ticks = async (c: TestCoordinator): Promise<void> => {
    const before = await c.metric("agent_store_commands_total");
    await until(async () => (await c.metric("agent_store_commands_total")) > before + 5, "five ticks");
  };

  it("keeps leases although they are over, until it ends", async () => {
    const { c, a, b, pass } = await away(500);
    await ticks(c);
    for (const { runId } of [a, b]) expect(await c.state(runId)).toBe("RUNNING");
    pass(500);
    await c.reached(a.runId, "PENDING");
    await c.reached(b.runId, "PENDING");
  });

  it("ends early when every runner that holds leases is back", async () => {
    const { c, a, b } = await away(600_000);
    expect(await a.runner.beat(held(a.offer))).toEqual(["RENEWED"]);
    await ticks(c);
    expect(await c.state(b.runId)).toBe("RUNNING");
    expect(await b.runner.beat()).toEqual([]);
    await c.reached(b.runId, "PENDING");
  });

  it("does not end for a runner that only reports: its other leases are not renewed by that", async () => {
    const { c, a, b } = await away(600_000);
    await a.runner.ok(a.offer, "PROGRESS");
    await b.runner.ok(b.offer, "PROGRESS");
    await ticks(c);
    for (const { runId } of [a, b]) expect(await c.state(runId)).toBe("RUNNING");
    for (const { runner, offer } of [a, b]) expect(await runner.beat(held(offer))).toEqual(["RENEWED"]);
  });

  it("is given again when the clock jumps", async () => {
    const wall = { ms: Date.now() };
    const clock = () => ({ wallMs: wall.ms, steadyMs: performance.now() });
    const c = await startTestCoordinator({ leaseTtlMs: 10_000, restartGraceMs: 600_000 }, clock);
    const runner = await RawRunner.online(c);
    const { runId } = await c.create(RETRY);
    const offer = await runner.take();
    wall.ms += 3_600_000;
    await until(() => c.logged.some(({ why }) => String(why).includes("jumped")), "the jump is noticed");
    expect(await c.state(runId)).toBe("RUNNING");
    expect(await runner.beat(held(offer))).toEqual(["RENEWED"]);
    expect(await c.state(runId)).toBe("RUNNING");
  });
});

describe("a clock that is set back", () => {
  it("does not keep a run with a runner that is gone", async () => {
    const wall = { ms: Date.now() };
    const clock = () => ({ wallMs: wall.ms, steadyMs: performance.now() });
    const c = await startTestCoordinator({ leaseTtlMs: 2_000, restartGraceMs: 0 }, clock);
    const runner = await RawRunner.online(c);
    const { runId } = await c.create(RETRY);
    await runner.take();
    await runner.stream.leave();
    wall.ms -= 3_600_000;
    await until(() => c.logged.some(({ why }) => String(why).includes("jumped")), "the jump is noticed");
    wall.ms += 2_200;
    await c.reached(runId, "PENDING");
  });
});

describe("a coordinator that is killed", () => {
  /** The program itself, in a process of its own. */
  async function program(store: string) {
    const main = inRepository("coordinator/main.ts");
    const args = [main, "--listen", "127.0.0.1:0", "--store", store, "--log-format", "json"];
    const child = spawn(process.execPath, args, { stdio: ["ignore", "ignore", "pipe"] });
    let text = "";
    child.stderr.on("data", (chunk: Buffer) => (text += chunk.toString()));
    const exited = once(child, "exit");
    const url = await until(() => /"url":"([^"]+)"/.exec(text)?.[1], "the coordinator listens");
    const link = connectTransport(url);
    const end = async (signal: NodeJS.Signals): Promise<unknown[]> => {
      child.kill(signal);
      const how = await exited;
      link.abort();
      return how;
    };
    return { runs: createClient(RunService, link.transport), end };
  }

  it("right after it acknowledged runs has every one of them", async () => {
    const store = join(tempDir(), "coordinator.db");
    const first = await program(store);
    const acknowledged: string[] = [];
    const creating = Array.from({ length: 40 }, async (_, n) => {
      const { run } = await first.runs.createRun({ prompt: `run ${n}` });
      acknowledged.push(run?.runId ?? "");
      if (acknowledged.length === 25) await first.end("SIGKILL");
    });
    await Promise.allSettled(creating);
    expect(acknowledged.length).toBeGreaterThanOrEqual(25);
    const second = await program(store);
    const { runs } = await second.runs.listRuns({ pageSize: 1000 });
    const known = new Set(runs.map(({ runId }) => runId));
    expect(acknowledged.filter((runId) => !known.has(runId))).toEqual([]);
    expect(await second.end("SIGTERM")).toEqual([0, null]);
  });
});
