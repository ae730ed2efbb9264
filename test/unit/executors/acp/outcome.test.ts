import { describe, expect, it } from "vitest";
import { finalOf } from "../../../../executors/acp/outcome.ts";
import type { TurnFacts } from "../../../../executors/acp/outcome.ts";

function turn(change: Partial<TurnFacts>): TurnFacts {
  return {
    ...{ label: "A", stopReason: "end_turn", answer: "", lastPiece: "", used: false, reportsUsage: true, toolCalls: 0 },
    ...(change.answer !== undefined && { lastPiece: change.answer }),
    ...change,
  };
}

/** What Copilot said over ACP for a 401, in three pieces. */
const COPILOT_401 =
  "Error: Authentication failed with provider at http://127.0.0.1:1/v1 (HTTP 401).\n  Check your COPILOT_PROVIDER_API_KEY.";
const COPILOT_RETRY = "Info: Request failed due to a transient API error. Retrying...";

describe("the end of a turn over ACP", () => {
  it.each<[string, Partial<TurnFacts>]>([
    ["tokens were used", { answer: "Done.", used: true }],
    ["tokens were used, and nothing said", { used: true }],
    ["an answer is about an error", { answer: "Error: that is what the program prints (HTTP 401).", used: true }],
    ["an agent does not tell of tokens", { answer: "Done.", reportsUsage: false }],
    ["an agent for once does not tell of tokens", { answer: "Done." }],
    ["tools were called and nothing said", { toolCalls: 1, reportsUsage: false }],
    ["a long answer begins like an error", { answer: `Error: ${"x".repeat(3000)}`, reportsUsage: false }],
    ["an answer tells of failures in its midst", { answer: "All is well: no error: none.", reportsUsage: false }],
  ])("is a result when %s", (_, change) => {
    expect(finalOf(turn(change))).toEqual({ ok: true, text: change.answer ?? "" });
  });

  it.each<[string, Partial<TurnFacts>, string]>([
    ["nothing was said", {}, "NO_ANSWER"],
    ["white space was said", { answer: " \n", reportsUsage: false }, "NO_ANSWER"],
    ["a key was refused", { answer: COPILOT_RETRY + COPILOT_401, lastPiece: COPILOT_401 }, "NOT_LOGGED_IN"],
    ["a request was refused", { answer: "stream error: unexpected status 400 Bad Request: no" }, "MODEL_REFUSED"],
    ["too much was asked", { answer: "exceeded retry limit, last status: 429 Too Many Requests" }, "RATE_LIMITED"],
    ["a quota is used up", { answer: "You have hit your usage limit." }, "RATE_LIMITED"],
    ["the provider is gone", { answer: "API Error: connection refused", reportsUsage: false }, "MODEL_UNREACHABLE"],
    ["an error came after tools", { answer: "Error: 503 overloaded", toolCalls: 2 }, "MODEL_UNREACHABLE"],
    ["an error came as JSON", { answer: '{"error":{"code":401}}', reportsUsage: false }, "NOT_LOGGED_IN"],
    ["an error has no name", { answer: "Error: it burns", reportsUsage: false }, "AGENT_FAILED"],
  ])("is a failure when %s", (_, change, reason) => {
    expect(finalOf(turn(change))).toMatchObject({ ok: false, reason });
  });

  it.each([
    ["max_tokens", "LIMIT_REACHED"],
    ["max_turn_requests", "LIMIT_REACHED"],
    ["refusal", "MODEL_REFUSED"],
    ["cancelled", "AGENT_FAILED"],
    ["bored", "AGENT_FAILED"],
    ["", "AGENT_FAILED"],
  ])("that stops by %o is a failure, whatever was said and used", (stopReason, reason) => {
    const final = finalOf(turn({ stopReason, answer: "Half of it.", used: true }));
    expect(final).toMatchObject({
      ok: false,
      reason,
      message: expect.stringContaining("it said: Half of it.") as string,
    });
  });
});
