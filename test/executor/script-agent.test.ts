import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { json } from "node:stream/consumers";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { invocationOf, killStarted, start } from "./executors-support.ts";
import { inRepository } from "../support/paths.ts";

const SCRIPT_AGENT = inRepository("executors/script-agent/ao-script-agent-exec");

interface Call {
  readonly name: string;
  readonly arguments: Record<string, unknown>;
}

/** An MCP server that answers tool calls as the test says, and keeps them. */
class StubTools {
  readonly calls: Call[] = [];
  readonly #server: Server;
  url = "";

  private constructor(server: Server) {
    this.#server = server;
  }

  static async open(body: (call: Call, n: number) => string): Promise<StubTools> {
    const serve = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
      const { params } = (await json(request)) as { params: Call };
      tools.calls.push(params);
      response.end(body(params, tools.calls.length));
    };
    const server = createServer((request, response) => void serve(request, response));
    const tools = new StubTools(server);
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    tools.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp/secret`;
    return tools;
  }

  /** Answers starts with `ses_1`, `ses_2` …, and what `others` says to the rest. */
  static starting(others: object = {}): Promise<StubTools> {
    return StubTools.open(({ name }, n) =>
      answer(name === "start_agent_session" ? { session_id: `ses_${n}` } : others),
    );
  }

  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }
}

function answer(structuredContent: object): string {
  return JSON.stringify({ jsonrpc: "2.0", id: 1, result: { content: [], structuredContent } });
}

let dir: string;
let tools: StubTools | undefined;
beforeEach(() => (dir = mkdtempSync(join(tmpdir(), "script-agent-"))));
afterEach(() => {
  killStarted();
  tools?.close();
  tools = undefined;
  rmSync(dir, { recursive: true });
});

/** One turn of the session `ses_me`. */
async function turn(script: unknown, change: object = {}) {
  const prompt = typeof script === "string" ? script : JSON.stringify(script);
  const env = tools === undefined ? {} : { AGENT_ORCHESTRATOR_MCP_URL: tools.url };
  const invocation = invocationOf(prompt, { session_id: "ses_me", run_id: "run_1", ...change });
  const { code, stdout, stderr } = await start([SCRIPT_AGENT], invocation, { cwd: dir, env }).ended;
  const events = stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as { type: string; text?: string });
  return { code, stderr, events, result: events.findLast(({ type }) => type === "result")?.text };
}

/** The turn in which these sessions call back. */
const callback = (...sessionIds: string[]) =>
  turn("They have ended.", { mode: "resume", callback: { child_session_ids: sessionIds } });

describe("the script agent", () => {
  it("says its session, its prompt, what it is to say, and its result", async () => {
    const { code, stderr, events } = await turn({ say: "thinking", sleep: 0.01, result: "42" });
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(events).toEqual([
      { type: "session", executor_session_id: "script-ses_me" },
      { type: "message", role: "user", text: '{"say":"thinking","sleep":0.01,"result":"42"}' },
      { type: "message", role: "assistant", text: "thinking" },
      { type: "result", text: "42" },
    ]);
  });

  it("starts sessions by the tool, each with a name for the start that a repeated attempt uses again", async () => {
    tools = await StubTools.starting();
    const first = { name: "leaf", agent: "reader", tags: ["gpu"], executor_profile: "p", prompt: { say: "x" } };
    const script = { start: [first, { mode: "async_poll", prompt: "plain" }] };
    const { code, result, events } = await turn(script);
    expect({ code, result }).toEqual({ code: 0, result: "2 started" });
    await turn(script, { attempt: 2 });
    const [leaf, plain, ...repeated] = tools.calls;
    expect(leaf).toEqual({
      name: "start_agent_session",
      arguments: {
        session_name: "leaf",
        agent_name: "reader",
        tags: ["gpu"],
        executor_profile: "p",
        mode: "async_callback",
        prompt: '{"say":"x"}',
        request_id: "run_1-0",
      },
    });
    expect(plain?.arguments).toEqual({ tags: [], mode: "async_poll", prompt: "plain", request_id: "run_1-1" });
    expect(repeated).toEqual([leaf, plain]);
    const calls = events.filter(({ type }) => type === "tool");
    expect(calls).toMatchObject([
      { tool_call_id: "run_1-0", input: { session_name: "leaf" } },
      { tool_call_id: "run_1-0", output: { session_id: "ses_1" } },
      { tool_call_id: "run_1-1" },
      { tool_call_id: "run_1-1", output: { session_id: "ses_2" } },
    ]);
  });

  it("takes the turn afterwards when the last session that it started with a callback has called back", async () => {
    tools = await StubTools.starting();
    const children = [{ prompt: "a" }, { prompt: "b" }, { mode: "async_poll", prompt: "nobody waits for it" }];
    await turn({ start: children, afterwards: { start: [{ prompt: "c" }], result: "second turn" } });
    expect((await callback("ses_2")).result).toBe("1 called back, 1 to come");
    expect((await callback("ses_2")).result, "delivered again").toBe("1 called back, 1 to come");
    expect((await callback("ses_1")).result).toBe("second turn");
    expect(tools.calls).toHaveLength(4);
    expect((await callback("ses_4")).result, "the second turn put nothing off").toBe("1 called back, 0 to come");
  });

  it("is called back in a session that remembers nothing, as it was killed before it could", async () => {
    expect(await callback("ses_9")).toMatchObject({ code: 0, result: "1 called back, 0 to come" });
  });

  it("waits by the tool, again and again, until nothing is open", async () => {
    tools = await StubTools.open(({ name }, n) =>
      answer(
        name === "start_agent_session" ? { session_id: `ses_${n}` } : { open: n < 5 ? [{ session_id: "ses_2" }] : [] },
      ),
    );
    const script = {
      start: [
        { mode: "async_poll", prompt: "a" },
        { mode: "async_poll", prompt: "b" },
      ],
      wait: true,
    };
    expect(await turn(script)).toMatchObject({ code: 0, result: "2 started" });
    const waits = tools.calls.slice(2).map((call) => call.arguments["session_ids"]);
    expect(waits).toEqual([["ses_1", "ses_2"], ["ses_2"], ["ses_2"]]);
  });

  it("fails as it is told, after what it started", async () => {
    tools = await StubTools.starting();
    const { code, stderr, result } = await turn({ start: [{ prompt: "a" }], fail: "no disk", result: "never" });
    expect({ code, stderr, result }).toEqual({ code: 1, stderr: "no disk\n", result: undefined });
    expect(tools.calls).toHaveLength(1);
  });

  it("ends with exit code 2 for a prompt that is no script, and for an invocation that is none", async () => {
    expect(await turn("say hello")).toMatchObject({
      code: 2,
      stderr: expect.stringContaining("the prompt is no JSON"),
    });
    const { code, stderr } = await start([SCRIPT_AGENT], "{}").ended;
    expect({ code, stderr }).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/^script-agent: invocation.schema_version/),
    });
  });

  it.each<[string, string, string]>([
    ["refuses", JSON.stringify({ result: { isError: true, content: [{ text: "too deep" }] } }), "too deep"],
    ["is unknown", JSON.stringify({ error: { code: -32602, message: "no such tool" } }), "no such tool"],
    ["answers no JSON", "<html>", "the orchestrator answered 200: <html>"],
  ])("fails with exit code 1 when the tool %s", async (_, body, words) => {
    tools = await StubTools.open(() => body);
    const { code, stderr } = await turn({ start: [{ prompt: "a" }] });
    expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining(words) });
  });

  it("reads an answer that comes as a stream of events", async () => {
    tools = await StubTools.open(() => `event: message\ndata: ${answer({ session_id: "ses_streamed" })}\n\n`);
    const { events } = await turn({ start: [{ prompt: "a" }] });
    expect(events).toContainEqual(expect.objectContaining({ output: { session_id: "ses_streamed" } }));
  });

  it("fails with exit code 1 when there is no orchestrator, or it does not answer", async () => {
    const script = { start: [{ prompt: "a" }] };
    expect(await turn(script)).toMatchObject({ code: 1, stderr: expect.stringContaining("_MCP_URL is not set") });
    tools = await StubTools.starting();
    tools.close();
    expect(await turn(script)).toMatchObject({ code: 1, stderr: expect.stringContaining("cannot be reached") });
  });
});
