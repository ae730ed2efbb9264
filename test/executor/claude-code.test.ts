import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { inRepository } from "../support/paths.ts";

/*
 * The executor before an SDK that says what its prompt holds, as JSON lines. The real one is held to the contract in test/e2e/agents.
 */

const PROGRAM = inRepository("executors/claude-code/ao-claude-code-exec");

const SDK = `export async function* query({ prompt, options }) {
  for (const line of prompt.split("\\n")) {
    if (line === "throw") throw new Error("Claude Code process exited with code 1");
    if (line === "options") yield { type: "assistant", message: { model: "m", content: [{ type: "text", text: JSON.stringify(options) }] } };
    else yield JSON.parse(line);
  }
}`;

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "claude-code-"));
  for (const name of ["home", "project", "session"]) mkdirSync(join(dir, name));
  install(SDK);
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

function install(sdk: string): void {
  const place = join(dir, "agents/claude/node_modules/@anthropic-ai/claude-agent-sdk");
  mkdirSync(place, { recursive: true });
  writeFileSync(join(place, "package.json"), '{"version":"0.3.331","main":"sdk.mjs"}');
  writeFileSync(join(place, "sdk.mjs"), sdk);
}

interface Order {
  readonly invocation?: object;
  readonly env?: Record<string, string | undefined>;
}

/** Runs it to its end, in `project`. */
async function run(lines: readonly (string | object)[], { invocation, env }: Order = {}) {
  const prompt = lines.map((line) => (typeof line === "string" ? line : JSON.stringify(line))).join("\n");
  const document = {
    schema_version: "2.0",
    mode: "start",
    session_id: "ses_1",
    prompt,
    project_dir: join(dir, "project"),
  };
  const child = spawn(PROGRAM, {
    cwd: join(dir, "project"),
    env: {
      ...{ PATH: `${dirname(process.execPath)}:${process.env["PATH"]}`, HOME: join(dir, "home") },
      ...{
        AGENT_SESSION_DIR: join(dir, "session"),
        AGENT_RUNNER_AGENTS_DIR: join(dir, "agents"),
        ANTHROPIC_API_KEY: "k",
      },
      ...env,
    },
  });
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (chunk) => (stdout += chunk));
  child.stderr.on("data", (chunk) => (stderr += chunk));
  const code = new Promise<number | null>((resolve) => child.once("close", resolve));
  child.stdin.end(JSON.stringify({ metadata: {}, ...document, ...invocation }));
  const exitCode = await code;
  const events = stdout
    .split("\n")
    .filter(Boolean)
    .map((line): any => JSON.parse(line));
  return { exitCode, events, last: stderr.trim().split("\n").at(-1) };
}

const result = (more: object) => ({ type: "result", subtype: "success", is_error: false, result: "done", ...more });
const answer = { type: "assistant", message: { model: "m", content: [{ type: "text", text: "I think." }] } };

it("says its session before all, then what goes on, and its result last; the user's home is as it was", async () => {
  const { exitCode, events } = await run([answer, result({ total_cost_usd: 0.5 })]);
  expect(exitCode).toBe(0);
  expect(events).toMatchObject([
    { type: "session", executor_session_id: expect.stringMatching(/^[0-9a-f-]{36}$/) },
    { type: "message", role: "assistant", text: "I think." },
    { type: "usage", cost_usd: 0.5 },
    { type: "result", text: "done" },
  ]);
  expect(readdirSync(join(dir, "home"))).toEqual([]);
});

it("reports the money of each run alone, though the agent reports that of the conversation", async () => {
  const first = await run([answer, result({ total_cost_usd: 0.5 })]);
  const known = first.events[0].executor_session_id;
  const projects = join(dir, "session/home/projects/-p");
  mkdirSync(projects, { recursive: true });
  writeFileSync(join(projects, `${known}.jsonl`), "");
  const resume = { invocation: { mode: "resume", executor_session_id: known } };
  const second = await run([answer, result({ total_cost_usd: 0.75 })], resume);
  expect(second.events).toContainEqual({ type: "usage", cost_usd: 0.25 });
  expect(second.events[0]).toEqual({ type: "session", executor_session_id: known });
  // Notes that a full disk has cut off: the sum is then all that is known.
  writeFileSync(join(dir, "session/state.json"), '{"cwd":');
  expect((await run([answer, result({ total_cost_usd: 1 })], resume)).events).toContainEqual({
    type: "usage",
    cost_usd: 1,
  });
});

it("hands the blueprint's schema on, and its prompt; what the profile says comes first", async () => {
  const schema = { type: "object" };
  const agent_blueprint = { name: "a", system_prompt: "be brief", mcp_servers: {}, output_schema: schema };
  const { events } = await run(["options", result({})], { invocation: { agent_blueprint } });
  const [, { text }] = events;
  expect(JSON.parse(text)).toMatchObject({
    outputFormat: { type: "json_schema", schema },
    systemPrompt: { append: "be brief" },
    permissionMode: "dontAsk",
  });
});

describe("wrong input has its named error", () => {
  const failed = (text: string, more: object = {}) => result({ is_error: true, result: text, ...more });
  const server = { type: "http", url: "http://127.0.0.1:9/", headers: {} };

  it.each<[string, number, RegExp, readonly (string | object)[], Order]>([
    [
      "not logged in",
      75,
      /^claude-code: NOT_LOGGED_IN: Claude Code has no key and no login/,
      [],
      { env: { ANTHROPIC_API_KEY: undefined } },
    ],
    ["a key that is refused", 75, /^claude-code: NOT_LOGGED_IN: .*401/, [failed("API Error: 401 no")], {}],
    [
      "an MCP server that is down",
      75,
      /^claude-code: MCP_SERVER_FAILED: .*files \(connect ECONNREFUSED/,
      [answer, result({})],
      {
        invocation: { agent_blueprint: { name: "a", system_prompt: "", mcp_servers: { files: server } } },
      },
    ],
    [
      "an MCP server that the agent cannot use",
      75,
      /MCP_SERVER_FAILED: .*files \(failed\)/,
      [{ type: "system", subtype: "init", session_id: "s", mcp_servers: [{ name: "files", status: "failed" }] }],
      {},
    ],
    ["a model that refuses", 1, /MODEL_REFUSED: .*403/, [failed("API Error: 403 policy")], {}],
    ["a used up quota", 75, /RATE_LIMITED: /, [failed("Usage limit reached")], {}],
    [
      "an unknown session",
      1,
      /UNKNOWN_SESSION: .*start a new session/,
      [failed("", { subtype: "error_during_execution", errors: ["No conversation found with session ID: x"] })],
      { invocation: { mode: "resume", executor_session_id: "x" } },
    ],
    [
      "a schema that is not met",
      1,
      /OUTPUT_SCHEMA: /,
      [failed("", { subtype: "error_max_structured_output_retries" })],
      {},
    ],
    [
      "a configuration that nobody knows",
      2,
      /BAD_CONFIG: "modell" of config is not known/,
      [],
      {
        invocation: { executor_config: { modell: "x" } },
      },
    ],
    ["done, without a word of a model", 1, /NO_ANSWER: /, [result({})], {}],
    [
      "an agent that ends by itself",
      1,
      /AGENT_FAILED: claude-code exited with code 1; .*process exited/,
      ["throw"],
      {},
    ],
  ])("%s: exit code %i", async (_, exitCode, last, lines, order) => {
    const ended = await run(lines, order);
    expect({ exitCode: ended.exitCode, last: ended.last }).toEqual({ exitCode, last: expect.stringMatching(last) });
    expect(ended.events.filter(({ type }) => type === "result")).toEqual([]);
  });

  it("an agent that is not installed: exit code 75, with the command", async () => {
    rmSync(join(dir, "agents"), { recursive: true });
    const { exitCode, last } = await run([]);
    expect(exitCode).toBe(75);
    expect(last).toMatch(
      /^claude-code: AGENT_NOT_INSTALLED: .*npm install --prefix \S+agents\/claude .*claude-agent-sdk@0\.3\.331/,
    );
  });

  it("another version than can be driven: exit code 75", async () => {
    install("export const ask = 1;");
    const { exitCode, last } = await run([]);
    expect([exitCode, last]).toEqual([75, expect.stringMatching(/AGENT_VERSION: .*0\.3\.331.*it has no query\(\)/)]);
  });

  it("a directory that is gone: exit code 75", async () => {
    const gone = join(dir, "gone");
    mkdirSync(gone);
    const shell = `rmdir "$PWD" && exec "${PROGRAM}"`;
    const document = {
      schema_version: "2.0",
      mode: "start",
      session_id: "s",
      prompt: "p",
      project_dir: gone,
      metadata: {},
    };
    const env = { PATH: `${dirname(process.execPath)}:${process.env["PATH"]}`, HOME: join(dir, "home") };
    const child = spawn("sh", ["-c", shell], { cwd: gone, env });
    let stderr = "";
    child.stderr.on("data", (chunk) => (stderr += chunk));
    child.stdout.resume();
    const code = new Promise<number | null>((resolve) => child.once("close", resolve));
    child.stdin.end(JSON.stringify(document));
    expect(await code).toBe(75);
    expect(stderr).toMatch(/PROJECT_DIR_GONE: the project directory does not exist any more/);
  });
});
