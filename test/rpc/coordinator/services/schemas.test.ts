import { afterEach, describe, expect, it } from "vitest";
import { FailureReason, RunState } from "../../../../gen/agentrunner/v1/run_pb.ts";
import { refusal, startHouse } from "../../../support/blueprints.ts";
import type { AgentHouse } from "../../../support/blueprints.ts";
import { stopTestCoordinators } from "../../../support/coordinator.ts";
import { RawRunner } from "../../../support/raw-runner.ts";

afterEach(stopTestCoordinators);

/** A pattern that people write for words, and a text for which it backtracks for longer than anybody waits. */
const WORDS = { type: "object", properties: { text: { type: "string", pattern: "^(\\w+\\s?)*$" } } };
const ENDLESS = { text: `${"a".repeat(40)}!` };

/** What a coordinator that stands still cannot answer. */
async function isAwake({ c }: AgentHouse, runner: RawRunner): Promise<void> {
  expect((await c.page("/health")).status).toBe(200);
  const { runnerId, identity } = runner;
  await c.runners.heartbeat({ runnerId, bootId: identity.bootId }, runner.options);
}

describe("a schema that takes longer than anybody waits", () => {
  it("has a new run refused, while the coordinator answers others", async () => {
    const house = await startHouse();
    house.write("words", { "agent.json": { parameters_schema: WORDS } });
    house.write("tree", { "agent.json": { parameters_schema: { items: { $ref: "#" } } } });
    const runner = await RawRunner.online(house.c);
    const created = refusal(house.c.create({ agentName: "words", parameters: ENDLESS }));
    await isAwake(house, runner);
    expect(await created).toMatch(/^InvalidArgument: agent blueprint words: parameters: the schema took longer than/);
    expect((await house.c.runs.listRuns({})).runs).toEqual([]);
    await house.c.create({ agentName: "tree", parameters: { any: 1 } });
  });

  it("fails the run whose result it judges, and no other report of the batch", async () => {
    const house = await startHouse();
    house.write("words", { "agent.json": { output_schema: WORDS } });
    const runner = await RawRunner.online(house.c);
    const { runId } = await house.c.create({ agentName: "words" });
    const offer = await runner.take();
    const other = await house.c.create();
    const otherOffer = await runner.take();
    const reported = runner.reports([
      runner.said(offer, "COMPLETED", { result: { text: "done", data: ENDLESS } }),
      runner.said(otherOffer, "COMPLETED", { result: { text: "done" } }),
    ]);
    await isAwake(house, runner);
    await reported;
    expect(await house.c.run(runId)).toMatchObject({
      state: RunState.FAILED,
      failure: FailureReason.OUTPUT_SCHEMA,
      message: expect.stringMatching(/^output_schema of agent blueprint words: data: the schema took longer than/),
    });
    expect((await house.c.run(other.runId)).state).toBe(RunState.COMPLETED);
  });
});

describe("the schemas of a blueprint", () => {
  it.each([
    ["that is none", { parameters_schema: { type: "strin" } }, /^agent\.json: parameters_schema: not a JSON Schema/],
    [
      "that is elsewhere",
      { output_schema: { $ref: "http://x/y" } },
      /^agent\.json: output_schema: not .*can't resolve/,
    ],
    [
      "of an old draft",
      { output_schema: { $schema: "http://json-schema.org/draft-04/schema#" } },
      /is not known; known: .*2020-12/,
    ],
  ])("with one %s are refused, naming file, key and what belongs there", async (_, agent, expected) => {
    const house = await startHouse();
    house.write("a", { "agent.json": agent });
    for (const _again of [1, 2]) {
      const { broken } = await house.blueprints.listBlueprints({});
      expect(broken).toMatchObject([{ name: "a", error: expect.stringMatching(expected) }]);
    }
    house.write("a", { "agent.json": { output_schema: { items: { $ref: "#" } } } });
    expect((await house.blueprints.listBlueprints({})).blueprints).toMatchObject([{ name: "a" }]);
  });
});
