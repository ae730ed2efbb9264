import type { CallOptions } from "@connectrpc/connect";
import { Code } from "@connectrpc/connect";
import { afterEach, describe, expect, it } from "vitest";
import { startTestCoordinator, stopTestCoordinators } from "../../../support/coordinator.ts";
import type { TestCoordinator } from "../../../support/coordinator.ts";
import { RawRunner } from "../../../support/raw-runner.ts";

afterEach(stopTestCoordinators);

/** A run that an executor runs, with the token that the executor is given. */
async function executing() {
  const c = await startTestCoordinator();
  const runner = await RawRunner.online(c, { maxConcurrentRuns: 1 });
  const own = await c.create({ sessionName: "own" });
  const offer = await runner.take();
  return { c, runner, own, offer, token: { headers: { authorization: `Bearer ${offer.runToken}` } } };
}

async function first(stream: AsyncIterable<unknown>): Promise<unknown> {
  for await (const message of stream) return message;
  return undefined;
}

/** Every call of a client about a session and a run of it. */
function callsAbout(
  c: TestCoordinator,
  { sessionId, runId }: { sessionId: string; runId: string },
  options: CallOptions,
) {
  return [
    () => c.runs.getRun({ runId }, options),
    () => c.runs.stopRun({ runId }, options),
    () => first(c.runs.watchRun({ runId }, options)),
    () => c.sessions.getSession({ sessionId }, options),
    () => c.sessions.listSessionEvents({ sessionId }, options),
    () => first(c.sessions.watchSession({ sessionId }, options)),
    () => c.sessions.getSessionResult({ sessionId }, options),
    () => c.sessions.updateSession({ sessionId, updateMask: { paths: ["metadata"] } }, options),
    () => c.sessions.deleteSession({ sessionId }, options),
  ];
}

describe("a run token", () => {
  it("lets its executor start children and follow them, and their children", async () => {
    const { c, own, token } = await executing();
    const { run: child } = await c.runs.createRun({ prompt: "help", parentSessionId: own.sessionId }, token);
    const grandchild = await c.create({ parentSessionId: child?.sessionId ?? "" });
    for (const run of [own, child, grandchild]) {
      const { sessionId, runId } = run ?? grandchild;
      expect((await c.runs.getRun({ runId }, token)).run?.runId).toBe(runId);
      expect((await c.sessions.getSession({ sessionId }, token)).session?.sessionId).toBe(sessionId);
      expect((await c.sessions.listSessionEvents({ sessionId }, token)).events.length).toBeGreaterThan(0);
      expect(await first(c.runs.watchRun({ runId }, token))).toMatchObject({ update: { case: "run" } });
      expect(await first(c.sessions.watchSession({ sessionId }, token))).toMatchObject({ update: { case: "event" } });
    }
    const continued = { prompt: "more", parentSessionId: own.sessionId, sessionId: child?.sessionId ?? "" };
    expect((await c.runs.createRun(continued, token)).run?.sessionId).toBe(child?.sessionId);
    const { run: stopped } = await c.runs.stopRun({ runId: grandchild.runId }, token);
    expect(stopped).toMatchObject({ state: 8, message: `stopped by ${own.runId}` });
  });

  it("shows its executor only its own session and those below", async () => {
    const { c, own, token } = await executing();
    const stranger = await c.create({ sessionName: "foreign" });
    const { run: child } = await c.runs.createRun({ prompt: "help", parentSessionId: own.sessionId }, token);
    const { runs } = await c.runs.listRuns({}, token);
    expect(runs.map(({ runId }) => runId)).toEqual([child?.runId, own.runId]);
    const { sessions } = await c.sessions.listSessions({}, token);
    expect(sessions.map(({ sessionId }) => sessionId)).toEqual([child?.sessionId, own.sessionId]);
    for (const call of callsAbout(c, stranger, token)) {
      await expect(call()).rejects.toMatchObject({ code: Code.PermissionDenied });
    }
    expect(await c.state(stranger.runId)).toBe("PENDING");
  });

  it("says NOT_FOUND of runs and sessions that are not there, where a person reads that too", async () => {
    const { c, token } = await executing();
    for (const call of [
      () => c.runs.getRun({ runId: "run_none" }, token),
      () => c.runs.stopRun({ runId: "run_none" }, token),
      () => first(c.runs.watchRun({ runId: "run_none" }, token)),
      () => c.sessions.getSession({ sessionId: "ses_none" }, token),
      () => c.sessions.getSession({ sessionName: "none" }, token),
      () => first(c.sessions.watchSession({ sessionId: "ses_none" }, token)),
    ]) {
      await expect(call()).rejects.toMatchObject({ code: Code.NotFound });
    }
    await c.create({ sessionName: "foreign" });
    const foreign = c.sessions.getSession({ sessionName: "foreign" }, token);
    await expect(foreign).rejects.toMatchObject({ code: Code.PermissionDenied });
  });

  it("does not let it act on sessions of others: start, continue or become their parent", async () => {
    const { c, own, token } = await executing();
    const stranger = await c.create({ sessionName: "foreign" });
    const parentSessionId = own.sessionId;
    for (const request of [
      {},
      { parentSessionId: stranger.sessionId },
      { sessionId: stranger.sessionId },
      { parentSessionId, sessionId: stranger.sessionId },
      { parentSessionId, sessionName: "foreign" },
      { parentSessionId, sessionId: "ses_none" },
    ]) {
      const call = c.runs.createRun({ prompt: "mine now", ...request }, token);
      await expect(call).rejects.toMatchObject({ code: Code.PermissionDenied });
    }
    const { run } = await c.runs.createRun({ prompt: "x", parentSessionId, sessionName: "new" }, token);
    expect(run?.sessionName).toBe("new");
    expect((await c.runs.listRuns({})).runs).toHaveLength(3);
  });

  it("is no key to the fleet, nor to deleting runs", async () => {
    const { c, runner, token } = await executing();
    const { runnerId } = runner;
    for (const call of [
      () => c.fleet.listRunners({}, token),
      () => c.fleet.getRunner({ runnerId }, token),
      () => c.fleet.drainRunner({ runnerId }, token),
      () => c.fleet.removeRunner({ runnerId }, token),
      () => c.runs.pruneRuns({ olderThan: {} }, token),
      () => c.runs.backupStore({ path: "/tmp/none/copy.db" }, token),
    ]) {
      await expect(call()).rejects.toMatchObject({ code: Code.PermissionDenied });
    }
    const call = c.runners.heartbeat({ runnerId, bootId: runner.identity.bootId }, token);
    await expect(call).rejects.toMatchObject({ code: Code.Unauthenticated });
  });

  it("is not valid before the accept", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    const own = await c.create();
    const { runToken } = await runner.offer();
    for (const call of callsAbout(c, own, { headers: { authorization: `Bearer ${runToken}` } })) {
      await expect(call()).rejects.toMatchObject({ code: Code.Unauthenticated });
    }
  });

  it.each(["COMPLETED", "FAILED", "STOPPED"] as const)("is dead once its lease has ended, %s", async (kind) => {
    const { c, runner, own, offer, token } = await executing();
    await runner.ok(offer, kind);
    for (const call of callsAbout(c, own, token)) {
      await expect(call()).rejects.toMatchObject({ code: Code.Unauthenticated });
    }
  });

  it("is dead once its lease was lost, although the run is tried again; the new one works", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    const { runId } = await c.create({ onLost: { policy: 2 } });
    const first = await runner.take();
    await c.fleet.removeRunner({ runnerId: runner.runnerId });
    const other = await RawRunner.online(c);
    const second = await other.take();
    const get = (token: string) => c.runs.getRun({ runId }, { headers: { authorization: `Bearer ${token}` } });
    await expect(get(first.runToken)).rejects.toMatchObject({ code: Code.Unauthenticated });
    expect((await get(second.runToken)).run?.runId).toBe(runId);
  });

  it("cannot be made up, and a runner's token is none", async () => {
    const { c, runner, offer } = await executing();
    const other = await startTestCoordinator();
    const forged = offer.runToken.slice(0, -1) + (offer.runToken.endsWith("0") ? "1" : "0");
    for (const token of [forged, "rt_", `rt_${offer.leaseId}.`, "x", runner.registered.runnerToken]) {
      const call = c.runs.listRuns({}, { headers: { authorization: `Bearer ${token}` } });
      await expect(call).rejects.toMatchObject({ code: Code.Unauthenticated });
    }
    const elsewhere = other.runs.listRuns({}, { headers: { authorization: `Bearer ${offer.runToken}` } });
    await expect(elsewhere).rejects.toMatchObject({ code: Code.Unauthenticated });
  });
});
