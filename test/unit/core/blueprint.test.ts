import { create } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import {
  BlueprintError,
  FIELDS,
  NO_FILES,
  parseBlueprint,
  withFields,
} from "../../../coordinator/core/blueprints/blueprint.ts";
import type { BlueprintFiles, Field } from "../../../coordinator/core/blueprints/blueprint.ts";
import { nearNames } from "../../../lib/near-names.ts";
import { AgentBlueprintSchema } from "../../../gen/agentrunner/v1/blueprint_pb.ts";

function files(agent: unknown, more: Partial<BlueprintFiles> = {}): BlueprintFiles {
  return { ...NO_FILES, agent: typeof agent === "string" ? agent : JSON.stringify(agent), ...more };
}

const parse = (agent: unknown, more?: Partial<BlueprintFiles>) => parseBlueprint("reviewer", files(agent, more));
const errorOf = (agent: unknown, more?: Partial<BlueprintFiles>): string => {
  try {
    parse(agent, more);
    return "no error";
  } catch (error) {
    if (error instanceof BlueprintError) return error.message;
    throw error;
  }
};

describe("a blueprint's files", () => {
  it("become the blueprint, prompt and MCP servers from their own files", () => {
    const agent = {
      name: "reviewer",
      description: "reads code",
      tags: ["code", "code", "review"],
      demands: { executor_profile: "coding", hostname: "h", project_dir: "/srv", tags: ["docker"] },
      parameters_schema: { type: "object" },
      output_schema: {},
      mcp_servers: { search: { type: "sse", url: "http://search" } },
    };
    const mcp = JSON.stringify({
      mcpServers: {
        git: { command: "git-mcp", args: ["--ro"], env: { A: "1" } },
        orchestrator: {
          url: "${AGENT_ORCHESTRATOR_MCP_URL}",
          headers: { "X-Agent-Session-Id": "${AGENT_SESSION_ID}" },
        },
      },
    });
    const { blueprint, warnings } = parse(agent, { systemPrompt: "You review.\n", mcp, disabled: true });
    expect(warnings).toEqual([]);
    expect(blueprint).toMatchObject({
      name: "reviewer",
      description: "reads code",
      systemPrompt: "You review.\n",
      tags: ["code", "review"],
      enabled: false,
      demands: { executorProfile: "coding", hostname: "h", projectDir: "/srv", tags: ["docker"] },
      parametersSchema: { type: "object" },
      outputSchema: {},
      mcpServers: {
        search: { type: "sse", url: "http://search" },
        git: { type: "stdio", command: "git-mcp", args: ["--ro"], env: { A: "1" } },
        orchestrator: { type: "http", headers: { "X-Agent-Session-Id": "${AGENT_SESSION_ID}" } },
      },
    });
  });

  it("may say nothing but {}, and then ask for nothing", () => {
    const { blueprint } = parse({});
    expect(blueprint).toMatchObject({ name: "reviewer", systemPrompt: "", tags: [], enabled: true });
    expect([blueprint.demands, blueprint.parametersSchema, blueprint.outputSchema]).toEqual([
      undefined,
      undefined,
      undefined,
    ]);
  });

  it.each([
    ["no JSON", "{", /^agent\.json: .*JSON/],
    ["no object", [], /^agent\.json: expected an object, found \[\]$/],
    [
      "another name",
      { name: "other" },
      /^agent\.json: name: expected "reviewer", as the directory is named, found "other"$/,
    ],
    ["a description of a wrong type", { description: 7 }, /^agent\.json: description: expected a string, found 7$/],
    ["tags of a wrong type", { tags: "code" }, /^agent\.json: tags: expected a list, found "code"$/],
    ["an empty tag", { tags: [""] }, /^agent\.json: tags: expected at most 64 strings of 1 to 128 characters/],
    ["demands of a wrong type", { demands: ["coding"] }, /^agent\.json: demands: expected an object/],
    ["a demand of a wrong type", { demands: { tags: { a: 1 } } }, /^agent\.json: demands\.tags: expected a list/],
    [
      "an unknown demand",
      { demands: { tag: ["a"] } },
      /^agent\.json: demands\.tag is not known; known: executor_profile/,
    ],
    [
      "a long demand",
      { demands: { hostname: "h".repeat(257) } },
      /demands\.hostname: expected a string of at most 256/,
    ],
    [
      "a server without a url",
      { mcp_servers: { a: {} } },
      /^agent\.json: mcp_servers\.a\.url: expected a non-empty string/,
    ],
    [
      "a server without a command",
      { mcp_servers: { a: { type: "stdio" } } },
      /mcp_servers\.a\.command: expected a non-empty/,
    ],
    [
      "a server of an unknown type",
      { mcp_servers: { a: { type: "ws", url: "x" } } },
      /a\.type: expected "http", "sse" or "stdio"/,
    ],
    [
      "a header that is no string",
      { mcp_servers: { a: { url: "x", headers: { n: 1 } } } },
      /a\.headers\.n: expected a string, found 1/,
    ],
    ["a procedural agent", { type: "procedural" }, /^agent\.json: type: only "autonomous" agents run here$/],
    [
      "capabilities",
      { capabilities: ["git"] },
      /^agent\.json: capabilities: put their texts into agent\.system-prompt\.md/,
    ],
    [
      "a hook without a command",
      { hooks: { on_run_start: {} } },
      /^agent\.json: hooks\.on_run_start\.command: expected a list/,
    ],
    [
      "a hook as one text",
      { hooks: { on_run_start: { command: "a b" } } },
      /on_run_start\.command: expected a list, as in \["a b"\]/,
    ],
    [
      "an agent as a hook",
      { hooks: { on_run_start: { type: "agent", agent_name: "judge" } } },
      /on_run_start: an agent as a hook would wait for a slot while its run holds one; give a program/,
    ],
    [
      "a hook of another name",
      { hooks: { onRunStart: {} } },
      /hooks\.onRunStart is not known; did you mean on_run_start\?/,
    ],
    [
      "a slip in a hook",
      { hooks: { on_run_start: { command: ["x"], timeout: 5 } } },
      /on_run_start\.timeout is not known/,
    ],
    [
      "no time for a hook",
      { hooks: { on_run_start: { command: ["x"], timeout_seconds: 0 } } },
      /timeout_seconds: expected more than 0/,
    ],
    [
      "another on_error",
      { hooks: { on_run_start: { command: ["x"], on_error: "stop" } } },
      /on_error: expected "block" or "continue"/,
    ],
    [
      "a finish that blocks",
      { hooks: { on_run_finish: { command: ["x"], on_error: "block" } } },
      /on_run_finish\.on_error: the run has ended/,
    ],
    ["enabled: false", { enabled: false }, /^agent\.json: enabled: a file \.disabled beside it/],
  ])("with %s are refused, naming file, key and what belongs there", (_, agent, expected) => {
    expect(errorOf(agent)).toMatch(expected);
  });

  it("are refused when a prompt or a server stands in two files, and when agent.json is missing", () => {
    expect(errorOf({ system_prompt: "a" }, { systemPrompt: "b" })).toMatch(
      /system_prompt: agent\.system-prompt\.md has one/,
    );
    const server = { a: { url: "x" } };
    const mcp = JSON.stringify({ mcpServers: server });
    expect(errorOf({ mcp_servers: server }, { mcp })).toMatch(
      /^agent\.mcp\.json: mcpServers\.a: agent\.json has a server/,
    );
    expect(errorOf({}, { mcp: "[]" })).toMatch(/^agent\.mcp\.json: expected an object/);
    expect(() => parseBlueprint("reviewer", NO_FILES)).toThrow("agent.json is missing");
    expect(() => parseBlueprint("../x", files({}))).toThrow("the name of a blueprint is 1 to 60 letters");
  });

  it.each([
    ["mcpServers", { mcpServers: { a: { url: "x" } } }, "mcp_servers"],
    ["mcp-servers", { "mcp-servers": { a: { url: "x" } } }, "mcp_servers"],
    ["servers", { servers: { a: { url: "x" } } }, "mcp_servers"],
    ["systemPrompt", { systemPrompt: "You are X." }, "system_prompt"],
    ["sytem_prompt", { sytem_prompt: "You are X." }, "system_prompt"],
    ["instructions", { instructions: "You are X." }, "system_prompt"],
    ["parametersSchema", { parametersSchema: {}, x: 1 }, "parameters_schema"],
    ["parameter_schema", { parameter_schema: { type: "object" } }, "parameters_schema"],
    ["outputSchema", { outputSchema: { type: "object" } }, "output_schema"],
    ["output_shema", { output_shema: { type: "object" } }, "output_schema"],
    ["Demands", { Demands: { tags: ["gpu"] } }, "demands"],
    ["tag", { tag: ["a"] }, "tags"],
    ["descripton", { descripton: "x" }, "description"],
  ])("with a slip in a key that is read are broken, with the key that was meant: %s", (key, agent, meant) => {
    const filled = Object.values(agent).every((value) => typeof value !== "object" || Object.keys(value).length > 0);
    if (filled) expect(errorOf(agent)).toBe(`agent.json: ${key} is not known; did you mean ${meant}?`);
    else expect(parse(agent).warnings).toContain(`agent.json: ${key} is not known and ignored`);
  });

  it.each(["model", "color", "version", "author", "skills", "tools", "$schema", "title", "namespace", "timeout", "id"])(
    "may have a key of another program, which is ignored with a warning: %s",
    (key) => {
      expect(parse({ [key]: "x" }).warnings).toEqual([`agent.json: ${key} is not known and ignored`]);
    },
  );

  it.each([
    ["disabled", { url: "x", disabled: true }, /a\.disabled: a server cannot be turned off here; take it out/],
    ["enabled", { command: "x", enabled: false }, /a\.enabled: a server cannot be turned off here/],
    ["serverUrl", { serverUrl: "http://x" }, /a\.serverUrl is not known; did you mean url\?/],
    ["httpUrl", { httpUrl: "http://x" }, /a\.httpUrl is not known; did you mean url\?/],
    ["URL", { URL: "http://x" }, /a\.URL is not known; did you mean url\?/],
    ["header", { url: "x", header: { a: "b" } }, /a\.header is not known; did you mean headers\?/],
    ["arguments", { command: "x", arguments: ["a"] }, /a\.arguments is not known; did you mean args\?/],
    ["environment", { command: "x", environment: { A: "1" } }, /a\.environment is not known; did you mean env\?/],
    ["transport", { url: "x", transport: "sse" }, /a\.transport is not known; did you mean type\?/],
    [
      "a name with an escape",
      { url: "x", headers: { "a\x1b": "b" } },
      /a\.headers: "a\\u001b" is no name of an HTTP header/,
    ],
    ["a header of two lines", { url: "x", headers: { a: "b\r\nc: d" } }, /a\.headers\.a: must not hold control/],
    ["a url of two lines", { url: "x\ny" }, /a\.url: must not hold control/],
    ["a variable without name", { command: "x", env: { "": "1" } }, /a\.env: "" is no name of a variable/],
    ["a variable with =", { command: "x", env: { "A=B": "1" } }, /a\.env: "A=B" is no name/],
    ["NUL in a variable", { command: "x", env: { A: "\0" } }, /a\.env\.A: must not hold a NUL/],
    ["NUL in an argument", { command: "x", args: ["\0"] }, /a\.args: must not hold a NUL/],
    ["NUL in the command", { command: "x\0" }, /a\.command: must not hold a NUL/],
  ])("with a server that would be another one are broken, in either file: %s", (_, server, expected) => {
    expect(errorOf({ mcp_servers: { a: server } })).toMatch(expected);
    expect(errorOf({}, { mcp: JSON.stringify({ mcpServers: { a: server } }) })).toMatch(expected);
  });

  it("take the transports by all their names, and servers that other programs have switched on", () => {
    for (const type of ["http", "streamable-http", "streamable_http", "streamableHttp", "StreamableHTTP"]) {
      const { blueprint, warnings } = parse({ mcp_servers: { a: { type, url: "http://x", disabled: false } } });
      expect(blueprint.mcpServers["a"]?.type).toBe("http");
      expect(warnings).toEqual(["agent.json: mcp_servers.a.disabled is not known of a http server and ignored"]);
    }
    expect(
      parse({ mcp_servers: { a: { command: "x", args: ["two\nlines"], timeout: 60, cwd: "/x" } } }).warnings,
    ).toHaveLength(2);
  });

  it.each([
    [
      "a server's name",
      { mcp_servers: { "a\u202eb": { url: "x" } } },
      /^agent\.json: mcp_servers: must not hold control/,
    ],
    ["demands.executor_profile", { demands: { executor_profile: "a\0" } }, /demands\.executor_profile: must not hold/],
    ["demands.hostname", { demands: { hostname: "a\n" } }, /demands\.hostname: must not hold/],
    ["demands.project_dir", { demands: { project_dir: "/a\u2066" } }, /demands\.project_dir: must not hold/],
    ["demands.tags", { demands: { tags: ["a\x1b"] } }, /demands\.tags: must not hold/],
    ["tags", { tags: ["a\u202e"] }, /^agent\.json: tags: must not hold/],
  ])("with control characters or such as turn the text are broken: %s", (_, agent, expected) => {
    expect(errorOf(agent)).toMatch(expected);
  });

  it("have hooks, which are written as they are read", () => {
    const hooks = {
      on_run_start: { command: ["./check", "-x"], timeout_seconds: 2.5, on_error: "block" },
      on_run_finish: { command: ["notify"] },
    };
    const { blueprint } = parse({ hooks });
    expect(blueprint.hooks?.onRunStart).toMatchObject({ command: ["./check", "-x"], onError: 2 });
    const files = withFields(NO_FILES, blueprint, ["hooks"]);
    expect(JSON.parse(files.agent ?? "").hooks).toEqual(hooks);
    expect(parse({ hooks: { on_run_start: null } }).blueprint.hooks).toBeUndefined();
  });

  it("with numbers that a double cannot hold are broken", () => {
    expect(errorOf('{"output_schema": {"const": 1029384756610293847}}')).toMatch(/^agent\.json: 1029384756610293847 /);
    expect(errorOf('{"parameters_schema": {"maximum": 1e400}}')).toMatch(/^agent\.json: 1e400 /);
  });

  it("of other systems are read when their further keys say nothing, with a warning for each that is ignored", () => {
    const agent = {
      type: "autonomous",
      capabilities: [],
      hooks: null,
      enabled: true,
      skills: ["x"],
      mcp_servers: { a: { url: "x", tool: 1 } },
    };
    expect(parse(agent).warnings).toEqual([
      "agent.json: skills is not known and ignored",
      "agent.json: mcp_servers.a.tool is not known of a http server and ignored",
    ]);
  });

  it("with the old demand executor_type mean executor_profile, with a warning", () => {
    const { blueprint, warnings } = parse({ demands: { executor_type: "claude-code" } });
    expect(blueprint.demands?.executorProfile).toBe("claude-code");
    expect(warnings).toEqual([
      "agent.json: demands.executor_type is the old name of executor_profile and read as that",
    ]);
    expect(parse({ demands: { executor_type: "a", executor_profile: "a" } }).blueprint.demands?.executorProfile).toBe(
      "a",
    );
    expect(errorOf({ demands: { executor_type: "a", executor_profile: "b" } })).toMatch(
      /says a and executor_profile says b/,
    );
  });
});

describe("fields put into the files of a blueprint", () => {
  const blueprint = create(AgentBlueprintSchema, {
    name: "reviewer",
    description: "new",
    systemPrompt: "new prompt",
    mcpServers: { git: { type: "stdio", command: "git-mcp", url: "left over" } },
    demands: { executorProfile: "coding", tags: ["a"] },
    parametersSchema: {},
    tags: ["type"],
    enabled: true,
  });
  const put = (before: BlueprintFiles, ...fields: Field[]) => withFields(before, blueprint, fields);

  it("read back as the blueprint that they were", () => {
    const after = withFields(NO_FILES, blueprint, FIELDS);
    expect(Object.keys(JSON.parse(after.agent ?? "") as object)).toEqual([
      "name",
      "description",
      "demands",
      "tags",
      "parameters_schema",
    ]);
    const { url: _, ...git } = blueprint.mcpServers["git"]!;
    expect(parseBlueprint("reviewer", after).blueprint).toEqual({
      ...blueprint,
      mcpServers: { git: { ...git, url: "" } },
    });
  });

  it("leave every other field and unknown keys as they were", () => {
    const before = files(
      { description: "old", skills: ["x"], tags: ["old"], demands: { executor_type: "old" } },
      { systemPrompt: "old prompt", disabled: true },
    );
    const after = put(before, "description", "demands");
    expect(JSON.parse(after.agent ?? "")).toEqual({
      name: "reviewer",
      description: "new",
      skills: ["x"],
      tags: ["old"],
      demands: { executor_profile: "coding", tags: ["a"] },
    });
    expect(after).toMatchObject({ systemPrompt: "old prompt", mcp: undefined, disabled: true });
    expect(put(before, "enabled").disabled).toBe(false);
  });

  it("stay in agent.json when they stood there, and are taken out when they are empty", () => {
    const before = files({ system_prompt: "old", mcp_servers: { a: { url: "x" } }, output_schema: {}, tags: ["old"] });
    const after = put(before, "system_prompt", "mcp_servers", "output_schema");
    expect(JSON.parse(after.agent ?? "")).toEqual({
      name: "reviewer",
      system_prompt: "new prompt",
      mcp_servers: { git: { type: "stdio", command: "git-mcp" } },
      tags: ["old"],
    });
    expect(after).toMatchObject({ systemPrompt: undefined, mcp: undefined });
  });
});

describe("a name that is nobody's", () => {
  it.each([
    ["reviwer", ["reviewer", "reviewer2"]],
    ["Reviewer", ["reviewer", "reviewer2"]],
    ["re", ["reviewer", "reviewer2"]],
    ["xyz", []],
  ])("%s brings up %j", (name, near) => {
    expect(nearNames(name, ["reviewer", "worker", "reviewer2"])).toEqual(near);
  });
});

describe("agent.mcp.json whose servers stand elsewhere than under mcpServers", () => {
  const server = { a: { url: "http://a" } };
  it.each([
    ["servers", { servers: server }],
    ["mcp_servers", { mcp_servers: server }],
    ["a", server],
  ])("is broken, and the hint names %s", (key, json) => {
    expect(() => parse({}, { mcp: JSON.stringify(json) })).toThrow(
      `agent.mcp.json: ${key} is not known; the servers, by name, belong under "mcpServers"`,
    );
  });
});

it("a schema that is nested deeper than 24 levels is refused", () => {
  let schema: object = {};
  for (let level = 0; level < 12; level++) schema = { properties: { a: schema } };
  expect(() => parse({ parameters_schema: schema })).toThrow("parameters_schema: nested more than 24 levels");
});
