import type { JsonObject } from "@bufbuild/protobuf";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { InvocationMode } from "../../../gen/agentrunner/v1/run_pb.ts";
import { ao } from "../../support/ao.ts";
import { refusal, startHouse } from "../../support/blueprints.ts";
import type { AgentHouse } from "../../support/blueprints.ts";
import { stopTestCoordinators } from "../../support/coordinator.ts";
import { leaveMcp, McpAgent } from "../../support/mcp-client.ts";

/*
 * What a run without a prompt gets as its text is decided by the coordinator alone: CreateRun, `ao` and the tools send the
 * same call, and get the same prompt or the same refusal.
 */

let house: AgentHouse;
let agent: McpAgent;

beforeEach(async () => {
  house = await startHouse();
  const property = (...names: string[]) => Object.fromEntries(names.map((name) => [name, {}]));
  house.write("weather", {
    "agent.json": { parameters_schema: { type: "object", properties: property("topic", "prompt") } },
  });
  house.write("strict", { "agent.json": { parameters_schema: { type: "object", required: ["branch"] } } });
  house.write("plain", { "agent.json": {} });
  agent = await McpAgent.at(`${house.c.url}/mcp`);
});
afterEach(async () => {
  await leaveMcp();
  await stopTestCoordinators();
});

interface Call {
  readonly agentName?: string;
  readonly prompt?: string;
  readonly parameters?: JsonObject;
  readonly sessionId?: string;
}

/** The prompt that each way of calling gives the run, or why there is none. */
async function everyWay(call: Call): Promise<{ rpc: string; ao: string; tool: string }> {
  return { rpc: await overRpc(call), ao: await overAo(call), tool: await overTool(call) };
}

async function overRpc({ sessionId, ...call }: Call): Promise<string> {
  const resumed = sessionId === undefined ? {} : { sessionId, mode: InvocationMode.RESUME };
  const made = house.c.runs.createRun({ ...call, ...resumed });
  return made.then(
    ({ run }) => promptOf(run?.runId),
    () => refusal(made).then((text) => `refused: ${text.replace("InvalidArgument: ", "")}`),
  );
}

async function overAo({ agentName, prompt, parameters, sessionId }: Call): Promise<string> {
  const options = [
    ...(agentName === undefined ? [] : ["--agent", agentName]),
    ...(prompt === undefined ? [] : ["--prompt", prompt]),
    ...(parameters === undefined ? [] : ["--parameters", JSON.stringify(parameters)]),
  ];
  const verb = sessionId === undefined ? ["start"] : ["resume", sessionId];
  const { exitCode, stdout, stderr } = await ao(["-c", house.c.url, ...verb, ...options, "-o", "json"]);
  if (exitCode !== 0) return `refused: ${(JSON.parse(stderr) as { error: { message: string } }).error.message}`;
  return promptOf((JSON.parse(stdout) as { run_id: string }).run_id);
}

async function overTool({ agentName, prompt, parameters, sessionId }: Call): Promise<string> {
  const args = { prompt, parameters, mode: "async_poll" };
  const { isError, content } =
    sessionId === undefined
      ? await agent.raw("start_agent_session", { ...args, agent_name: agentName })
      : await agent.raw("resume_agent_session", { ...args, session_id: sessionId });
  const text = content.map((block) => (block.type === "text" ? block.text : "")).join("");
  if (isError === true)
    return `refused: ${text.replace(". Nothing was changed. Correct the arguments and call again.", "")}`;
  return promptOf((JSON.parse(text) as { run_id: string }).run_id);
}

async function promptOf(runId = ""): Promise<string> {
  return (await house.c.run(runId)).prompt;
}

const same = (text: string) => ({ rpc: text, ao: text, tool: text });

describe("a start without a prompt", () => {
  it.each<[string, JsonObject, string]>([
    ["a parameter called prompt beside another", { prompt: "p", topic: "rain" }, "topic: rain\nprompt: p"],
    ["a parameter called prompt alone", { prompt: "p" }, "prompt: p"],
    [
      "nested values, and keys that the schema does not have",
      { z: { deep: [1, null] }, a: true, topic: "rain\nsnow" },
      'topic: \n  rain\n  snow\na: true\nz: {"deep":[1,null]}',
    ],
  ])("gets %s as text, in the order of the schema", async (_what, parameters, lines) => {
    expect(await everyWay({ agentName: "weather", parameters })).toEqual(same(`<inputs>\n${lines}\n</inputs>`));
  });

  it("takes no parameters at all for an answer when all of them are optional", async () => {
    expect(await everyWay({ agentName: "weather", parameters: {} })).toEqual(same("<inputs>\n</inputs>"));
  });

  it.each<[string, Call, string]>([
    ["parameters and no agent", { parameters: { topic: "rain" } }, "prompt: a run needs a text for the agent"],
    [
      "parameters for an agent that takes none",
      { agentName: "plain", parameters: { topic: "rain" } },
      "prompt: a run needs a text for the agent",
    ],
    [
      "parameters that do not fit",
      { agentName: "strict", parameters: { topic: "rain" } },
      "agent blueprint strict: parameters must have required property 'branch'",
    ],
  ])("is refused with %s", async (_what, call, why) => {
    expect(await everyWay(call)).toEqual(same(`refused: ${why}`));
  });

  it("is refused with nothing, and says what is missing", async () => {
    const { rpc, tool } = await everyWay({ agentName: "weather" });
    const text = "refused: prompt or parameters: a run needs a text for the agent";
    expect({ rpc, tool }).toEqual({ rpc: text, tool: text });
  });
});

describe("a start with a prompt", () => {
  it("sends it as it is, whatever the parameters are", async () => {
    const call = { agentName: "weather", prompt: "look", parameters: { prompt: "p", topic: "rain" } };
    expect(await everyWay(call)).toEqual(same("look"));
  });
});

describe("a resume", () => {
  it("follows the same rule: its parameters as text, or a refusal", async () => {
    const { sessionId } = await house.c.create({ agentName: "weather", prompt: "begin" });
    const parameters = { prompt: "p", topic: "rain" };
    expect(await everyWay({ sessionId, parameters })).toEqual(same("<inputs>\ntopic: rain\nprompt: p\n</inputs>"));
    expect(await everyWay({ sessionId, prompt: "go on" })).toEqual(same("go on"));
    const plain = await house.c.create({ agentName: "plain", prompt: "begin" });
    expect(await everyWay({ sessionId: plain.sessionId, parameters })).toEqual(
      same("refused: prompt: a run needs a text for the agent"),
    );
  });
});
