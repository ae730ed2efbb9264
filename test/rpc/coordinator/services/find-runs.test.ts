import { Code } from "@connectrpc/connect";
import { afterEach, describe, expect, it } from "vitest";
import { reasonOf } from "../../../../lib/rpc/error-info.ts";
import { startTestCoordinator, stopTestCoordinators } from "../../../support/coordinator.ts";
import { RawRunner } from "../../../support/raw-runner.ts";

afterEach(stopTestCoordinators);

describe("FindRuns", () => {
  it("finds runs by the beginning of their id, of their session's and of their request's, the newest first", async () => {
    const c = await startTestCoordinator();
    const first = await c.create({ sessionName: "a", requestId: "from-here-1" });
    const second = await c.create({ sessionName: "a", requestId: "from-here-2" });
    const third = await c.create({ requestId: "from-there-3" });
    const find = async (prefix: Parameters<typeof c.runs.findRuns>[0]["prefix"], limit = 0) => {
      const { runs, more } = await c.runs.findRuns({ prefix: prefix!, limit });
      return { ids: runs.map(({ runId }) => runId), more };
    };
    const newestFirst = [first, second, third]
      .map(({ runId }) => runId)
      .toSorted()
      .toReversed();
    expect(await find({ case: "runId", value: "run_" })).toEqual({ ids: newestFirst, more: false });
    expect(await find({ case: "runId", value: "run_" }, 2)).toEqual({ ids: newestFirst.slice(0, 2), more: true });
    expect(await find({ case: "runId", value: first.runId })).toEqual({ ids: [first.runId], more: false });
    expect(await find({ case: "runId", value: first.runId.slice(0, -1) })).toEqual({ ids: [first.runId], more: false });
    expect(await find({ case: "runId", value: "run_zzz" })).toEqual({ ids: [], more: false });
    expect(await find({ case: "sessionId", value: first.sessionId.slice(0, -1) })).toMatchObject({
      ids: [second.runId],
    });
    expect(await find({ case: "requestId", value: "from-here-" })).toMatchObject({ ids: [second.runId, first.runId] });
    expect(await find({ case: "requestId", value: "from-here-" }, 1)).toEqual({ ids: [second.runId], more: true });
    // What is a pattern elsewhere is a text here.
    for (const value of ["run%", "run_*", "%", "_"]) expect((await find({ case: "runId", value })).ids).toEqual([]);
    await expect(c.runs.findRuns({})).rejects.toMatchObject({ code: Code.InvalidArgument });
    await expect(find({ case: "runId", value: "" })).rejects.toMatchObject({ code: Code.InvalidArgument });
  });

  it("returns whole ids alone, also one that begins another", async () => {
    const c = await startTestCoordinator();
    const run = await c.create({ requestId: "one" });
    await c.create({ requestId: "one-more" });
    const { runs, more } = await c.runs.findRuns({ prefix: { case: "requestId", value: "one" } });
    expect({ ids: runs.map(({ runId }) => runId), more }).toEqual({ ids: [run.runId], more: false });
  });

  it("shows an executor only what is in its own tree", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    const own = await c.create({ sessionName: "own" });
    const offer = await runner.take();
    await c.create({ sessionName: "foreign" });
    const token = { headers: { authorization: `Bearer ${offer.runToken}` } };
    const { run: child } = await c.runs.createRun({ prompt: "help", parentSessionId: own.sessionId }, token);
    for (const prefix of [{ case: "runId", value: "run_" } as const, { case: "sessionId", value: "ses_" } as const]) {
      const { runs } = await c.runs.findRuns({ prefix }, token);
      expect(new Set(runs.map(({ runId }) => runId))).toEqual(new Set([own.runId, child?.runId]));
    }
  });
});

describe("NOT_FOUND", () => {
  it("says for programs what was not found", async () => {
    const c = await startTestCoordinator();
    const reason = async (call: Promise<unknown>) => reasonOf(await call.catch((error: unknown) => error));
    expect(await reason(c.runs.getRun({ runId: "run_x" }))).toBe("RUN_NOT_FOUND");
    expect(await reason(c.runs.stopRun({ runId: "run_x" }))).toBe("RUN_NOT_FOUND");
    expect(await reason(c.sessions.getSession({ sessionName: "x" }))).toBe("SESSION_NOT_FOUND");
    expect(await reason(c.sessions.getSessionResult({ sessionId: "ses_x" }))).toBe("SESSION_NOT_FOUND");
    expect(await reason(c.runs.createRun({ prompt: "x", sessionId: "ses_x" }))).toBe("SESSION_NOT_FOUND");
    expect(await reason(c.runs.createRun({ prompt: "x", sessionName: "x", mode: 2 }))).toBe("SESSION_NOT_FOUND");
    expect(await reason(c.runs.createRun({ prompt: "x", agentName: "x" }))).toBe("BLUEPRINT_NOT_FOUND");
    expect(await reason(c.blueprints.getBlueprint({ name: "x" }))).toBe("BLUEPRINT_NOT_FOUND");
    expect(await reason(c.fleet.getRunner({ runnerId: "lnch_x" }))).toBe("RUNNER_NOT_FOUND");
    expect(await reason(c.fleet.drainRunner({ runnerId: "lnch_x" }))).toBe("RUNNER_NOT_FOUND");
  });
});
