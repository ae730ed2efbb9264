import { create } from "@bufbuild/protobuf";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { InvocationBlueprintSchema } from "../../../gen/agentrunner/v1/executor_pb.ts";
import { resolvePlaceholders } from "../../../runner/execution/placeholders.ts";
import type { PlaceholderSources } from "../../../runner/execution/placeholders.ts";

const SOURCES: PlaceholderSources = {
  sessionId: "ses_1",
  runId: "run_1",
  mcpUrl: "http://127.0.0.1:1/mcp/x",
  parameters: {
    topic: "cats",
    count: 2,
    list: [1, "a"],
    none: null,
    "a.b": "dotted",
    evil: "${env.TOKEN} ${runtime.run_id}",
  },
  env: { TOKEN: "t0" },
};

const resolve = (blueprint: MessageInitShape<typeof InvocationBlueprintSchema>) =>
  resolvePlaceholders(create(InvocationBlueprintSchema, blueprint), SOURCES);
const prompt = (systemPrompt: string) => {
  const { blueprint, unresolved } = resolve({ systemPrompt });
  return [blueprint.systemPrompt, unresolved];
};

describe("placeholders", () => {
  it.each([
    ["${AGENT_SESSION_ID}", "ses_1"],
    ["${runtime.session_id}", "ses_1"],
    ["${runtime.run_id}", "run_1"],
    ["${AGENT_ORCHESTRATOR_MCP_URL}", "http://127.0.0.1:1/mcp/x"],
    ["${runner.orchestrator_mcp_url}", "http://127.0.0.1:1/mcp/x"],
    ["${params.topic}", "cats"],
    ["${params.count}", "2"],
    ["${params.list}", '[1,"a"]'],
    ["${params.none}", "null"],
    ["${params.a.b}", "dotted"],
    ["${env.TOKEN}", "t0"],
    ["about ${params.topic}, ${params.topic}s", "about cats, catss"],
  ])("%s becomes %s", (text, value) => {
    expect(prompt(text)).toEqual([value, []]);
  });

  it.each([
    ["a parameter that is not given", "${params.other}"],
    ["a variable that the configuration does not name", "${env.HOME}"],
    ["what every object has", "${params.constructor}${params.__proto__}${env.__proto__}${env.constructor}"],
    ["another source", "${scope.user}${runtime.other}${AGENT_RUN_ID}${params}${env.}"],
  ])("of %s stay as they are and are told", (_, text) => {
    expect(prompt(text)).toEqual([text, text.match(/\$\{[^}]+\}/g)]);
  });

  it("are those alone: other dollars and braces stay untold", () => {
    for (const text of ["$HOME ${} $5 {params.topic} ${ params.topic } ${a b} $${x", "${params.topic"])
      expect(prompt(text)).toEqual([text, []]);
    expect(prompt("$${params.topic}}")).toEqual(["$cats}", []]);
  });

  it("that a value holds are not replaced: a parameter reaches nothing", () => {
    expect(prompt("${params.evil}")).toEqual(["${env.TOKEN} ${runtime.run_id}", []]);
    expect(prompt("$$ ${params.topic} $&")).toEqual(["$$ cats $&", []]);
  });

  it("are replaced in every value of the MCP servers, and nothing of the original is changed", () => {
    const http = {
      type: "http",
      url: "${AGENT_ORCHESTRATOR_MCP_URL}",
      headers: { "X-Agent-Session-Id": "${AGENT_SESSION_ID}" },
    };
    const stdio = {
      type: "stdio",
      command: "/opt/${params.topic}",
      args: ["--run", "${runtime.run_id}"],
      env: { T: "${env.TOKEN}", U: "${env.U}" },
    };
    const original = create(InvocationBlueprintSchema, {
      ...{ name: "a", mcpServers: { http, stdio } },
      outputSchema: { const: "${params.topic}" },
    });
    const before = structuredClone(original);
    const { blueprint, unresolved } = resolvePlaceholders(original, SOURCES);
    expect(blueprint).toMatchObject({
      name: "a",
      outputSchema: { const: "${params.topic}" },
      mcpServers: {
        http: { type: "http", url: SOURCES.mcpUrl, headers: { "X-Agent-Session-Id": "ses_1" } },
        stdio: { type: "stdio", command: "/opt/cats", args: ["--run", "run_1"], env: { T: "t0", U: "${env.U}" } },
      },
    });
    expect(unresolved).toEqual(["${env.U}"]);
    expect(original).toEqual(before);
  });

  it("put in at most 4 MiB; those beyond stay and are told once", () => {
    const parameters = { big: "x".repeat(1024 * 1024) };
    const text = "${params.big}".repeat(1000);
    const { blueprint, unresolved } = resolvePlaceholders(create(InvocationBlueprintSchema, { systemPrompt: text }), {
      ...SOURCES,
      parameters,
    });
    expect(blueprint.systemPrompt.length).toBe(4 * parameters.big.length + 996 * "${params.big}".length);
    expect(unresolved).toEqual(["${params.big}"]);
  });
});
