import { chmodSync, mkdirSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { LineSplitter } from "../../../../executors/lib/agent/line-splitter.ts";
import { mcpServersOf, orchestratorName } from "../../../../executors/lib/agent/mcp-servers.ts";
import { sessionHome } from "../../../../executors/lib/agent/session-home.ts";
import { usageAfter } from "../../../../executors/lib/agent/usage.ts";

describe("lines of an agent", () => {
  const pushAll = (splitter: LineSplitter, ...chunks: (string | Buffer)[]) =>
    chunks.flatMap((chunk) => splitter.push(Buffer.from(chunk)));

  it("are whole, wherever the pipe cut them", () => {
    const euro = Buffer.from("€");
    const splitter = new LineSplitter();
    const lines = pushAll(splitter, "a", "b\nc", Buffer.concat([euro.subarray(0, 1)]), euro.subarray(1), "\r\n\nlast");
    expect([...lines, splitter.end()]).toEqual(["ab", "c€", "", "last"]);
    expect(splitter.end()).toBeUndefined();
  });

  it("that are longer than is held are dropped and counted, and the next one is whole", () => {
    const splitter = new LineSplitter(4);
    expect(pushAll(splitter, "12345", "678\nok\n", "1234\n", "123456")).toEqual(["ok", "1234"]);
    expect(splitter.end()).toBeUndefined();
    expect(splitter.dropped).toBe(2);
  });
});

describe("usage of a run", () => {
  it.each([
    ["delta", { inputTokens: 5, outputTokens: 2 }, { inputTokens: 3 }, {}, { inputTokens: 8, outputTokens: 2 }],
    ["total", { inputTokens: 5 }, { inputTokens: 9, outputTokens: 1 }, {}, { inputTokens: 9, outputTokens: 1 }],
    ["sum", {}, { inputTokens: 9, costUsd: 3 }, { inputTokens: 4, outputTokens: 7 }, { inputTokens: 5, costUsd: 3 }],
    ["sum", {}, { inputTokens: 2 }, { inputTokens: 4 }, { inputTokens: 0 }],
    ["none", {}, { inputTokens: 2 }, {}, {}],
  ] as const)("%s: %j and then %j, after %j, is %j", (rule, soFar, report, before, expected) => {
    expect(usageAfter(rule, soFar, report, before)).toEqual(expected);
  });
});

describe("MCP servers of a run", () => {
  const env = { AGENT_ORCHESTRATOR_MCP_URL: "http://127.0.0.1:1/secret" };
  const ours = {
    type: "http" as const,
    url: env.AGENT_ORCHESTRATOR_MCP_URL,
    headers: { "X-Agent-Session-Id": "ses_1" },
  };
  const invocation = (servers: object) => ({
    session_id: "ses_1",
    agent_blueprint: {
      name: "a",
      system_prompt: "",
      mcp_servers: servers as Record<string, typeof ours>,
      output_schema: undefined,
    },
  });

  it("are the orchestrator's, without a blueprint", () => {
    expect(mcpServersOf({ session_id: "ses_1", agent_blueprint: undefined }, env)).toEqual({ orchestrator: ours });
    expect(mcpServersOf({ session_id: "ses_1", agent_blueprint: undefined }, {})).toEqual({});
  });

  it("have the orchestrator's once, whatever the blueprint calls it", () => {
    expect(mcpServersOf(invocation({ boss: ours }), env)).toEqual({ boss: ours });
    expect(orchestratorName({ boss: ours }, env)).toBe("boss");
    expect(orchestratorName({ boss: ours }, {})).toBeUndefined();
  });

  it("keep a server of the blueprint that has the orchestrator's name", () => {
    const other = { ...ours, url: "http://elsewhere" };
    expect(mcpServersOf(invocation({ orchestrator: other }), env)).toEqual({
      orchestrator: other,
      agent_orchestrator: ours,
    });
  });
});

describe("the private folder of a session", () => {
  const dir = mkdtempSync(join(tmpdir(), "session-home-"));
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  it("is the runner's, and for its owner alone even if it was not", () => {
    const given = join(dir, "given");
    mkdirSync(given, { recursive: true });
    chmodSync(given, 0o755);
    expect(sessionHome("ses_1", { AGENT_SESSION_DIR: given })).toBe(given);
    expect(statSync(given).mode & 0o777).toBe(0o700);
  });

  it("is made below XDG_STATE_HOME without a runner, and no id leads out of it", () => {
    const path = sessionHome("../../etc", { XDG_STATE_HOME: dir });
    expect(path).toBe(join(dir, "agent-runner/sessions/______etc"));
    expect(statSync(path).mode & 0o777).toBe(0o700);
  });
});
