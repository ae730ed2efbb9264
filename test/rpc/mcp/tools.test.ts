import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { once } from "node:events";
import { connect } from "node:http2";
import type { IncomingHttpHeaders } from "node:http2";
import { text } from "node:stream/consumers";
import { afterEach, describe, expect, it } from "vitest";
import { ExecutionMode } from "../../../gen/agentrunner/v1/run_pb.ts";
import { startTestCoordinator, stopTestCoordinators, tempDir } from "../../support/coordinator.ts";
import type { TestCoordinator } from "../../support/coordinator.ts";
import { ERAS, leaveMcp, McpAgent } from "../../support/mcp-client.ts";
import { RawRunner } from "../../support/raw-runner.ts";
import { until } from "../../support/until.ts";

afterEach(async () => {
  await leaveMcp();
  await stopTestCoordinators();
});

const NAMES = [
  "list_agent_blueprints",
  "start_agent_session",
  "resume_agent_session",
  "get_agent_session_status",
  "get_agent_session_result",
  "list_agent_sessions",
  "wait_for_agent_sessions",
  "stop_agent_session",
  "delete_agent_session",
];

async function person(coordinator: TestCoordinator, headers: Record<string, string> = {}): Promise<McpAgent> {
  return McpAgent.at(`${coordinator.url}/mcp`, { headers });
}

/** A runner that completes the next run with this result. */
async function completes(runner: RawRunner, text: string, data?: Record<string, string>): Promise<string> {
  const offer = await runner.take();
  await runner.ok(offer, "COMPLETED", { result: data === undefined ? { text } : { text, data } });
  return offer.runId;
}

describe.each(Object.keys(ERAS) as (keyof typeof ERAS)[])("to a client of %s the coordinator", (era) => {
  it("lists the nine tools, each with a description and a flat schema, and says that they stay as they are", async () => {
    const coordinator = await startTestCoordinator();
    const agent = await McpAgent.at(`${coordinator.url}/mcp`, { era });
    const { tools } = await agent.client.listTools();
    expect(tools.map(({ name }) => name)).toEqual(NAMES);
    for (const { description, inputSchema } of tools) {
      expect(description?.length).toBeGreaterThan(60);
      expect(inputSchema).toMatchObject({ type: "object", properties: {} });
      // Several models' APIs refuse them, and with one tool all of a client's.
      expect(JSON.stringify(inputSchema)).not.toMatch(/\$ref|\$defs|\$schema|propertyNames|anyOf|oneOf|"null"/);
    }
    expect(agent.client.getServerCapabilities()).toEqual({ tools: { listChanged: false } });
  });

  it("starts a session and answers its result when it has ended", async () => {
    const coordinator = await startTestCoordinator();
    const runner = await RawRunner.online(coordinator);
    const agent = await McpAgent.at(`${coordinator.url}/mcp`, { era });
    const [answer, runId] = await Promise.all([
      agent.call("start_agent_session", { prompt: "say hello" }),
      completes(runner, "hello", { greeting: "hello" }),
    ]);
    expect(answer).toMatchObject({
      run_id: runId,
      state: "completed",
      result_text: "hello",
      result_data: { greeting: "hello" },
    });
  });
});

describe("start_agent_session", () => {
  it("makes the run that it was asked for", async () => {
    const coordinator = await startTestCoordinator();
    const runner = await RawRunner.online(coordinator, { tags: ["gpu", "eu"], executorProfile: "p" });
    const parent = await coordinator.create({ demands: { executorProfile: "other" } });
    const agent = await person(coordinator, { "X-Agent-Session-Id": parent.sessionId });
    const answer = await agent.call("start_agent_session", {
      prompt: "do it",
      parameters: { depth: 2 },
      mode: "async_poll",
      session_name: "child",
      project_dir: "/srv/child",
      executor_profile: "p",
      tags: ["eu"],
      timeout_seconds: 90,
    });
    const offer = await runner.offer();
    expect(answer).toMatchObject({ run_id: offer.runId, state: "pending", next: expect.stringContaining("wait_for") });
    expect(await coordinator.run(offer.runId)).toMatchObject({
      sessionName: "child",
      prompt: "do it",
      parameters: { depth: 2 },
      projectDir: "/srv/child",
      parentSessionId: parent.sessionId,
      executionMode: ExecutionMode.ASYNC_POLL,
      demands: { executorProfile: "p", tags: ["eu"] },
      timeout: { seconds: 90n },
    });
  });

  it("says at once that no runner has a free slot, and leaves the run queued", async () => {
    const coordinator = await startTestCoordinator();
    const runner = await RawRunner.online(coordinator, { maxConcurrentRuns: 1 });
    await coordinator.create();
    await runner.take();
    const agent = await person(coordinator);
    const began = performance.now();
    const answer = await agent.call("start_agent_session", { prompt: "wait" });
    expect(performance.now() - began).toBeLessThan(30_000);
    expect(answer).toMatchObject({ state: "pending", next: expect.stringContaining("stop_agent_session") });
    expect(String(answer["pending_reasons"])).toContain("is full 1/1");
    expect(await coordinator.state(String(answer["run_id"]))).toBe("PENDING");
  });

  it("says why a run failed, and is no error itself", async () => {
    const coordinator = await startTestCoordinator();
    const runner = await RawRunner.online(coordinator);
    const agent = await person(coordinator);
    const started = agent.call("start_agent_session", { prompt: "fail" });
    await runner.ok(await runner.take(), "FAILED", { failure: 1, message: "exit 1: no such file" });
    expect(await started).toMatchObject({ state: "failed", failure: "executor_exit", message: "exit 1: no such file" });
  });

  it("starts nothing twice for one request_id, and another caller's is another", async () => {
    const coordinator = await startTestCoordinator();
    const parent = await coordinator.create({ demands: { executorProfile: "none" } });
    const start = { prompt: "once", mode: "async_poll", request_id: "a" };
    const agent = await person(coordinator);
    const first = await agent.call("start_agent_session", start);
    expect(await agent.call("start_agent_session", start)).toEqual(first);
    expect(await agent.refusal("start_agent_session", { ...start, prompt: "other" })).toContain("Nothing was started");
    const other = await person(coordinator, { "X-Agent-Session-Id": parent.sessionId });
    expect((await other.call("start_agent_session", start))["run_id"]).not.toBe(first["run_id"]);
  });

  it("leaves an agent at work when the client breaks the call off, and the same start again waits on for it", async () => {
    const coordinator = await startTestCoordinator();
    const runner = await RawRunner.online(coordinator);
    const agent = await person(coordinator);
    const start = { prompt: "long", request_id: "a" };
    const leave = new AbortController();
    const left = agent.client.callTool({ name: "start_agent_session", arguments: start }, leave).catch(() => "left");
    const offer = await runner.take();
    leave.abort();
    expect(await left).toBe("left");
    expect(await coordinator.state(offer.runId)).toBe("RUNNING");
    const again = agent.call("start_agent_session", start);
    await runner.ok(offer, "COMPLETED", { result: { text: "late" } });
    expect(await again).toMatchObject({ run_id: offer.runId, result_text: "late" });
    const { tools } = await agent.client.listTools();
    const { inputSchema } = tools.find(({ name }) => name === "start_agent_session") ?? {};
    expect(JSON.stringify(inputSchema?.properties?.["mode"])).toContain("when the call is cut off or cancelled");
  });

  it("refuses async_callback without a session to call back, and a name that is taken", async () => {
    const coordinator = await startTestCoordinator();
    const agent = await person(coordinator);
    expect(await agent.refusal("start_agent_session", { prompt: "x", mode: "async_callback" })).toContain("async_poll");
    expect((await coordinator.runs.listRuns({})).runs).toEqual([]);
    await coordinator.create({ sessionName: "taken" });
    const taken = { prompt: "x", mode: "async_poll", session_name: "taken" };
    expect(await agent.refusal("start_agent_session", taken)).toContain("resume_agent_session");
  });

  it("owes a callback with mode async_callback", async () => {
    const coordinator = await startTestCoordinator();
    const parent = await coordinator.create();
    const agent = await person(coordinator, { "X-Agent-Session-Id": parent.sessionId });
    const child = await agent.call("start_agent_session", { prompt: "x", mode: "async_callback" });
    expect(child.next).toContain("end your turn");
    const { session } = await coordinator.sessions.getSession({ sessionId: String(child["session_id"]) });
    expect(session).toMatchObject({ parentSessionId: parent.sessionId, callbackOwed: true });
  });
});

describe("resume_agent_session", () => {
  it("continues a session and waits for that run", async () => {
    const coordinator = await startTestCoordinator();
    const runner = await RawRunner.online(coordinator);
    const { sessionId } = await coordinator.create();
    await completes(runner, "first");
    const agent = await person(coordinator);
    const resume = { session_id: sessionId, prompt: "again" };
    const [answer, runId] = await Promise.all([
      agent.call("resume_agent_session", resume),
      completes(runner, "second"),
    ]);
    expect(answer).toMatchObject({ session_id: sessionId, run_id: runId, result_text: "second" });
  });

  it("says that the prompt waits for its turn while the session is busy", async () => {
    const coordinator = await startTestCoordinator();
    const runner = await RawRunner.online(coordinator);
    const { sessionId, runId } = await coordinator.create();
    await runner.take();
    const answer = await (
      await person(coordinator)
    ).call("resume_agent_session", { session_id: sessionId, prompt: "x" });
    expect(answer).toMatchObject({ state: "pending", pending_reasons: [`waits for ${runId} of its session`] });
  });

  it("refuses a session that does not exist", async () => {
    const agent = await person(await startTestCoordinator());
    expect(await agent.refusal("resume_agent_session", { session_id: "ses_x", prompt: "x" })).toBe(
      "no session ses_x. list_agent_sessions and list_agent_blueprints list what there is.",
    );
  });
});

describe("list_agent_blueprints", () => {
  it("lists the coordinator's own, those with the tags of X-Agent-Tags only", async () => {
    const agentsDir = tempDir();
    for (const [name, tags] of Object.entries({ writer: ["docs"], coder: ["code"] })) {
      mkdirSync(join(agentsDir, name));
      writeFileSync(join(agentsDir, name, "agent.json"), JSON.stringify({ name, description: `a ${name}`, tags }));
    }
    const coordinator = await startTestCoordinator({ agentsDir });
    const all = await (await person(coordinator)).call("list_agent_blueprints");
    expect(all["blueprints"]).toMatchObject([{ name: "coder" }, { name: "writer" }]);
    const some = await (await person(coordinator, { "X-Agent-Tags": "docs" })).call("list_agent_blueprints");
    expect(some).toEqual({ blueprints: [{ name: "writer", description: "a writer", tags: ["docs"] }] });
  });
});

describe("a wrong call", () => {
  it("is an error of the tool that names the argument, what it takes, and where its values come from", async () => {
    const agent = await person(await startTestCoordinator());
    expect(await agent.refusal("start_agent_session", { prompt: 1, mode: "later" })).toMatch(
      /^start_agent_session: prompt must be a text, not 1; mode must be one of sync, async_poll, async_callback, not "later"\. Nothing was done\. start_agent_session takes agent_name, prompt, .*request_id\.$/,
    );
    const whence = "start_agent_session returns them, list_agent_sessions lists those there are";
    expect(await agent.refusal("wait_for_agent_sessions", { session_ids: [] })).toContain(
      `session_names is needed: ${whence}`,
    );
    expect(await agent.refusal("get_agent_session_status")).toContain(
      `session_id or session_name is needed: ${whence}`,
    );
  });

  it("names the tools when there is none of that name", async () => {
    const agent = await person(await startTestCoordinator());
    await expect(agent.raw("start_agent")).rejects.toThrow(
      /there is no tool "start_agent"\. Did you mean start_agent_session\? The tools are list_agent_blueprints, /,
    );
    await expect(agent.raw("constructor")).rejects.toThrow(/there is no tool "constructor"\. The tools are/);
  });

  it("is refused by the coordinator in words that say what to do", async () => {
    const agent = await person(await startTestCoordinator());
    const start = { prompt: "x", mode: "async_poll", project_dir: "relative" };
    expect(await agent.refusal("start_agent_session", start)).toMatch(
      /project_dir must be absolute.*Correct the arguments/s,
    );
  });
});

describe("the page of the coordinator", () => {
  it("refuses web pages, bodies over 1 MiB and what is not MCP", async () => {
    const { url } = await startTestCoordinator();
    const post = (body: string, headers: Record<string, string> = {}) =>
      fetch(`${url}/mcp`, { method: "POST", body, headers: { "content-type": "application/json", ...headers } });
    expect((await post("{}", { origin: "https://evil.example" })).status).toBe(403);
    expect((await post(`"${"x".repeat(1024 * 1024)}"`)).status).toBe(413);
    expect((await post("{")).status).toBeGreaterThanOrEqual(400);
    expect((await fetch(`${url}/mcp`)).status).toBe(405);
  });

  it("serves clients that speak HTTP/2", async () => {
    const { url } = await startTestCoordinator();
    const session = connect(url);
    try {
      const stream = session.request({
        ":method": "POST",
        ":path": "/mcp",
        "content-type": "application/json",
        accept: "application/json, text/event-stream",
      });
      stream.end(JSON.stringify({ jsonrpc: "2.0", id: 7, method: "tools/list" }));
      const [headers] = (await once(stream, "response")) as [IncomingHttpHeaders];
      expect(headers[":status"]).toBe(200);
      expect(await text(stream)).toContain("wait_for_agent_sessions");
    } finally {
      session.close();
    }
  });

  it("takes a run token for what it is", async () => {
    const coordinator = await startTestCoordinator();
    const runner = await RawRunner.online(coordinator);
    const { sessionId } = await coordinator.create();
    const stranger = await coordinator.create({ demands: { hostname: "nowhere" } });
    const { runToken } = await runner.take();
    const headers = { authorization: `Bearer ${runToken}`, "X-Agent-Session-Id": sessionId };
    const agent = await person(coordinator, headers);
    const status = { session_id: stranger.sessionId };
    expect(await agent.refusal("get_agent_session_status", status)).toContain("An agent may use its own session");
    const forged = await person(coordinator, { ...headers, "X-Agent-Session-Id": stranger.sessionId });
    expect(await forged.refusal("start_agent_session", { prompt: "x", mode: "async_poll" })).toContain("own session");
  });

  it("ends waiting calls when the coordinator ends", async () => {
    const coordinator = await startTestCoordinator();
    const { sessionId } = await coordinator.create();
    const agent = await person(coordinator);
    const waited = agent.call("wait_for_agent_sessions", { session_ids: [sessionId] }).catch(() => "cut");
    await until(() => coordinator.running.coordinator.watchers.size > 0, "the wait has begun");
    const began = performance.now();
    await coordinator.stop();
    expect(performance.now() - began).toBeLessThan(30_000);
    expect(await waited).toBe("cut");
  });
});
