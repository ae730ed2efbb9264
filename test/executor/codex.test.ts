import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import type { Server } from "node:http";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { agentLines } from "../support/agent-lines.ts";
import { inRepository } from "../support/paths.ts";
import { killStarted } from "./executors-support.ts";
import type { Outcome, Wish } from "./stub-cli.ts";
import { StubCli, answering, blueprint, serversWithSecrets } from "./stub-cli.ts";

const CODEX = inRepository("executors/codex/ao-codex-exec");

let cli: StubCli;
let server: Server;
let mcpUrl: string;

beforeEach(async () => {
  cli = new StubCli();
  cli.says(agentLines("codex"));
  ({ server, url: mcpUrl } = await answering());
  mcpUrl += "/mcp/capability-secret";
});

afterEach(() => {
  killStarted();
  cli.remove();
  server.close();
  server.closeAllConnections();
});

function run({ config = {}, change = {}, env = {}, prompt }: Wish = {}): Promise<Outcome> {
  const executor_config = { program: cli.program, ...config };
  return cli.run(CODEX, { executor_config, ...change }, { OPENAI_API_KEY: "key-secret", ...env }, prompt);
}

const configToml = (): string => readFileSync(join(cli.session, "home", "config.toml"), "utf8");

const THREAD = "01a21472-4899-72c3-91e8-dc7cfba6d3df";

describe("codex", () => {
  it("starts it with everything secret in a private file, and says what it does", async () => {
    const { code, events } = await run({
      change: blueprint({ system_prompt: 'Say "hi"\nto\u007f all.', mcp_servers: serversWithSecrets(mcpUrl) }),
      config: { model: "gpt", max_retries: 1 },
      env: { OPENAI_BASE_URL: "http://127.0.0.1:9/v1", AGENT_ORCHESTRATOR_MCP_URL: mcpUrl },
      prompt: "--help",
    });
    expect(code).toBe(0);
    expect(cli.argv).toEqual([
      "exec",
      "--json",
      "--skip-git-repo-check",
      "--dangerously-bypass-approvals-and-sandbox",
      "-",
    ]);
    expect(cli.stdin).toBe("--help");
    expect(cli.env["CODEX_HOME"]).toBe(join(cli.session, "home"));
    expect(statSync(join(cli.session, "home", "config.toml")).mode & 0o777).toBe(0o600);
    expect(configToml()).toBe(
      [
        'model = "gpt"',
        String.raw`developer_instructions = "Say \"hi\"\nto\u007f all."`,
        'model_provider = "endpoint"',
        "check_for_update_on_startup = false",
        "",
        "[model_providers.endpoint]",
        'name = "endpoint"',
        'base_url = "http://127.0.0.1:9/v1"',
        'env_key = "OPENAI_API_KEY"',
        'wire_api = "responses"',
        "request_max_retries = 0",
        "stream_max_retries = 1",
        "",
        "[mcp_servers.orchestrator]",
        `url = "${mcpUrl}"`,
        'http_headers = { X-Agent-Session-Id = "ses_1", Authorization = "Bearer header-secret" }',
        "required = true",
        "startup_timeout_sec = 30",
        'default_tools_approval_mode = "approve"',
        "",
      ].join("\n"),
    );
    expect(events.map(({ type }) => type)).toEqual(["session", "status", "tool", "tool", "message", "usage", "result"]);
    expect(events[0]).toMatchObject({ executor_session_id: THREAD });
    expect(events.at(-1)).toEqual({ type: "result", text: "DONE1" });
    expect(existsSync(join(cli.home, ".codex"))).toBe(false);
  });

  it("resumes a thread, and takes what its earlier runs used off its usage", async () => {
    expect((await run()).of("usage").at(-1)).toEqual({ type: "usage", input_tokens: 222, output_tokens: 44 });
    cli.says(
      agentLines("codex").map((line) =>
        line.replace('"input_tokens":222', '"input_tokens":333').replace(":44,", ":66,"),
      ),
    );
    const { of } = await run({ change: { mode: "resume", executor_session_id: THREAD } });
    expect(cli.argv.slice(-3)).toEqual(["resume", THREAD, "-"]);
    expect(of("usage").at(-1)).toEqual({ type: "usage", input_tokens: 111, output_tokens: 22 });
    expect(of("session")).toHaveLength(1);
  });

  it("names a thread that is not there", async () => {
    cli.says([], "echo 'Error: thread/resume failed: no rollout found for thread id 0' >&2; exit 1");
    const { code, stderr } = await run({ change: { mode: "resume", executor_session_id: "0" } });
    expect(stderr).toContain("codex: UNKNOWN_SESSION: ");
    expect(code).toBe(1);
    const flag = await run({ change: { mode: "resume", executor_session_id: "--last" } });
    expect(flag.stderr).toContain('UNKNOWN_SESSION: "--last" is no id');
  });

  it("has a failed turn for its failure, and retries for what it waits for", async () => {
    cli.says(agentLines("codex-401"), "exit 1");
    const { code, stderr, of } = await run();
    expect({ code, stderr }).toMatchObject({
      code: 75,
      stderr: expect.stringContaining("codex: NOT_LOGGED_IN: unexpected status 401"),
    });
    expect(of("status")[0]?.["text"]).toMatch(/^Reconnecting/);
  });

  it("makes the schema strict, and takes out what only that had to allow", async () => {
    const output_schema = {
      type: "object",
      properties: {
        a: { type: "number" },
        b: { type: "string" },
        list: { type: "array", items: { $ref: "#/$defs/one" } },
      },
      required: ["a"],
      $defs: { one: { type: "object", properties: { c: { type: "string" } } } },
    };
    const answer = JSON.stringify({ a: 1, b: null, list: [{ c: null }, { c: "x" }] });
    cli.says([
      { type: "thread.started", thread_id: THREAD },
      { type: "item.completed", item: { id: "i", type: "agent_message", text: answer } },
      { type: "turn.completed", usage: {} },
    ]);
    const { of } = await run({ config: { output_schema } });
    const file = cli.argv[cli.argv.indexOf("--output-schema") + 1] ?? "";
    const orNull = (schema: object) => ({ anyOf: [schema, { type: "null" }] });
    expect(JSON.parse(readFileSync(file, "utf8"))).toEqual({
      type: "object",
      properties: {
        a: { type: "number" },
        b: orNull({ type: "string" }),
        list: orNull({ type: "array", items: { $ref: "#/$defs/one" } }),
      },
      required: ["a", "b", "list"],
      additionalProperties: false,
      $defs: {
        one: {
          type: "object",
          properties: { c: orNull({ type: "string" }) },
          required: ["c"],
          additionalProperties: false,
        },
      },
    });
    expect(of("result")).toEqual([{ type: "result", text: answer, data: { a: 1, list: [{}, { c: "x" }] } }]);
  });

  it.each<[string, Wish, number, string]>([
    [
      "a schema of something else",
      { config: { output_schema: { type: "string" } } },
      1,
      'OUTPUT_SCHEMA: output_schema must be of "type": "object"',
    ],
    [
      "a schema that is open",
      {
        config: {
          output_schema: { type: "object", properties: { a: { type: "object", additionalProperties: true } } },
        },
      },
      1,
      "OUTPUT_SCHEMA: output_schema.properties.a.additionalProperties must be false",
    ],
    [
      "a schema with oneOf",
      { config: { output_schema: { type: "object", oneOf: [] } } },
      1,
      "OUTPUT_SCHEMA: output_schema.oneOf cannot be part",
    ],
    [
      "an answer without the data",
      { config: { output_schema: { type: "object" } } },
      1,
      'OUTPUT_SCHEMA: Codex was asked for a JSON object by output_schema, and answered "DONE1"',
    ],
    ["an unknown key", { config: { max_turns: 1 } }, 2, 'BAD_CONFIG: "max_turns" of config is not known'],
    [
      "a wrong mode",
      { config: { permission_mode: "yolo" } },
      2,
      '"permission_mode" of config must be one of full-access',
    ],
    ["no key", { env: { OPENAI_API_KEY: "" } }, 75, "NOT_LOGGED_IN: Codex has no key and no login"],
    [
      "a prompt that is too long",
      { prompt: "x".repeat(1_048_577) },
      1,
      "LIMIT_REACHED: the prompt has 1048577 characters",
    ],
    [
      "a server that is down",
      { change: blueprint({ mcp_servers: { db: { type: "http", url: "http://127.0.0.1:1/" } } }) },
      75,
      "MCP_SERVER_FAILED: MCP servers of the run do not answer: db",
    ],
  ])("says what is wrong with %s", async (_, wish, exitCode, message) => {
    const { code, stderr } = await run(wish);
    expect(stderr).toContain(message);
    expect(code).toBe(exitCode);
  });

  it("takes a prompt of as many characters as Codex does, whatever their bytes are", async () => {
    const { code } = await run({ prompt: "ü".repeat(1_048_576) });
    expect(code).toBe(0);
    expect(cli.stdin).toHaveLength(1_048_576);
  });

  it("has other permissions where the profile wants them", async () => {
    await run({ config: { permission_mode: "workspace-write", add_dirs: ["/data"] } });
    expect(cli.argv).toEqual(["exec", "--json", "--skip-git-repo-check", "-"]);
    expect(configToml()).toContain('sandbox_mode = "workspace-write"\napproval_policy = "never"');
    expect(configToml()).toContain('[sandbox_workspace_write]\nnetwork_access = true\nwritable_roots = ["/data"]');
  });

  it("uses the user's login by a link, and a key only where there is none", async () => {
    await run();
    expect(cli.env["CODEX_API_KEY"]).toBe("key-secret");
    mkdirSync(join(cli.home, ".codex"));
    writeFileSync(join(cli.home, ".codex", "auth.json"), "{}");
    await run();
    expect(cli.env["CODEX_API_KEY"]).toBeUndefined();
    expect(readFileSync(join(cli.session, "home", "auth.json"), "utf8")).toBe("{}");
  });
});
