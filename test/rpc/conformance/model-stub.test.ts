import { connect } from "node:net";
import { text } from "node:stream/consumers";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { startModelStub, STUB_KEY } from "../../support/model-stub/index.ts";
import type { ModelStub } from "../../support/model-stub/index.ts";
import { until } from "../../support/until.ts";

let stub: ModelStub;
beforeEach(async () => (stub = await startModelStub()));
afterEach(() => stub.close());

/** A tool as each API offers it. */
const SHELL = { type: "object", properties: { command: { type: "string" } }, required: ["command"] };

/** How a prompt, and tools, are asked in each API. */
const APIS = {
  anthropic: (prompt: string, stream: boolean) => ({
    path: "/v1/messages",
    body: {
      model: "m",
      stream,
      system: [{ type: "text", text: "be good" }],
      messages: [{ role: "user", content: [{ type: "text", text: prompt }] }],
      tools: [{ name: "Bash", input_schema: SHELL }],
    },
  }),
  chat: (prompt: string, stream: boolean) => ({
    path: "/v1/chat/completions",
    body: {
      model: "m",
      stream,
      messages: [
        { role: "system", content: "be good" },
        { role: "user", content: prompt },
      ],
      tools: [{ type: "function", function: { name: "Bash", parameters: SHELL } }],
    },
  }),
  responses: (prompt: string, stream: boolean) => ({
    path: "/v1/responses",
    body: {
      model: "m",
      stream,
      instructions: "be good",
      input: [{ type: "message", role: "user", content: [{ type: "input_text", text: prompt }] }],
      tools: [{ type: "function", name: "Bash", parameters: SHELL }],
    },
  }),
  gemini: (prompt: string, stream: boolean) => ({
    path: `/v1beta/models/m:${stream ? "streamGenerateContent?alt=sse" : "generateContent"}`,
    body: {
      systemInstruction: { parts: [{ text: "be good" }] },
      contents: [{ role: "user", parts: [{ text: prompt }] }],
      tools: [{ functionDeclarations: [{ name: "Bash", parametersJsonSchema: SHELL }] }],
    },
  }),
} as const;

type Api = keyof typeof APIS;
const EVERY = Object.keys(APIS) as Api[];

function ask(api: Api, prompt: string, stream: boolean, init: RequestInit = {}): Promise<Response> {
  const { path, body } = APIS[api](prompt, stream);
  const headers = { "content-type": "application/json", authorization: `Bearer ${STUB_KEY}` };
  return fetch(stub.url + path, { method: "POST", headers, body: JSON.stringify(body), ...init });
}

const WHOLE: Readonly<Record<Api, object>> = {
  anthropic: { content: [{ type: "text", text: "hi" }], stop_reason: "end_turn", usage: { output_tokens: 22 } },
  chat: { choices: [{ message: { content: "hi" }, finish_reason: "stop" }], usage: { total_tokens: 133 } },
  responses: { status: "completed", output: [{ content: [{ text: "hi" }] }], usage: { input_tokens: 111 } },
  gemini: { candidates: [{ content: { parts: [{ text: "hi" }] }, finishReason: "STOP" }] },
};

const CALL: Readonly<Record<Api, object>> = {
  anthropic: { content: [{ type: "tool_use", name: "Bash", input: { command: "ls" } }], stop_reason: "tool_use" },
  chat: { choices: [{ message: { tool_calls: [{ function: { name: "Bash", arguments: '{"command":"ls"}' } }] } }] },
  responses: { output: [{ type: "function_call", name: "Bash", arguments: '{"command":"ls"}' }] },
  gemini: { candidates: [{ content: { parts: [{ functionCall: { name: "Bash", args: { command: "ls" } } }] } }] },
};

describe.each(EVERY)("the model server speaks %s", (api) => {
  it("in one piece, and remembers what it was asked", async () => {
    expect(await (await ask(api, "[[text:hi]]", false)).json()).toMatchObject(WHOLE[api]);
    expect(await (await ask(api, "[[bash:ls]]", false)).json()).toMatchObject(CALL[api]);
    expect(stub.requests).toMatchObject([
      { number: 1, dialect: api, model: "m", system: "be good", tools: ["Bash"], attempt: 1, step: { name: "text" } },
      { number: 2, dialect: api, step: { name: "bash", argument: "ls" } },
    ]);
    expect(stub.requests[0]?.turns.at(-1)).toEqual({ who: "user", texts: ["[[text:hi]]"] });
    expect(stub.requests[0]?.headers.authorization).toBe(`Bearer ${STUB_KEY}`);
  });

  it("as a stream of events", async () => {
    const response = await ask(api, "[[text:hi]]", true);
    expect(response.headers.get("content-type")).toBe("text/event-stream");
    const events = await response.text();
    expect(events).toContain('"hi"');
    expect(events).toMatch(
      {
        anthropic: /event: message_start\n[^]*event: content_block_delta[^]*event: message_stop/,
        chat: /"finish_reason":"stop"[^]*"total_tokens":133[^]*data: \[DONE\]/,
        responses: /event: response.created\n[^]*response.output_text.delta[^]*event: response.completed/,
        gemini: /"finishReason":"STOP"/,
      }[api],
    );
    expect(await (await ask(api, "[[bash:ls]]", true)).text()).toContain("Bash");
  });

  it("with errors, once or always, and when to come again", async () => {
    const codes = async (prompt: string) => {
      const answers = [await ask(api, prompt, true), await ask(api, prompt, true)];
      await Promise.all(answers.map((answer) => answer.text()));
      return answers.map(({ status }) => status);
    };
    expect(await codes("[[err:401]]")).toEqual([401, 401]);
    expect(await codes("[[err1:529; text]]")).toEqual([529, 200]);
    const limited = await ask(api, "[[err:429:7]]", false);
    expect([limited.status, limited.headers.get("retry-after")]).toEqual([429, "7"]);
    expect(await limited.text()).toContain("stub error 429");
  });

  it.each([true, false])("and breaks off in the middle, streaming: %s", async (stream) => {
    const response = await ask(api, "[[drop]]", stream);
    expect(response.status).toBe(200);
    await expect(response.text()).rejects.toThrow();
    const again = `[[drop1; text]] ${stream}`;
    await expect(ask(api, again, stream).then((one) => one.text())).rejects.toThrow();
    expect(await (await ask(api, again, stream)).text()).toContain("STUB-OK");
  });
});

describe("the model server", () => {
  it("says nothing until the client leaves, and ends all the same", async () => {
    const left = new AbortController();
    const answer = ask("anthropic", "[[hang]]", true, { signal: left.signal });
    await until(() => stub.requests.length === 1, "the request came");
    left.abort();
    await expect(answer).rejects.toThrow("aborted");
    const open = ask("chat", "[[hang]]", true).catch((error: Error) => error.message);
    await until(() => stub.requests.length === 2, "the next came");
    await stub.close();
    expect(await open).toBe("fetch failed");
    stub = await startModelStub();
  });

  it("sends the beginning at once when it is slow", async () => {
    const response = await ask("anthropic", "[[slow:0.01]]", true);
    expect(response.status).toBe(200);
    expect(await response.text()).toContain("STUB-OK");
  });

  it("counts the model's turns in the history of each API", async () => {
    const next = async (path: string, body: object) =>
      (await fetch(stub.url + path, { method: "POST", body: JSON.stringify(body) })).text();
    const prompt = "[[bash:ls; text:second]]";
    expect(
      await next("/v1/messages", {
        messages: [
          { role: "user", content: prompt },
          { role: "assistant", content: [{ type: "tool_use", id: "1", name: "Bash", input: {} }] },
          {
            role: "user",
            content: [{ type: "tool_result", tool_use_id: "1", content: [{ type: "text", text: "a" }] }],
          },
        ],
      }),
    ).toContain("second");
    expect(
      await next("/chat/completions", {
        messages: [
          { role: "user", content: prompt },
          { role: "assistant", tool_calls: [] },
          { role: "tool", content: "a" },
        ],
      }),
    ).toContain("second");
    expect(
      await next("/responses", {
        input: [
          { type: "additional_tools", role: "developer", tools: [{ type: "custom", name: "told" }] },
          { role: "user", content: prompt },
          { type: "function_call", name: "Bash", arguments: "{}" },
          { type: "function_call_output", output: "a" },
        ],
        tools: [{ type: "namespace", name: "mcp", tools: [{ name: "t", parameters: {} }] }],
      }),
    ).toContain("second");
    expect(
      await next("/models/m:generateContent", {
        contents: [
          { role: "user", parts: [{ text: prompt }] },
          { role: "model", parts: [{ functionCall: {} }] },
          { role: "user", parts: [{ functionResponse: { response: { output: "a" } } }] },
        ],
      }),
    ).toContain("second");
    expect(stub.requests.map(({ turns }) => turns.map(({ who }) => who))).toEqual(
      Array.from({ length: 4 }, (_, i) => [...(i === 2 ? ["system"] : []), "user", "model", "tool"]),
    );
    expect(stub.requests[2]?.tools).toEqual(["mcp.t", "told"]);
  });

  it("answers what clients ask besides, and what is no JSON", async () => {
    expect(await (await fetch(`${stub.url}/v1/models`)).json()).toMatchObject({ data: [{ id: "stub-model" }] });
    const count = await fetch(`${stub.url}/v1/messages/count_tokens`, { method: "POST", body: "{}" });
    expect(await count.json()).toMatchObject({ input_tokens: 10 });
    expect((await fetch(`${stub.url}/nothing`)).status).toBe(404);
    expect(stub.others).toEqual(["GET /v1/models", "POST /v1/messages/count_tokens", "GET /nothing"]);
    const broken = await fetch(`${stub.url}/v1/messages`, { method: "POST", body: "{" });
    expect(await broken.text()).toContain("STUB-OK");
  });

  it("refuses a WebSocket", async () => {
    const socket = connect(Number(new URL(stub.url).port), "127.0.0.1");
    socket.write("GET /v1/responses HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    expect(await text(socket)).toMatch(/^HTTP\/1\.1 426 /);
  });

  it("is found by variables", () => {
    expect(stub.env({ urls: ["OTHER_URL"], keys: ["OTHER_KEY"] })).toMatchObject({
      ANTHROPIC_BASE_URL: stub.url,
      OPENAI_BASE_URL: `${stub.url}/v1`,
      OTHER_URL: `${stub.url}/v1`,
      OTHER_KEY: STUB_KEY,
    });
  });
});
