import { rmSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { ExecutionMode, FailureReason, RunState } from "../../../../gen/agentrunner/v1/run_pb.ts";
import { refusal, startHouse } from "../../../support/blueprints.ts";
import type { AgentHouse } from "../../../support/blueprints.ts";
import { stopTestCoordinators } from "../../../support/coordinator.ts";
import type { NewRun } from "../../../support/coordinator.ts";
import { RawRunner } from "../../../support/raw-runner.ts";

afterEach(stopTestCoordinators);

const SCHEMA = {
  type: "object",
  properties: { topic: { type: "string" }, count: { type: "integer" } },
  required: ["topic"],
  additionalProperties: false,
};

/** A coordinator with the agent `reviewer`, and a runner that suits it. */
async function houseWith(agent: object, settings = {}): Promise<AgentHouse & { runner: RawRunner }> {
  const house = await startHouse(settings);
  house.write("reviewer", { "agent.json": agent, "agent.system-prompt.md": "first" });
  return Object.assign(house, { runner: await RawRunner.online(house.c) });
}

const asked = (request: NewRun = {}): NewRun => ({ agentName: "reviewer", ...request });
const runsOf = async ({ c }: AgentHouse): Promise<number> => (await c.runs.listRuns({})).runs.length;
const sessionsOf = async ({ c }: AgentHouse): Promise<number> => (await c.sessions.listSessions({})).sessions.length;

describe("a run of an agent", () => {
  it("carries the blueprint as it was when the run was made, over edits and a restart of the coordinator", async () => {
    const house = await startHouse({ memory: false });
    const mcp = { mcpServers: { o: { url: "${AGENT_ORCHESTRATOR_MCP_URL}", headers: { h: "${AGENT_SESSION_ID}" } } } };
    const output_schema = { type: "object" };
    house.write("reviewer", {
      "agent.json": { output_schema },
      "agent.system-prompt.md": "first",
      "agent.mcp.json": mcp,
    });
    const { runId } = await house.c.create(asked({ parameters: { any: [1] } }));
    house.write("reviewer", { "agent.json": {}, "agent.system-prompt.md": "second" });
    await house.c.restart();
    const runner = await RawRunner.online(house.c);
    const offer = await runner.take();
    expect(offer).toMatchObject({ runId, invocation: { prompt: "say hello", parameters: { any: [1] } } });
    expect(offer.invocation?.agentBlueprint).toMatchObject({
      name: "reviewer",
      systemPrompt: "first",
      outputSchema: output_schema,
      mcpServers: { o: { type: "http", url: "${AGENT_ORCHESTRATOR_MCP_URL}", headers: { h: "${AGENT_SESSION_ID}" } } },
    });
    expect(await house.c.run(runId)).toMatchObject({ agentName: "reviewer" });
    await house.c.create();
    expect((await runner.take()).invocation?.agentBlueprint).toBeUndefined();
  });

  it("that nobody knows, or that is disabled or broken, is refused, and no run and no session is left", async () => {
    const house = await startHouse();
    house.write("reviewer", { "agent.json": {}, ".disabled": "" });
    house.write("broken", { "agent.json": { tags: 1 } });
    expect(await refusal(house.c.create({ agentName: "reviwer" }))).toBe(
      "NotFound: no agent blueprint reviwer; did you mean reviewer?",
    );
    expect(await refusal(house.c.create({ agentName: "../reviewer" }))).toMatch(/^NotFound: no agent blueprint/);
    expect(await refusal(house.c.create(asked()))).toBe(
      "FailedPrecondition: agent blueprint reviewer is disabled; `ao blueprints enable reviewer` lets it run",
    );
    expect(await refusal(house.c.create({ agentName: "broken" }))).toMatch(
      /^FailedPrecondition: .*broken: agent\.json: tags/,
    );
    expect([await runsOf(house), await sessionsOf(house)]).toEqual([0, 0]);
  });

  it("gets its parameters as text when it has a parameters_schema and there is no prompt", async () => {
    const house = await houseWith({ parameters_schema: SCHEMA });
    await house.c.create(asked({ prompt: "", parameters: { count: 2, topic: "cats" } }));
    const { invocation } = await house.runner.take();
    expect(invocation).toMatchObject({
      prompt: "<inputs>\ntopic: cats\ncount: 2\n</inputs>",
      parameters: { topic: "cats", count: 2 },
    });
  });

  it("is refused when its parameters do not fit, saying where and why, and leaves nothing", async () => {
    const house = await houseWith({ parameters_schema: SCHEMA });
    expect(await refusal(house.c.create(asked({ parameters: { count: "2" } })))).toBe(
      "InvalidArgument: agent blueprint reviewer: parameters must have required property 'topic'; parameters/count must be integer",
    );
    expect(await refusal(house.c.create(asked({ prompt: "" })))).toMatch(/^InvalidArgument/);
    expect(await refusal(house.c.create({ prompt: "" }))).toBe(
      "InvalidArgument: prompt: a run needs a text for the agent",
    );
    expect([await runsOf(house), await sessionsOf(house)]).toEqual([0, 0]);
  });

  it("asks for what the blueprint and the request demand together, and cannot contradict the blueprint", async () => {
    const house = await startHouse();
    house.write("reviewer", { "agent.json": { demands: { executor_profile: "coding", tags: ["docker"] } } });
    const { runId } = await house.c.create(asked({ demands: { hostname: "host-b", tags: ["gpu"] } }));
    expect(await house.c.run(runId)).toMatchObject({
      demands: { executorProfile: "coding", hostname: "host-b", tags: ["docker", "gpu"] },
    });
    await RawRunner.online(house.c, { executorProfile: "coding", hostname: "host-b", tags: ["docker"] });
    const fits = await RawRunner.online(house.c, {
      executorProfile: "coding",
      hostname: "host-b",
      tags: ["docker", "gpu"],
    });
    expect((await fits.take()).runId).toBe(runId);
    expect(await refusal(house.c.create(asked({ demands: { executorProfile: "other" } })))).toBe(
      "InvalidArgument: demands.executor_profile: agent blueprint reviewer demands coding, not other; a run can only add demands",
    );
    expect(await runsOf(house)).toBe(1);
  });

  it("is answered again to a repeated request, whatever became of the blueprint", async () => {
    const house = await houseWith({});
    const { runId } = await house.c.create(asked({ requestId: "once" }));
    rmSync(join(house.dir, "reviewer"), { recursive: true });
    expect((await house.c.create(asked({ requestId: "once" }))).runId).toBe(runId);
    expect(await refusal(house.c.create(asked({ requestId: "twice" })))).toMatch(/^NotFound/);
  });

  it("counts the blueprint in the size of its invocation", async () => {
    const house = await startHouse();
    const large = "x".repeat(500_000);
    house.write("reviewer", { "agent.json": {}, "agent.system-prompt.md": large });
    expect(await refusal(house.c.create(asked({ prompt: "x".repeat(2_700_000) })))).toMatch(
      /^InvalidArgument: prompt, parameters, metadata and blueprint are 32\d{5} bytes together/,
    );
    await house.c.create({ prompt: "x".repeat(2_700_000) });
  });
});

describe("a resume", () => {
  it("is of the session's agent as it is now; of its last copy when it is gone; refused when it is disabled", async () => {
    const house = await houseWith({ parameters_schema: SCHEMA });
    const first = await house.c.create(asked({ parameters: { topic: "cats" } }));
    const { sessionId } = first;
    const turn = async (): Promise<string | undefined> => {
      const offer = await house.runner.take();
      await house.runner.ok(offer, "COMPLETED");
      return offer.invocation?.agentBlueprint?.systemPrompt;
    };
    expect(await turn()).toBe("first");
    house.write("reviewer", { "agent.system-prompt.md": "second" });
    await house.c.create({ sessionId });
    expect(await turn()).toBe("second");
    house.write("reviewer", { ".disabled": "" });
    expect(await refusal(house.c.create({ sessionId }))).toMatch(/^FailedPrecondition: .*disabled/);
    rmSync(join(house.dir, "reviewer"), { recursive: true });
    const { runId } = await house.c.create({ sessionId });
    expect(await turn()).toBe("second");
    expect(await house.c.run(runId)).toMatchObject({ agentName: "reviewer", state: RunState.COMPLETED });
    expect(await refusal(house.c.create({ agentName: "reviewer" })), "of another session").toMatch(/^NotFound/);
  });
});

describe("the result of an agent with an output_schema", () => {
  it.each([
    ["without data", { text: "done" }, "the result has no data"],
    ["with data that do not fit", { text: "done", data: { topic: 1 } }, "data/topic must be string"],
    ["that is not there", undefined, "the result has no data"],
  ])("%s fails the run, says why and is kept", async (_, result, why) => {
    const house = await houseWith({ output_schema: SCHEMA });
    const { runId, sessionId } = await house.c.create(asked());
    const offer = await house.runner.take();
    const report = house.runner.said(offer, "COMPLETED", { ...(result && { result }), exit: { code: 0 } });
    const { verdicts } = await house.runner.reports([report]);
    expect(verdicts[0]).toMatchObject({ kind: 1, runState: RunState.FAILED });
    const run = await house.c.run(runId);
    expect(run).toMatchObject({
      state: RunState.FAILED,
      failure: FailureReason.OUTPUT_SCHEMA,
      message: `output_schema of agent blueprint reviewer: ${why}`,
      exit: { code: 0 },
      attempts: [{ outcome: RunState.FAILED, failure: FailureReason.OUTPUT_SCHEMA }],
      ...(result && { result }),
    });
    expect((await house.runner.reports([report])).verdicts[0], "the same report again").toMatchObject({ kind: 1 });
    expect((await house.c.sessions.getSession({ sessionId })).session?.status).toBe(5);
  });

  it("that fits completes the run, judged by the schema that the run was made with", async () => {
    const house = await houseWith({ output_schema: SCHEMA });
    const { runId } = await house.c.create(asked());
    house.write("reviewer", { "agent.json": { output_schema: { not: {} } } });
    await house.runner.ok(await house.runner.take(), "COMPLETED", { result: { data: { topic: "cats" } } });
    expect(await house.c.run(runId)).toMatchObject({ state: RunState.COMPLETED, result: { data: { topic: "cats" } } });
  });

  it("is not missed from a turn that only waits for children, but from the one after they have called back", async () => {
    const house = await houseWith({ output_schema: SCHEMA });
    const { runId, sessionId } = await house.c.create(asked());
    const turn = await house.runner.take();
    await house.c.create({ parentSessionId: sessionId, executionMode: ExecutionMode.ASYNC_CALLBACK });
    const child = await house.runner.take();
    await house.runner.ok(turn, "COMPLETED", { result: { text: "started one" } });
    expect((await house.c.run(runId)).state).toBe(RunState.COMPLETED);
    await house.runner.ok(child, "COMPLETED");
    const last = await house.runner.take();
    await house.runner.ok(last, "COMPLETED", { result: { text: "no data" } });
    expect((await house.c.run(last.runId)).failure).toBe(FailureReason.OUTPUT_SCHEMA);
  });

  it("that failed stays failed for its own reason", async () => {
    const house = await houseWith({ output_schema: SCHEMA });
    const { runId } = await house.c.create(asked());
    await house.runner.ok(await house.runner.take(), "FAILED", { failure: FailureReason.TIMEOUT, message: "too long" });
    expect(await house.c.run(runId)).toMatchObject({ failure: FailureReason.TIMEOUT, message: "too long" });
  });
});
