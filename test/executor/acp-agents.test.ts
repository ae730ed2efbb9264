import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { startFakeOrchestrator } from "../../conformance/orchestrator.ts";
import type { FakeOrchestrator } from "../../conformance/orchestrator.ts";
import { installedProgram } from "../../executors/lib/roster/find-program.ts";
import { loadEntry, rosterDirs } from "../../executors/lib/roster/load-roster.ts";
import { startModelStub } from "../support/model-stub/index.ts";
import type { ModelStub } from "../support/model-stub/index.ts";
import { until } from "../support/until.ts";
import { ACP, eventsIn, eventsOf, sessionOf, untilSaid } from "./acp-support.ts";
import { invocationOf, isAlive, killStarted, start } from "./executors-support.ts";
import type { Started } from "./executors-support.ts";

/*
 * Real agents over ACP against the scripted model server. They are looked for in AGENT_RUNNER_AGENTS_DIR alone, so that nobody's
 * own installation is tested by surprise. ACP_AGENTS names which, with commas.
 */

const { AGENT_RUNNER_AGENTS_DIR: agentsDir = "", ACP_AGENTS = "copilot,gemini" } = process.env;

/** What an agent needs besides an address, a key and a model. */
const MORE: Readonly<Record<string, Readonly<Record<string, string>>>> = { copilot: { COPILOT_OFFLINE: "true" } };

let stub: ModelStub;
let orchestrator: FakeOrchestrator;
let dir: string;

beforeAll(async () => {
  stub = await startModelStub();
  orchestrator = await startFakeOrchestrator();
});

afterAll(async () => {
  await stub.close();
  await orchestrator.close();
});

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "ao-agents-"));
  for (const name of ["home", "project", "elsewhere"]) mkdirSync(join(dir, name));
});

afterEach(() => {
  killStarted();
  rmSync(dir, { recursive: true });
});

function isInstalled(agent: string): boolean {
  const entry = loadEntry(agent, rosterDirs({ HOME: "/nonexistent" }));
  if (agentsDir !== "" && installedProgram(entry, { AGENT_RUNNER_AGENTS_DIR: agentsDir }) !== undefined) return true;
  const why = agentsDir === "" ? "AGENT_RUNNER_AGENTS_DIR is not set" : `it is not installed in ${agentsDir}`;
  process.stderr.write(`${agent} over ACP is not tested: ${why}\n`);
  return false;
}

function run(agent: string, prompt: string, invocation: object = {}, cwd = "project"): Started {
  const { endpoint } = loadEntry(agent, rosterDirs({ HOME: "/nonexistent" }));
  const mcp_servers = { web: { type: "http", url: orchestrator.blueprintUrl, headers: { "X-Of-Blueprint": "yes" } } };
  const agent_blueprint = { name: "b", system_prompt: "You are tested.", mcp_servers };
  const document = { agent_blueprint, executor_config: { agent }, project_dir: join(dir, "project"), ...invocation };
  return start([ACP], invocationOf(prompt, document), {
    cwd: join(dir, cwd),
    env: {
      HOME: join(dir, "home"),
      AGENT_SESSION_DIR: join(dir, "session"),
      AGENT_RUNNER_AGENTS_DIR: agentsDir,
      AGENT_ORCHESTRATOR_MCP_URL: orchestrator.orchestratorUrl,
      ...stub.env({ urls: endpoint.url === undefined ? [] : [endpoint.url], keys: endpoint.keys.slice(0, 1) }),
      ...(endpoint.model !== undefined && { [endpoint.model]: "stub-model" }),
      ...MORE[agent],
    },
  });
}

async function ended(started: Started) {
  const { code, stdout, stderr } = await started.ended;
  return { code, stderr, events: eventsIn(stdout) };
}

describe.each(ACP_AGENTS.split(","))("%s over ACP", (agent) => {
  const real = it.skipIf(!isInstalled(agent));

  real("calls tools, answers, and is resumed in the same conversation wherever the run is", async () => {
    const first = await ended(run(agent, "First. [[bash:echo hi-$((40+2)); mcp; text:ONE]]"));
    expect(first).toMatchObject({ code: 0 });
    expect(first.events.at(-1)).toEqual({ type: "result", text: "ONE" });
    const tools = eventsOf(first.events, "tool");
    expect(new Set(tools.map(({ tool_call_id }) => tool_call_id)).size).toBe(2);
    expect(JSON.stringify(tools.at(-1)?.["output"])).toContain("ses_check_child");
    const [call] = orchestrator.calls.slice(-1);
    expect(call?.headers["x-agent-session-id"]).toBe("ses_1");
    expect(orchestrator.visits.at(-1)?.["x-of-blueprint"]).toBe("yes");
    // Twice, and at once: some agents keep one record for all that is resumed within a minute.
    const resume = { mode: "resume", executor_session_id: sessionOf(first) };
    for (const answer of ["TWO", "THREE"]) {
      const next = await ended(run(agent, `Next. [[text:${answer}]]`, resume, "elsewhere"));
      expect(next).toMatchObject({ code: 0 });
      expect(sessionOf(next)).toBe(sessionOf(first));
      expect(eventsOf(next.events, "message")).toEqual([{ role: "assistant", text: answer }]);
    }
    const texts =
      stub.requests
        .at(-1)
        ?.turns.flatMap((turn) => turn.texts)
        .join("\n") ?? "";
    for (const said of ["You are tested.", "First.", "ONE", "TWO"]) expect(texts).toContain(said);
    expect(readdirSync(join(dir, "home"))).toEqual([]);
  });

  real("fails by its name when the provider refuses the key, and when it does not know a conversation", async () => {
    const refused = await ended(run(agent, "[[err:401]]"));
    expect(refused.stderr).toContain("acp: NOT_LOGGED_IN: ");
    expect(refused.code).toBe(75);
    expect(eventsOf(refused.events, "result")).toEqual([]);
    const unknown = { mode: "resume", executor_session_id: "11111111-1111-4111-8111-111111111111" };
    const lost = await ended(run(agent, "[[text:NO]]", unknown));
    expect(lost.stderr).toContain("acp: UNKNOWN_SESSION: ");
    expect(lost.code).toBe(1);
  });

  real("ends when it is stopped, with its tools asked to end", async () => {
    const before = stub.requests.length;
    const started = run(agent, "[[hang]]");
    await untilSaid(started, '"session"');
    await until(() => stub.requests.length > before, "the model's request");
    process.kill(-started.pid, "SIGTERM");
    const { code, stderr } = await ended(started);
    expect(stderr).toContain("acp: AGENT_FAILED: stopped before its end");
    expect(code).toBe(1);
    await until(() => !isAlive(-started.pid), "the end of its group");
  });
});
