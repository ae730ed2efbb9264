import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import type { DescMessage, MessageInitShape } from "@bufbuild/protobuf";
import { create, equals, fromJson } from "@bufbuild/protobuf";
import { Ajv2020 } from "ajv/dist/2020.js";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ExecutorInvocationSchema } from "../../gen/agentrunner/v1/executor_pb.ts";
import { InvocationError, invocationJson, parseInvocation, SCHEMA_VERSION } from "../../lib/invocation.ts";
import { BROKEN, NO_DOCUMENT, VALID } from "./invocation-broken.ts";
import { inRepository } from "../support/paths.ts";

type Init = MessageInitShape<typeof ExecutorInvocationSchema>;

const FILES = new URL("files/", import.meta.url);

const START: Init = {
  schemaVersion: SCHEMA_VERSION,
  mode: "start",
  sessionId: "ses_abc123",
  prompt: "User input text",
  projectDir: "/path/to/project",
  runId: "run_abc123",
  attempt: 1,
  sessionName: "ses_abc123",
};

const BLUEPRINT = {
  name: "worker-agent",
  systemPrompt: "You are a worker agent...",
  mcpServers: {
    orchestrator: { type: "http", url: "http://127.0.0.1:54321", headers: { "X-Agent-Session-Id": "ses_abc123" } },
  },
};

const GOLDEN: Record<string, Init> = {
  start: START,
  resume: { ...START, mode: "resume", prompt: "And now?", runId: "run_def456", executorSessionId: "test-ses_abc123" },
  "seed-000": { ...START, agentBlueprint: BLUEPRINT, runId: "", attempt: 0, sessionName: "" },
  blueprint: {
    ...START,
    agentBlueprint: {
      ...BLUEPRINT,
      mcpServers: {
        tools: { type: "stdio", command: "mcp-tools", args: ["--root", "/tmp"], env: { B: "2", A: "1" } },
        bare: { type: "stdio", command: "mcp-bare" },
        events: { type: "sse", url: "http://127.0.0.1:54322/events" },
        ...BLUEPRINT.mcpServers,
      },
    },
  },
  everything: {
    ...START,
    mode: "resume",
    agentBlueprint: {
      ...BLUEPRINT,
      outputSchema: { type: "object", required: ["answer"], properties: { b: {}, a: {} } },
    },
    metadata: { ticket: 17, nested: { z: [true, null, { b: 1, a: 0.5 }], a: "" } },
    attempt: 3,
    sessionName: "nightly report",
    executorSessionId: "claude-7f",
    executorConfig: { model: "opus", permission_mode: "plan" },
    parameters: { depth: 2, topic: "cats" },
    parentSessionId: "ses_parent",
    callback: { childSessionIds: ["ses_b", "ses_a"] },
  },
  unicode: {
    ...START,
    prompt: '„Grüße“ 👩‍💻\n\t"quoted" \\ back\u0000slash\r\n\u2028line {"type":"result"}\u007f',
    projectDir: "/tmp/mit Leerzeichen/日本",
    metadata: { "ключ\n": "значение", ["__proto__"]: "mine" },
  },
};

describe("invocationJson", () => {
  it.each(Object.keys(GOLDEN))("writes the golden file %s.json byte for byte", (name) => {
    const text = invocationJson(create(ExecutorInvocationSchema, GOLDEN[name]));
    const file = new URL(`${name}.json`, FILES);
    if (process.env["UPDATE_GOLDEN"] === "1") writeFileSync(file, text);
    expect(text).toBe(readFileSync(file, "utf8"));
  });

  it("has no golden file that nothing writes", () => {
    expect(readdirSync(FILES).sort()).toEqual(
      Object.keys(GOLDEN)
        .map((name) => `${name}.json`)
        .sort(),
    );
  });

  it("writes the document of schema 2.0 key for key, in its order", () => {
    expect(readFileSync(new URL("seed-000.json", FILES), "utf8")).toBe(
      `${JSON.stringify({
        schema_version: "2.0",
        mode: "start",
        session_id: "ses_abc123",
        prompt: "User input text",
        project_dir: "/path/to/project",
        agent_blueprint: {
          name: "worker-agent",
          system_prompt: "You are a worker agent...",
          mcp_servers: {
            orchestrator: {
              type: "http",
              url: "http://127.0.0.1:54321",
              headers: { "X-Agent-Session-Id": "ses_abc123" },
            },
          },
        },
        metadata: {},
      })}\n`,
    );
  });

  it("gives equal text for equal messages, whatever the order of their maps", () => {
    const metadata = { a: 1, b: { c: [{ d: 1, e: 2 }], f: 3 } };
    const shuffled = { b: { f: 3, c: [{ e: 2, d: 1 }] }, a: 1 };
    const text = (init: Init) => invocationJson(create(ExecutorInvocationSchema, init));
    expect(text({ ...START, metadata: shuffled })).toBe(text({ ...START, metadata }));
  });

  it("has a golden file with every field of the message", () => {
    const fields = ExecutorInvocationSchema.fields.map(({ localName }) => localName);
    expect(Object.keys(GOLDEN["everything"] ?? {}).sort()).toEqual(fields.sort());
  });

  it("loses nothing: protobuf's own JSON reader gets the same message back", () => {
    fc.assert(
      fc.property(invocations, (init) => {
        const message = create(ExecutorInvocationSchema, init);
        const text = invocationJson(message);
        expect(text.indexOf("\n")).toBe(text.length - 1);
        expect(equals(ExecutorInvocationSchema, fromJson(ExecutorInvocationSchema, JSON.parse(text)), message)).toBe(
          true,
        );
      }),
    );
  });
});

const names = fc.string({ minLength: 1 }).filter((name) => name !== "__proto__");
const map = fc.dictionary(names, fc.string());
const struct = fc.dictionary(
  names,
  fc.oneof(fc.string(), fc.integer(), fc.boolean(), fc.constant(null), fc.array(map), map),
  { minKeys: 1 },
);
const servers = fc.oneof(
  fc.record({ type: fc.constantFrom("http", "sse"), url: names, headers: map }),
  fc.record({ type: fc.constant("stdio"), command: names, args: fc.array(fc.string()), env: map }),
);
const invocations = fc.record(
  {
    schemaVersion: fc.constant(SCHEMA_VERSION),
    mode: fc.constantFrom("start", "resume"),
    sessionId: names,
    prompt: fc.string({ unit: "binary" }),
    projectDir: names,
    agentBlueprint: fc.record(
      { name: names, systemPrompt: fc.string(), mcpServers: fc.dictionary(names, servers), outputSchema: struct },
      { requiredKeys: ["name", "systemPrompt", "mcpServers"] },
    ),
    metadata: struct,
    runId: names,
    attempt: fc.integer({ min: 1, max: 2 ** 32 - 1 }),
    sessionName: names,
    executorSessionId: names,
    executorConfig: struct,
    parameters: struct,
    parentSessionId: names,
    callback: fc.record({ childSessionIds: fc.array(names) }),
  },
  { requiredKeys: ["schemaVersion", "mode", "sessionId", "prompt", "projectDir", "metadata"] },
);

/** VALID with a change, as text. */
const changed = (change: object) => JSON.stringify({ ...VALID, ...change });

const schema = JSON.parse(readFileSync(inRepository("executors/invocation.schema.json"), "utf8"));
const validate = new Ajv2020({ strict: true, strictRequired: false, allErrors: true }).compile(schema);

describe("parseInvocation", () => {
  it.each(Object.keys(GOLDEN))("reads back everything that %s.json says", (name) => {
    const text = readFileSync(new URL(`${name}.json`, FILES), "utf8");
    expect(parseInvocation(text)).toMatchObject(JSON.parse(text));
  });

  it("fills in what a document of schema 2.0 alone does not say", () => {
    expect(parseInvocation(changed({ agent_blueprint: undefined }))).toEqual({
      schema_version: "2.0",
      mode: "start",
      session_id: "ses_abc123",
      prompt: "User input text",
      project_dir: "/path/to/project",
      metadata: {},
      attempt: 1,
      session_name: "ses_abc123",
      executor_config: {},
      parameters: {},
    });
    const mcp_servers = { a: { type: "sse", url: "http://a" }, b: { type: "stdio", command: "b" } };
    const text = changed({ agent_blueprint: { ...VALID.agent_blueprint, mcp_servers } });
    expect(parseInvocation(text).agent_blueprint?.mcp_servers).toEqual({
      a: { type: "sse", url: "http://a", headers: {} },
      b: { type: "stdio", command: "b", args: [], env: {} },
    });
  });

  it("takes a later minor version and ignores fields that it does not know", () => {
    const invocation = parseInvocation(changed({ schema_version: "2.7", mood: "good" }));
    expect(invocation.schema_version).toBe("2.7");
    expect(invocation).not.toHaveProperty("mood");
  });

  it.each(BROKEN)("refuses $change, and so does the schema", ({ change, error }) => {
    expect(() => parseInvocation(changed(change))).toThrow(new InvocationError(error));
    expect(validate(JSON.parse(changed(change)))).toBe(false);
  });

  it.each(NO_DOCUMENT)("refuses the text %j", (text, error) => {
    expect(() => parseInvocation(text)).toThrow(new InvocationError(error));
  });
});

describe("invocation.schema.json", () => {
  it.each(Object.keys(GOLDEN))("takes the golden file %s.json", (name) => {
    validate(JSON.parse(readFileSync(new URL(`${name}.json`, FILES), "utf8")));
    expect(validate.errors ?? []).toEqual([]);
  });

  it("takes fields that it does not know, at every depth", () => {
    const text = changed({ mood: "good", agent_blueprint: { ...VALID.agent_blueprint, mood: "good" } });
    expect(validate(JSON.parse(text))).toBe(true);
  });

  it("has every field of the message, under its name, and no other", () => {
    expectSameFields(ExecutorInvocationSchema, schema);
  });
});

/** Compares a message with its part of the schema, and so on inwards. */
function expectSameFields(message: DescMessage, part: typeof schema): void {
  const fields = message.fields.map(({ name }) => name);
  expect(Object.keys(part.properties).sort(), message.typeName).toEqual(fields.toSorted());
  for (const field of message.fields) {
    const property = part.properties[field.name];
    expect(property.description, `${message.typeName}.${field.name}`).toMatch(/\.$/);
    if (field.message?.file !== message.file) continue;
    const inner = field.fieldKind === "map" ? schema.$defs.mcp_server : property;
    expectSameFields(field.message, inner);
  }
}
