import { describe, expect, it } from "vitest";
import { asJson } from "../../../mcp/answer.ts";

const stream = (...messages: object[]) =>
  new Response(messages.map((message) => `event: message\ndata: ${JSON.stringify(message)}\n\n`).join(""), {
    headers: { "content-type": "text/event-stream" },
  });

describe("a stream of events as JSON", () => {
  it("is its answer, or a list of them, without what is no answer", async () => {
    const told = { jsonrpc: "2.0", method: "notifications/progress" };
    const answer = { jsonrpc: "2.0", id: 1, result: {} };
    expect(await (await asJson(stream(told, answer), false)).json()).toEqual(answer);
    expect(await (await asJson(stream(told, answer), true)).json()).toEqual([answer]);
  });

  it.each([false, true])("that ends before an answer is an error which says so (batch: %s)", async (batch) => {
    const cut = await asJson(stream(), batch);
    expect([cut.status, await cut.json()]).toMatchObject([503, { id: null, error: { code: -32_000 } }]);
  });
});
