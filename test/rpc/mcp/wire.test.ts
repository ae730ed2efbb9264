import { afterEach, describe, expect, it } from "vitest";
import { startTestCoordinator, stopTestCoordinators } from "../../support/coordinator.ts";
import { ERAS, leaveMcp, McpAgent } from "../../support/mcp-client.ts";

/* What clients of several ages, scripts and careless models send, and what they get. */

afterEach(async () => {
  await leaveMcp();
  await stopTestCoordinators();
});

const BOTH = "application/json, text/event-stream";

interface Answer {
  readonly status: number;
  readonly type: string;
  readonly text: string;
}

/** Sends a body as it is. */
async function post(
  url: string,
  body: string | Uint8Array<ArrayBuffer>,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const sent = { "content-type": "application/json", accept: BOTH, ...headers };
  const response = await fetch(url, { method: "POST", headers: sent, body });
  return { status: response.status, type: response.headers.get("content-type") ?? "", text: await response.text() };
}

function rpc(method: string, params?: unknown, id: unknown = 1): string {
  return JSON.stringify({ jsonrpc: "2.0", id, method, params });
}

function call(name: unknown, args?: unknown): string {
  return rpc("tools/call", { name, arguments: args });
}

async function page(): Promise<string> {
  return `${(await startTestCoordinator()).url}/mcp`;
}

describe.each(Object.keys(ERAS) as (keyof typeof ERAS)[])("a model over a client of %s", (era) => {
  it("may write null and nothing for what it leaves out", async () => {
    const coordinator = await startTestCoordinator();
    const agent = await McpAgent.at(`${coordinator.url}/mcp`, { era });
    const left = { agent_name: null, session_name: "", request_id: "", timeout_seconds: null, tags: [""], mode: null };
    const { run_id } = await agent.call("start_agent_session", {
      prompt: "x",
      ...left,
      mode: "async_poll",
      parameters: null,
    });
    const run = await coordinator.run(String(run_id));
    expect(run).toMatchObject({ agentName: "", demands: { tags: [] } });
    expect([run.sessionName, run.timeout, run.parameters]).toEqual([run.sessionId, undefined, undefined]);
    expect(await agent.call("list_agent_sessions", { status: null, page_token: "" })).toMatchObject({ sessions: [{}] });
  });

  it("may add arguments of its own, and hears of them in answers and errors", async () => {
    const coordinator = await startTestCoordinator();
    const agent = await McpAgent.at(`${coordinator.url}/mcp`, { era });
    const start = { prompt: "x", mode: "async_poll", reasoning: "because", timeout: 5 };
    expect(await agent.call("start_agent_session", start)).toMatchObject({
      state: "pending",
      ignored_arguments: [
        '"reasoning" is no argument of start_agent_session and was ignored.',
        '"timeout" is no argument of start_agent_session and was ignored; did you mean timeout_seconds?',
      ],
    });
    expect(await agent.refusal("start_agent_session", { promt: "x" })).toMatch(
      /a run needs a text for the agent.* "promt" is no argument of start_agent_session and was ignored; did you mean prompt\?$/,
    );
  });

  it("is told of numbers that would be changed, and of JSON that is too deep, and nothing is started", async () => {
    const coordinator = await startTestCoordinator();
    const url = `${coordinator.url}/mcp`;
    const agent = await McpAgent.at(url, { era });
    const start = (text: string) =>
      post(
        url,
        call("start_agent_session", { prompt: "x", mode: "async_poll", parameters: 0 }).replace(":0}", `:${text}}`),
      );
    expect((await start('{"a":{"channel":1029384756610293847}}')).text).toContain(
      "parameters.a.channel: 1029384756610293847 is more than a number of JSON holds and would be changed; pass it as a text",
    );
    expect((await start('{"a":1e400}')).text).toContain("parameters.a: 1e400 is more than");
    const deep = (levels: number) => JSON.parse("[".repeat(levels) + "]".repeat(levels)) as unknown;
    const start2 = { prompt: "x", mode: "async_poll" };
    await agent.call("start_agent_session", {
      ...start2,
      parameters: { a: deep(23), b: 12345678901234567000, c: 0.1 },
    });
    expect(await agent.refusal("start_agent_session", { ...start2, parameters: { a: deep(24) } })).toContain(
      "parameters: nested more than 24 levels deep",
    );
    await expect(agent.raw("start_agent_session", { ...start2, parameters: { a: deep(60) } })).rejects.toThrow(
      "nested more than 24 levels deep",
    );
    expect((await start(`{"a":${"[".repeat(100_000)}${"]".repeat(100_000)}}`)).text).toContain("nested more than 24");
    expect((await coordinator.runs.listRuns({})).runs).toHaveLength(1);
  });

  it("is told of half a character wherever it stands, in whole ones", async () => {
    const coordinator = await startTestCoordinator();
    const agent = await McpAgent.at(`${coordinator.url}/mcp`, { era });
    const half = "\ud83d";
    const start = { prompt: "x", mode: "async_poll" };
    for (const [args, at] of [
      [{ prompt: `cut ${half}` }, "prompt: "],
      [{ session_name: half }, "session_name: "],
      [{ tags: ["a", half] }, "tags.1: "],
      [{ parameters: { a: [half] } }, "parameters.a.0: "],
      [{ parameters: { [half]: 1 } }, "parameters.\ufffd: "],
      [{ mode: half }, "mode: "],
    ] as const) {
      const text = await agent.refusal("start_agent_session", { ...start, ...args });
      expect(text).toContain(`${at}holds half a character (a lone surrogate)`);
      expect(text.isWellFormed()).toBe(true);
    }
    const answer = await agent.call("start_agent_session", { ...start, [`${"x".repeat(59)}🙂`]: 1 });
    expect(JSON.stringify(answer).isWellFormed() && !JSON.stringify(answer).includes("\\ud83d")).toBe(true);
    expect((await coordinator.runs.listRuns({})).runs).toHaveLength(1);
  });
});

describe("arguments", () => {
  it.each(
    [null, "", [], undefined, '{"status": "idle"}', { status: '["idle","failed"]' }, { status: ["IDLE", null] }].map(
      (args) => [args],
    ),
  )("%j are taken for what they mean", async (args) => {
    const { status, text } = await post(await page(), call("list_agent_sessions", args));
    expect([status, text]).toEqual([200, expect.stringContaining('"structuredContent":{"sessions":[]}')]);
  });

  it.each([
    [5, "a number"],
    [["x"], "a list"],
    ["session", "a string"],
  ])("%j are refused in words", async (args, what) => {
    const { text } = await post(await page(), call("list_agent_sessions", args));
    const message = `arguments of list_agent_sessions must be an object such as {"session_id": "ses_…"}, not ${what}`;
    expect(JSON.parse(text)).toEqual({ jsonrpc: "2.0", id: 1, error: { code: -32_602, message } });
  });

  it("that are missing with the name of the tool are asked for", async () => {
    const url = await page();
    for (const body of [
      call(undefined),
      call(5),
      rpc("tools/call"),
      rpc("tools/call", null),
      rpc("tools/call", ["x"]),
    ]) {
      expect((await post(url, body)).text).toContain("tools/call needs params such as");
    }
  });
});

describe("an answer", () => {
  it.each(["*/*", "application/json", ""])("is JSON for a client that accepts %j", async (accept) => {
    const { status, type, text } = await post(await page(), rpc("tools/list"), { accept });
    expect([status, type]).toEqual([200, expect.stringContaining("application/json")]);
    expect(JSON.parse(text)).toMatchObject({ id: 1, result: { tools: expect.any(Array) } });
  });

  it("is a list of JSON for such a client's batch, and events for one that asks for them", async () => {
    const url = await page();
    const batch = `[${rpc("ping", undefined, 1)},${rpc("tools/list", undefined, "two")}]`;
    const answers = JSON.parse((await post(url, batch, { accept: "*/*" })).text) as { id: unknown }[];
    expect(answers.map(({ id }) => id)).toEqual([1, "two"]);
    expect((await post(url, batch)).type).toBe("text/event-stream");
  });

  it("is nothing to a notification", async () => {
    const cancelled = JSON.stringify({ jsonrpc: "2.0", method: "notifications/cancelled", params: { requestId: 9 } });
    expect(await post(await page(), cancelled, { accept: "*/*" })).toMatchObject({ status: 202, text: "" });
  });
});

describe("a body", () => {
  it("may begin with a byte order mark and have null for params, and its URL may end with a slash", async () => {
    const url = await page();
    expect((await post(`${url}/`, `\u{feff}${rpc("tools/list", null)}`)).text).toContain("list_agent_blueprints");
  });

  it.each([
    [
      "latin-1",
      Buffer.from(call("start_agent_session", { prompt: "café", mode: "async_poll" }), "latin1"),
      "is not UTF-8",
    ],
    ["half a message", "{", "is not JSON"],
    ["nothing", "", "is not JSON"],
    [
      "two requests of one id",
      `[${rpc("ping")},${call("list_agent_sessions")}]`,
      "two requests of this batch have the id 1",
    ],
    ["a batch that is too deep", "[".repeat(50_000) + "]".repeat(50_000), "nested more than 24 levels"],
  ])("that is %s is refused in words", async (_what, body, why) => {
    const { status, text } = await post(await page(), body);
    expect([status, JSON.parse(text).error.message]).toEqual([400, expect.stringContaining(why)]);
  });

  it("whose id would come back as another is refused", async () => {
    const body = rpc("ping", undefined, 0).replace(":0", ":1029384756610293847");
    expect((await post(await page(), body)).text).toContain("the id 1029384756610293847 is no number");
  });

  it("that is compressed is refused with the reason", async () => {
    const refused = await post(await page(), rpc("ping"), { "content-encoding": "gzip" });
    expect(refused).toMatchObject({ status: 415, text: expect.stringContaining("without content-encoding") });
  });
});

describe("a request that is no POST", () => {
  it.each(["GET", "DELETE", "PUT"])("as %s is told what is served here", async (method) => {
    const response = await fetch(await page(), {
      method,
      headers: { accept: "text/event-stream", "mcp-session-id": "old" },
    });
    expect([response.status, response.headers.get("allow")]).toEqual([405, "POST, OPTIONS"]);
    expect(await response.text()).toContain("POST a message of JSON-RPC");
  });
});

describe("a page that may call", () => {
  it("may ask before, and read the answer", async () => {
    const url = await page();
    const origin = "http://localhost:6274";
    const asked = await fetch(url, {
      method: "OPTIONS",
      headers: {
        origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,mcp-protocol-version",
      },
    });
    expect(asked.status).toBe(204);
    expect(Object.fromEntries(asked.headers)).toMatchObject({
      "access-control-allow-origin": origin,
      "access-control-allow-methods": "POST, OPTIONS",
      "access-control-allow-headers": "content-type,mcp-protocol-version",
    });
    const answer = await fetch(url, {
      method: "POST",
      headers: { origin, "content-type": "application/json" },
      body: rpc("ping"),
    });
    expect([answer.status, answer.headers.get("access-control-allow-origin")]).toEqual([200, origin]);
  });

  it("is not one of another machine", async () => {
    const asked = await fetch(await page(), { method: "OPTIONS", headers: { origin: "https://evil.example" } });
    expect([asked.status, asked.headers.get("access-control-allow-origin")]).toEqual([403, null]);
  });
});
