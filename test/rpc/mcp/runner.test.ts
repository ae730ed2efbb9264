import { once } from "node:events";
import { request } from "node:http";
import type { IncomingMessage } from "node:http";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { Code, ConnectError } from "@connectrpc/connect";
import { afterEach, describe, expect, it } from "vitest";
import { BlueprintService } from "../../../gen/agentrunner/v1/blueprint_service_pb.ts";
import type { ListBlueprintsRequest } from "../../../gen/agentrunner/v1/blueprint_service_pb.ts";
import { createLogger } from "../../../lib/log.ts";
import { parseRunnerOptions } from "../../../runner/config.ts";
import { McpPortError, openMcp, startMcp } from "../../../runner/execution/mcp-server.ts";
import type { ToolServer, McpOptions } from "../../../runner/execution/mcp-server.ts";
import { startTestCoordinator, stopTestCoordinators } from "../../support/coordinator.ts";
import type { TestCoordinator } from "../../support/coordinator.ts";
import { ERAS, leaveMcp, McpAgent } from "../../support/mcp-client.ts";
import { RawRunner } from "../../support/raw-runner.ts";
import { testSettings } from "../../support/test-runner.ts";
import { startTestServer, stopTestServers } from "../../support/test-server.ts";
import { until } from "../../support/until.ts";

const log = createLogger({ name: "test", level: "silent", format: "json" });
const servers: ToolServer[] = [];

afterEach(async () => {
  await leaveMcp();
  for (const tools of servers.splice(0)) await tools.close();
  await stopTestServers();
  await stopTestCoordinators();
});

async function toolsFor(coordinatorUrl: string, options: Partial<McpOptions> = {}): Promise<ToolServer> {
  const tools = await startMcp({ port: 0, coordinatorUrl, tlsCaPem: undefined, log, ...options });
  servers.push(tools);
  return tools;
}

/** A run of a new session that a runner holds, and the URL that its executor gets. */
async function agentRun(coordinator: TestCoordinator, tools: ToolServer, runner: RawRunner) {
  const { sessionId } = await coordinator.create();
  const offer = await runner.take();
  return { sessionId, offer, capability: tools.open({ ...offer, sessionId }) };
}

async function scene(options: Partial<McpOptions> = {}, about: { maxConcurrentRuns?: number } = {}) {
  const coordinator = await startTestCoordinator({ memory: false });
  const runner = await RawRunner.online(coordinator, about);
  const tools = await toolsFor(coordinator.url, options);
  return { coordinator, runner, tools, ...(await agentRun(coordinator, tools, runner)) };
}

/** Plain HTTP, as any local process can speak it. */
function call(
  url: string,
  tool: string,
  args: object,
  headers: Record<string, string> = {},
  signal: AbortSignal | null = null,
): Promise<Response> {
  return fetch(url, {
    method: "POST",
    signal,
    headers: { "content-type": "application/json", accept: "application/json, text/event-stream", ...headers },
    body: JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/call", params: { name: tool, arguments: args } }),
  });
}

/** What a ping is answered; fetch cannot name another Host. */
async function statusOf(url: string, headers: Record<string, string> = {}): Promise<number | undefined> {
  const sent = request(url, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    agent: false,
  });
  sent.end(JSON.stringify({ jsonrpc: "2.0", id: 1, method: "ping" }));
  const [response] = (await once(sent, "response")) as [IncomingMessage];
  response.resume();
  return response.statusCode;
}

describe.each(Object.keys(ERAS) as (keyof typeof ERAS)[])("to a client of %s the runner", (era) => {
  it("serves the tools to the agent of a run, whose session becomes the parent", async () => {
    const { coordinator, runner, sessionId, capability } = await scene();
    const agent = await McpAgent.at(capability.url, { era, headers: { "X-Agent-Session-Id": sessionId } });
    const started = agent.call("start_agent_session", { prompt: "child" });
    const child = await runner.take();
    await runner.ok(child, "COMPLETED", { result: { text: "hello parent" } });
    expect(await started).toMatchObject({ run_id: child.runId, state: "completed", result_text: "hello parent" });
    expect((await coordinator.run(child.runId)).parentSessionId).toBe(sessionId);
    const { sessions } = await agent.call("list_agent_sessions", { parent_session_id: sessionId });
    expect(sessions).toMatchObject([{ parent_session_id: sessionId, status: "idle" }]);
  });
});

describe("the capability of a run", () => {
  it("is 256 random bits on loopback, and another for each run", async () => {
    const tools = await toolsFor("http://127.0.0.1:1");
    const urls = ["run_1", "run_2"].map((runId) => tools.open({ runId, sessionId: "ses_1", runToken: "t" }).url);
    for (const url of urls) expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/mcp\/[0-9a-f]{64}$/);
    expect(urls[0]).not.toBe(urls[1]);
  });

  it("is unknown when it is guessed, cut, or the run has ended", async () => {
    const { sessionId, capability } = await scene();
    const { origin } = new URL(capability.url);
    const list = (url: string) => call(url, "list_agent_sessions", {}, { "X-Agent-Session-Id": sessionId });
    expect((await list(capability.url)).status).toBe(200);
    for (const url of [`${origin}/mcp`, `${origin}/mcp/${"0".repeat(64)}`, capability.url.slice(0, -1)]) {
      expect((await list(url)).status).toBe(404);
    }
    capability.close();
    // Its connections are cut, which the pool of fetch may notice late.
    const gone = await until(() => list(capability.url).catch(() => undefined), "an answer on a new connection");
    expect([gone.status, await gone.text()]).toEqual([404, expect.stringContaining("no run has this URL")]);
  });

  it("ends its open calls and their watches when the run ends", async () => {
    const { coordinator, capability } = await scene();
    const { sessionId } = await coordinator.create({ demands: { hostname: "nowhere" } });
    const response = await call(capability.url, "stop_agent_session", { session_id: sessionId });
    expect(await response.text()).toContain("good for its own session");
    const agent = await McpAgent.at(capability.url);
    const waited = agent
      .call("start_agent_session", { prompt: "child", mode: "async_poll" })
      .then(({ session_id }) => agent.call("wait_for_agent_sessions", { session_ids: [session_id] }))
      .catch(() => "cut");
    const { watchers } = coordinator.running.coordinator;
    await until(() => watchers.size > 0, "the wait has begun");
    capability.close();
    expect(await waited).toBe("cut");
    await until(() => watchers.size === 0, "nobody watches any more");
  });

  it.each(["2025", "2026"])("ends the watches of a client of %s that leaves", async (era) => {
    const { coordinator, runner, sessionId, capability } = await scene();
    const child = await coordinator.create({ parentSessionId: sessionId });
    await runner.take();
    const leave = new AbortController();
    const wait = { name: "wait_for_agent_sessions", arguments: { session_ids: [child.sessionId] } };
    const waited =
      era === "2026"
        ? (await McpAgent.at(capability.url)).client.callTool(wait, leave)
        : call(capability.url, wait.name, wait.arguments, {}, leave.signal).then((response) => response.text());
    const left = waited.catch(() => "left");
    const { watchers } = coordinator.running.coordinator;
    await until(() => watchers.size > 0, "the wait has begun");
    leave.abort();
    expect(await left).toBe("left");
    await until(() => watchers.size === 0, "nobody watches any more");
  });

  it("refuses the session id of another", async () => {
    const { capability, sessionId } = await scene();
    const response = await call(capability.url, "list_agent_sessions", {}, { "X-Agent-Session-Id": "ses_other" });
    expect(response.status).toBe(403);
    expect(await response.json()).toMatchObject({
      jsonrpc: "2.0",
      error: { message: expect.stringContaining(`this URL is of ${sessionId}`) },
    });
  });

  it("refuses web pages and other hosts' names, and bodies over 1 MiB", async () => {
    const { capability } = await scene();
    expect((await call(capability.url, "list_agent_sessions", {}, { origin: "https://evil.example" })).status).toBe(
      403,
    );
    const large = await call(capability.url, "start_agent_session", { prompt: "x".repeat(1024 * 1024) });
    expect([large.status, await large.text()]).toEqual([413, expect.stringContaining("1048576 bytes")]);
  });

  it("is reached by the names that containers have for their host, but not from pages there", async () => {
    const tools = await toolsFor("http://127.0.0.1:1", { patienceMs: 10 });
    const { url } = tools.open({ runId: "run_1", sessionId: "ses_1", runToken: "t" });
    const status = (host: string, headers: Record<string, string> = {}) => statusOf(url, { host, ...headers });
    expect(await status("host.docker.internal:8765")).toBe(200);
    expect(await status("host.containers.internal")).toBe(200);
    expect(await status("evil.internal")).toBe(403);
    expect(await status("host.docker.internal.evil.example")).toBe(403);
    expect(await status("localhost", { origin: "http://host.docker.internal" })).toBe(403);
  });

  it("is the same with a slash behind it", async () => {
    const tools = await toolsFor("http://127.0.0.1:1", { patienceMs: 10 });
    const { url } = tools.open({ runId: "run_1", sessionId: "ses_1", runToken: "t" });
    expect(await statusOf(`${url}/`)).toBe(200);
    expect(await statusOf(`${url}//`)).toBe(404);
  });

  it("answers no more than 32 calls at a time", async () => {
    const { coordinator, sessionId, capability } = await scene();
    const child = await coordinator.create({ parentSessionId: sessionId, demands: { hostname: "nowhere" } });
    const wait = () => call(capability.url, "wait_for_agent_sessions", { session_ids: [child.sessionId] });
    const waits = Array.from({ length: 32 }, () => wait());
    // The head of an answer comes before its body.
    await Promise.all(waits);
    const refused = await wait();
    expect([refused.status, await refused.text()]).toEqual([429, expect.stringContaining("32 requests")]);
    await coordinator.runs.stopRun({ runId: child.runId });
    for (const waited of waits) expect(await (await waited).text()).toContain("stopped");
    expect((await wait()).status).toBe(200);
  });

  it("counts the calls of a batch one by one", async () => {
    const { capability } = await scene();
    const batch = (calls: number) =>
      fetch(capability.url, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(
          Array.from({ length: calls }, (_, id) => ({
            ...{ jsonrpc: "2.0", id, method: "tools/call", params: { name: "list_agent_sessions" } },
          })),
        ),
      });
    const tooMany = await batch(33);
    expect([tooMany.status, await tooMany.json()]).toMatchObject([
      400,
      { id: null, error: { code: -32_600, message: expect.stringContaining("send at most 32 in a batch") } },
    ]);
    const answers = (await (await batch(32)).json()) as { id: number }[];
    expect(answers.map(({ id }) => id).toSorted((a, b) => a - b)).toEqual(Array.from({ length: 32 }, (_, i) => i));
  });

  it("lets the agent of a run touch its own tree only", async () => {
    const { coordinator, runner, tools, capability } = await scene();
    const other = await agentRun(coordinator, tools, runner);
    const agent = await McpAgent.at(capability.url);
    for (const tool of ["get_agent_session_status", "get_agent_session_result", "stop_agent_session"]) {
      expect(await agent.refusal(tool, { session_id: other.sessionId })).toContain("good for its own session");
    }
    expect(await coordinator.state(other.offer.runId)).toBe("RUNNING");
  });
});

describe("an agent whose lease is over", () => {
  it("can start nothing, and is told to stop working", async () => {
    const { coordinator, runner, offer, capability } = await scene();
    const agent = await McpAgent.at(capability.url);
    await runner.ok(offer, "COMPLETED");
    const before = (await coordinator.runs.listRuns({})).runs.length;
    const refusal = await agent.refusal("start_agent_session", { prompt: "x", mode: "async_poll" });
    expect(refusal).toMatch(/lease is over.*stop working/s);
    expect((await coordinator.runs.listRuns({})).runs).toHaveLength(before);
  });
});

describe("a sync start", () => {
  it("that needs the slot of its own parent says so at once", async () => {
    const { coordinator, runner, capability } = await scene({}, { maxConcurrentRuns: 1 });
    const agent = await McpAgent.at(capability.url);
    const answer = await agent.call("start_agent_session", { prompt: "child" });
    expect(answer).toMatchObject({ state: "pending", next: expect.stringContaining("the slot that you hold") });
    expect(String(answer["pending_reasons"])).toContain(`${runner.runnerId} is full 1/1`);
    expect(await coordinator.state(String(answer["run_id"]))).toBe("PENDING");
  });

  it("returns after its wait with the session to go on with, and the next wait gets the result", async () => {
    const { runner, capability } = await scene({ waitMs: 400 });
    const agent = await McpAgent.at(capability.url);
    const started = agent.call("start_agent_session", { prompt: "child" });
    const child = await runner.take();
    const answer = await started;
    // The start was not reported yet when the wait was over, on a slow machine.
    expect(answer).toMatchObject({
      state: expect.stringMatching(/^(claimed|running)$/),
      next: expect.stringContaining("wait_for_agent_sessions"),
    });
    await runner.ok(child, "COMPLETED", { result: { text: "late" } });
    const waited = await agent.call("wait_for_agent_sessions", { session_ids: [answer["session_id"]] });
    expect(waited).toMatchObject({ settled: [{ result_text: "late" }], open: [] });
  });

  it("waits on over a restart of the coordinator", async () => {
    const { coordinator, runner, capability } = await scene();
    const agent = await McpAgent.at(capability.url);
    const started = agent.call("start_agent_session", { prompt: "child" });
    const child = await runner.take();
    await coordinator.restart();
    await runner.ok(child, "COMPLETED", { result: { text: "survived" } });
    expect(await started).toMatchObject({ state: "completed", result_text: "survived" });
  });
});

describe("a coordinator that cannot be reached", () => {
  it("is waited for, so that a start meanwhile is no error", async () => {
    const { coordinator, capability } = await scene();
    const agent = await McpAgent.at(capability.url);
    await coordinator.stop();
    const started = agent.call("start_agent_session", { prompt: "child", mode: "async_poll" });
    await coordinator.start();
    const { run_id: runId } = await started;
    expect((await coordinator.run(String(runId))).prompt).toBe("child");
  });

  it("is an error that says so, when it does not come back", async () => {
    const tools = await toolsFor("http://127.0.0.1:1", { patienceMs: 300 });
    const { url } = tools.open({ runId: "run_1", sessionId: "ses_1", runToken: "t" });
    const agent = await McpAgent.at(url);
    expect(await agent.refusal("list_agent_sessions")).toContain("The coordinator cannot be reached");
  });
});

describe("list_agent_blueprints", () => {
  it("asks for those with all tags of X-Agent-Tags, and names the broken ones", async () => {
    const asked: ListBlueprintsRequest[] = [];
    const { url } = await startTestServer({
      routes: (router) =>
        router.rpc(BlueprintService.method.listBlueprints, (request) => {
          asked.push(request);
          return {
            blueprints: [
              {
                name: "writer",
                description: "writes ".repeat(2_000),
                tags: ["docs"],
                demands: { executorProfile: "claude-code", tags: ["gpu"] },
                parametersSchema: { type: "object" },
              },
              { name: "plain", parametersSchema: { enum: Array.from({ length: 2_000 }, (_, i) => `value ${i}`) } },
            ],
            broken: [{ name: "bad", error: "not JSON" }],
            nextPageToken: "more",
          };
        }),
    });
    const tools = await toolsFor(url);
    const capability = tools.open({ runId: "run_1", sessionId: "ses_1", runToken: "t" });
    const agent = await McpAgent.at(capability.url, { headers: { "X-Agent-Tags": "docs, public,docs" } });
    const answer = await agent.call("list_agent_blueprints");
    expect(asked[0]).toMatchObject({ tags: ["docs", "public"], pageSize: 25 });
    expect(answer).toMatchObject({
      blueprints: [
        {
          name: "writer",
          tags: ["docs"],
          executor_profile: "claude-code",
          runner_tags: ["gpu"],
          parameters_schema: { type: "object" },
          description: expect.stringMatching(/writes …?\[?.*cut: \d+ of 14000 bytes shown\]$/s),
        },
        { name: "plain", parameters_schema_cut: expect.stringContaining("characters") },
      ],
      broken: ["bad"],
      next_page_token: "more",
    });
  });

  it("says when the coordinator is too old for it", async () => {
    const { url } = await startTestServer({
      routes: (router) =>
        router.rpc(BlueprintService.method.listBlueprints, () => {
          throw new ConnectError("not offered", Code.Unimplemented);
        }),
    });
    const capability = (await toolsFor(url)).open({ runId: "run_1", sessionId: "ses_1", runToken: "t" });
    const agent = await McpAgent.at(capability.url);
    expect(await agent.refusal("list_agent_blueprints")).toContain("older than this tool");
  });
});

describe("the MCP server of a runner", () => {
  it("frees its port when it ends, with calls in flight", async () => {
    const { coordinator, sessionId, tools, capability } = await scene();
    const child = await coordinator.create({ parentSessionId: sessionId, demands: { hostname: "nowhere" } });
    const response = await call(capability.url, "wait_for_agent_sessions", { session_ids: [child.sessionId] });
    const body = response.text().catch(() => "cut");
    await servers.splice(servers.indexOf(tools), 1)[0]?.close();
    expect(await body).toBe("cut");
    await expect(fetch(capability.url)).rejects.toThrow();
    const again = await toolsFor(coordinator.url, { port: Number(new URL(capability.url).port) });
    expect(again.open({ runId: "r", sessionId: "s", runToken: "t" }).url).toContain(new URL(capability.url).host);
  });

  it("says which port is taken", async () => {
    const taken = createServer().listen(0, "127.0.0.1");
    await once(taken, "listening");
    const { port } = taken.address() as AddressInfo;
    const attempt = startMcp({ port, coordinatorUrl: "http://127.0.0.1:1", tlsCaPem: undefined, log });
    await expect(attempt).rejects.toThrow(McpPortError);
    await expect(attempt).rejects.toThrow(`127.0.0.1:${port} for --mcp-port`);
    taken.close();
  });

  it("has a port of its own or is an external one, not both", () => {
    const parse = (...argv: string[]) => parseRunnerOptions(argv, {}, () => undefined, "/");
    expect(parse("--mcp-port", "7000")).toMatchObject({ config: { mcpPort: 7000, externalMcpUrl: undefined } });
    const both = ["--mcp-port", "7000", "--external-mcp-url", "http://localhost:9/mcp"];
    expect(() => parse(...both)).toThrow(
      "--mcp-port 7000 and --external-mcp-url http://localhost:9/mcp exclude each other",
    );
  });

  it("is not there when an external one is named", async () => {
    const mcp = { type: "external", url: "http://localhost:9/mcp" } as const;
    const settings = { ...testSettings("http://127.0.0.1:1"), mcp };
    const tools = await openMcp(settings, log);
    const capability = tools.open({ runId: "run_1", sessionId: "ses_1", runToken: "t" });
    expect(capability.url).toBe("http://localhost:9/mcp");
    capability.close();
    await tools.close();
  });
});
