import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { startFakeOrchestrator } from "../../conformance/orchestrator.ts";
import type { FakeOrchestrator } from "../../conformance/orchestrator.ts";
import { installCommand, installedProgram } from "../../executors/lib/roster/find-program.ts";
import { inRepository } from "../support/paths.ts";
import { startModelStub } from "../support/model-stub/index.ts";
import type { ModelStub } from "../support/model-stub/index.ts";
import { until } from "../support/until.ts";
import { killStarted } from "./executors-support.ts";
import type { Outcome, Wish } from "./stub-cli.ts";
import { StubCli, blueprint, entryOf } from "./stub-cli.ts";

const CODEX = inRepository("executors/codex/ao-codex-exec");

/** Where tests look: the folder that is named, never the user's PATH. */
const env = { HOME: homedir(), AGENT_RUNNER_AGENTS_DIR: process.env["AGENT_RUNNER_AGENTS_DIR"] ?? "/nonexistent" };
const installed = installedProgram(entryOf("codex"), env);
if (installed === undefined) {
  process.stdout.write(
    `codex-installed: skipped, because Codex is not in AGENT_RUNNER_AGENTS_DIR; ${installCommand(entryOf("codex"), env)}\n`,
  );
}

describe.skipIf(installed === undefined)("the real Codex", () => {
  let model: ModelStub;
  let orchestrator: FakeOrchestrator;
  let cli: StubCli;

  beforeAll(async () => {
    [model, orchestrator] = await Promise.all([startModelStub(), startFakeOrchestrator()]);
  });

  afterAll(async () => {
    await Promise.all([model.close(), orchestrator.close()]);
  });

  beforeEach(() => {
    cli = new StubCli();
  });

  afterEach(() => {
    killStarted();
    cli.remove();
  });

  const wishOf = (config: object, change: object): [object, Record<string, string>] => [
    { executor_config: { model: "stub", max_retries: 1, ...config }, ...change },
    { ...model.env(), ...env, HOME: cli.home, AGENT_ORCHESTRATOR_MCP_URL: orchestrator.orchestratorUrl },
  ];

  function run(prompt: string, { config = {}, change = {} }: Wish = {}): Promise<Outcome> {
    const [wish, variables] = wishOf(config, change);
    return cli.run(CODEX, wish, variables, prompt);
  }

  it("calls a tool of the orchestrator, and is resumed with its history", async () => {
    const headers = { "X-Agent-Session-Id": "ses_1" };
    const servers = { orchestrator: { type: "http", url: orchestrator.orchestratorUrl, headers } };
    const change = blueprint({ system_prompt: "You are POLITE.", mcp_servers: servers });
    const first = await run("go [[mcp; bash; text:ONE]]", { change });
    expect(first).toMatchObject({ code: 0 });
    expect(first.of("result")).toEqual([{ type: "result", text: "ONE" }]);
    expect(first.of("tool").map((event) => event["name"])).toContain("orchestrator.start_agent_session");
    expect(orchestrator.calls.at(-1)).toMatchObject({
      tool: "start_agent_session",
      headers: { "x-agent-session-id": "ses_1" },
    });
    expect(JSON.stringify(model.requests.at(-1))).toContain("You are POLITE.");
    const used = first.of("usage").at(-1);
    const id = first.of("session")[0]?.["executor_session_id"];
    const second = await run("more [[text:TWO]]", { change: { ...change, mode: "resume", executor_session_id: id } });
    expect(second.of("result")).toEqual([{ type: "result", text: "TWO" }]);
    expect(JSON.stringify(model.requests.at(-1)?.turns)).toContain("go [[mcp; bash; text:ONE]]");
    expect(Number(second.of("usage").at(-1)?.["input_tokens"]) * 3).toBe(used?.["input_tokens"]);
    expect(existsSync(join(cli.home, ".codex"))).toBe(false);
  });

  it("has data that fit the schema", async () => {
    const output_schema = {
      type: "object",
      properties: { answer: { type: "number" }, why: { type: "string" } },
      required: ["answer"],
    };
    const { of } = await run('go [[structured:{"answer":42,"why":null}]]', { config: { output_schema } });
    expect(of("result")[0]?.["data"]).toEqual({ answer: 42 });
  });

  it.each([
    ["err:401", 75, "NOT_LOGGED_IN"],
    ["err:429", 75, "RATE_LIMITED"],
    ["err:529", 75, "MODEL_UNREACHABLE"],
    ["drop", 75, "MODEL_UNREACHABLE"],
  ])("names what the provider answers: %s", async (step, exitCode, reason) => {
    const { code, stderr } = await run(`go [[${step}]]`);
    expect(stderr).toContain(`codex: ${reason}: `);
    expect(code).toBe(exitCode);
  });

  it("names a thread that it does not know", async () => {
    const change = { mode: "resume", executor_session_id: "01a21472-0000-72c3-91e8-dc7cfba6d3df" };
    const { code, stderr } = await run("go", { change });
    expect(stderr).toContain("codex: UNKNOWN_SESSION: ");
    expect(code).toBe(1);
  });

  it("ends when it is stopped, and can be resumed then", async () => {
    const [wish, variables] = wishOf({}, {});
    const requests = model.requests.length;
    const started = cli.start(CODEX, wish, variables, "go [[hang]]");
    await until(() => model.requests.length > requests, "it asks the model");
    process.kill(-started.pid, "SIGTERM");
    const { code, stdout, stderr } = await started.ended;
    expect({ code, stderr }).toMatchObject({ code: 1, stderr: expect.stringContaining("stopped before its end") });
    const { executor_session_id } = JSON.parse(stdout.split("\n")[0] ?? "") as Record<string, string>;
    const again = await run("go on [[text:AGAIN]]", { change: { mode: "resume", executor_session_id } });
    expect(again.of("result")).toEqual([{ type: "result", text: "AGAIN" }]);
  });
});
