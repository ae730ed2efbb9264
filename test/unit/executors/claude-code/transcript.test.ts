import { describe, expect, it } from "vitest";
import { Transcript } from "../../../../executors/claude-code/transcript.ts";

const read = (...messages: unknown[]) => {
  const transcript = new Transcript({ costBeforeUsd: 1 });
  return messages.map((message) => transcript.read(message));
};
const result = (more: object) => ({
  ...{ type: "result", subtype: "success", is_error: false, result: "text", total_cost_usd: 1.5, num_turns: 3 },
  ...{ usage: { input_tokens: 10, cache_read_input_tokens: 5, output_tokens: 2 }, modelUsage: { opus: {} } },
  ...more,
});

describe("the messages of the SDK", () => {
  it("are events as they come: text, a tool and its outcome under one id and name", () => {
    const said = read(
      { type: "system", subtype: "init", session_id: "s", mcp_servers: [{ name: "a", status: "connected" }] },
      {
        ...{ type: "assistant", message: { model: "opus", content: [{ type: "text", text: "I look." }] } },
        ...{ parent_tool_use_id: null },
      },
      {
        type: "assistant",
        message: { model: "opus", content: [{ type: "tool_use", id: "t", name: "Bash", input: { a: 1 } }] },
      },
      {
        type: "user",
        message: { content: [{ type: "tool_result", tool_use_id: "t", content: [{ type: "text", text: "out" }] }] },
      },
    );
    expect(said.flatMap((reading) => reading.said)).toEqual([
      { type: "session", executor_session_id: "s" },
      { type: "message", role: "assistant", text: "I look." },
      { type: "tool", tool_call_id: "t", name: "Bash", input: { a: 1 } },
      { type: "tool", tool_call_id: "t", name: "Bash", output: "out" },
    ]);
    expect(said[0]?.failedServers).toEqual([]);
    expect(said[1]?.answered).toBe(true);
  });

  it("name the servers that do not answer", () => {
    const servers = [
      { name: "a", status: "failed" },
      { name: "b", status: "needs-auth" },
      { name: "c", status: "connected" },
    ];
    const [reading] = read({ type: "system", subtype: "init", session_id: "s", mcp_servers: servers });
    expect(reading?.failedServers).toEqual(["a (failed)", "b (needs-auth)"]);
  });

  it("say what is waited for, and until when", () => {
    const said = read(
      { type: "system", subtype: "api_retry", attempt: 2, error_status: 529, retry_delay_ms: 1500 },
      {
        type: "rate_limit_event",
        rate_limit_info: { status: "rejected", rateLimitType: "five_hour", resetsAt: 1_800_000_000 },
      },
      { type: "rate_limit_event", rate_limit_info: { status: "allowed" } },
    );
    expect(said.flatMap((reading) => reading.said)).toEqual([
      { type: "status", text: "the model's provider answered 529; attempt 2 follows in 2 s" },
      { type: "status", text: "the five_hour limit is used up; it is free again at 2027-01-15T08:00:00.000Z" },
    ]);
  });

  it("of a sub-agent are what goes on, not what the agent says", () => {
    const [reading] = read({
      ...{ type: "assistant", parent_tool_use_id: "t0" },
      message: { model: "opus", content: [{ type: "text", text: "deep" }] },
    });
    expect(reading?.said).toEqual([{ type: "status", text: "sub-agent: deep" }]);
  });

  it.each([null, 7, "text", [], { type: "new" }, { type: "assistant" }, { type: "user", message: { content: "hi" } }])(
    "that nobody knows say nothing: %j",
    (message) => {
      expect(read(message)[0]?.said).toEqual([]);
    },
  );
});

describe("the last message", () => {
  it("is the result, with the usage of this run alone", () => {
    const [reading] = read(result({ structured_output: { answer: 7 } }));
    expect(reading).toMatchObject({ final: { ok: true, text: "text", data: { answer: 7 } }, costUsd: 1.5 });
    expect(reading?.said).toEqual([
      { type: "usage", input_tokens: 15, output_tokens: 2, cost_usd: 0.5, model: "opus" },
    ]);
  });

  it.each([
    ["an error that calls itself success", { is_error: true, result: "API Error: 401 no" }, "NOT_LOGGED_IN"],
    ["too many turns", { is_error: true, subtype: "error_max_turns" }, "LIMIT_REACHED"],
    ["too much money", { is_error: true, subtype: "error_max_budget_usd" }, "LIMIT_REACHED"],
    ["no fitting result", { is_error: true, subtype: "error_max_structured_output_retries" }, "OUTPUT_SCHEMA"],
    [
      "an unknown conversation",
      { is_error: true, result: "", errors: ["No conversation found with session ID: x"] },
      "UNKNOWN_SESSION",
    ],
    ["a status of its own", { is_error: true, api_error_status: 429, result: "slow down" }, "RATE_LIMITED"],
    [
      "an error without words",
      { is_error: true, subtype: "error_during_execution", result: undefined },
      "AGENT_FAILED",
    ],
  ])("is a failure: %s", (_, more, reason) => {
    expect(read(result(more))[0]?.final).toMatchObject({ ok: false, reason });
  });
});
