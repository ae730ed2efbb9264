import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { claudeConfig } from "../../../../executors/claude-code/config.ts";
import { conversationOf } from "../../../../executors/claude-code/conversation.ts";
import { queryOptions } from "../../../../executors/claude-code/options.ts";
import { loadSdk } from "../../../../executors/claude-code/sdk.ts";
import { loadEntry, rosterDirs } from "../../../../executors/lib/roster/load-roster.ts";
import { parseInvocation } from "../../../../lib/invocation.ts";

let dir: string;
beforeEach(() => (dir = mkdtempSync(join(tmpdir(), "claude-code-"))));
afterEach(() => rmSync(dir, { recursive: true, force: true }));

describe("executor_config", () => {
  it("has defaults with which an unattended agent can work", () => {
    const { permissionMode, settingSources, allowedTools } = claudeConfig({});
    expect({ permissionMode, settingSources }).toEqual({ permissionMode: "dontAsk", settingSources: ["project"] });
    expect(allowedTools).toContain("Bash");
  });

  it.each([
    [{ modell: "x" }, '"modell" of config is not known; known: model,'],
    [{ model: "" }, '"model" of config must be a string that is not empty, not ""'],
    [{ permission_mode: "yolo" }, '"permission_mode" of config must be one of dontAsk, acceptEdits,'],
    [{ setting_sources: ["all"] }, '"setting_sources" of config must be a list of user, project, local, not ["all"]'],
    [{ max_turns: 0 }, '"max_turns" of config must be a whole number from 1, not 0'],
    [{ max_budget_usd: -1 }, '"max_budget_usd" of config must be a number above 0, not -1'],
    [{ output_schema: [] }, '"output_schema" of config must be an object, not []'],
    [{ fork_on_resume: "no" }, '"fork_on_resume" of config must be true or false, not "no"'],
  ])("is refused with the key, the value and what belongs there: %j", (config, message) => {
    expect(() => claudeConfig(config)).toThrow(expect.objectContaining({ reason: "BAD_CONFIG" }));
    expect(() => claudeConfig(config)).toThrow(message);
  });
});

describe("a conversation", () => {
  const id = "a205496b-b9e5-4488-b771-a886cb816aa1";
  const take = (mode: "start" | "resume", known?: string, fork = false) =>
    conversationOf({ mode, executor_session_id: known }, dir, fork, () => "new");
  const transcriptOf = (name: string) => {
    mkdirSync(join(dir, "projects/-work"), { recursive: true });
    writeFileSync(join(dir, "projects/-work", `${name}.jsonl`), "");
  };

  it("begins under an id of ours", () => {
    expect(take("start")).toEqual({ id: "new", fork: false });
  });

  it("is continued under its id, or in a copy", () => {
    transcriptOf(id);
    expect(take("resume", id)).toEqual({ id, resume: id, fork: false });
    expect(take("resume", id, true)).toEqual({ id: "new", resume: id, fork: true });
  });

  it("begins under the id that was said, when its first run was killed before the agent wrote anything", () => {
    expect(take("resume", id)).toEqual({ id, fork: false });
  });

  it("that this folder does not have, and others, is asked for: the agent says that it is unknown", () => {
    transcriptOf("00000000-0000-4000-8000-000000000000");
    expect(take("resume", id)).toEqual({ id, resume: id, fork: false });
  });
});

it("the options hold no secret that a list of processes would show, and the orchestrator's tools at once", () => {
  const url = "http://127.0.0.1:1/capability";
  const invocation = parseInvocation(
    JSON.stringify({
      ...{ schema_version: "2.0", mode: "start", session_id: "ses_1", prompt: "p", project_dir: "/", metadata: {} },
      agent_blueprint: { name: "a", system_prompt: "be brief", mcp_servers: {} },
    }),
  );
  const headers = { Authorization: "Bearer token" };
  const options = queryOptions({
    ...{ invocation, config: claudeConfig({ max_retries: 2 }), entry: loadEntry("claude", rosterDirs({ HOME: dir })) },
    ...{ home: { dir, env: { CLAUDE_CONFIG_DIR: dir } }, conversation: { id: "c", fork: false } },
    servers: {
      orchestrator: { type: "http", url, headers },
      files: { type: "stdio", command: "x", args: [], env: {} },
    },
    ...{ env: { AGENT_ORCHESTRATOR_MCP_URL: url }, abort: new AbortController(), stderr: () => undefined },
  });
  const { env, abortController, ...rest } = options;
  expect(abortController).toBeInstanceOf(AbortController);
  expect(JSON.stringify(rest)).not.toMatch(/capability|token/);
  expect(env).toMatchObject({ CLAUDE_CONFIG_DIR: dir, CLAUDE_CODE_MAX_RETRIES: "2" });
  expect(rest).toMatchObject({ sessionId: "c", strictMcpConfig: true, systemPrompt: { append: "be brief" } });
  const file = join(dir, "mcp-servers.json");
  expect(statSync(file).mode & 0o777).toBe(0o600);
  const { mcpServers } = JSON.parse(readFileSync(file, "utf8"));
  expect(mcpServers.orchestrator).toEqual({ type: "http", url, headers, alwaysLoad: true });
  expect(mcpServers.files).not.toHaveProperty("alwaysLoad");
});

describe("the SDK", () => {
  const pack = (name: string, sdk: string) => {
    mkdirSync(join(dir, name), { recursive: true });
    writeFileSync(join(dir, name, "package.json"), '{"version":"9.9.9","main":"sdk.mjs","type":"module"}');
    writeFileSync(join(dir, name, "sdk.mjs"), sdk);
    return join(dir, name);
  };

  it("is that of the first place that has one", async () => {
    const places = [join(dir, "nowhere"), pack("a", "export function query() {}"), pack("b", "throw new Error('b')")];
    expect(await loadSdk(places, "npm i")).toMatchObject({ version: "9.9.9" });
  });

  it.each([
    ["is nowhere", [], "AGENT_NOT_INSTALLED", /not installed; install it: npm i/],
    [
      "cannot be loaded",
      ["throw new Error('broken')"],
      "AGENT_VERSION",
      /9\.9\.9 in .* cannot be used: broken; install it: npm i/,
    ],
    ["is another", ["export const other = 1"], "AGENT_VERSION", /it has no query\(\)/],
  ])("that %s is an error with the command that installs it", async (_, sdks, reason, message) => {
    const places = sdks.map((sdk, i) => pack(`p${i}`, sdk));
    await expect(loadSdk(places, "npm i")).rejects.toMatchObject({ reason, message: expect.stringMatching(message) });
  });
});
