import { describe, expect, it } from "vitest";
import type { AgentExit } from "../../../../executors/lib/agent/agent-process.ts";
import { reasonOfText, resultOf } from "../../../../executors/lib/agent/final.ts";
import type { Final } from "../../../../executors/lib/agent/final.ts";

const done: Final = { ok: true, text: "done" };
const exit = (more: Partial<AgentExit> = {}): AgentExit => ({
  code: 0,
  signal: null,
  stopped: false,
  stderrTail: "",
  ...more,
});

describe("the result of an agent's turn", () => {
  it("is what it said last, when a model answered and it exited with 0", () => {
    expect(resultOf("x", { final: done, answered: true, exit: exit() })).toEqual(done);
  });

  it.each<[string, Parameters<typeof resultOf>[1], { reason: string; message: string }]>([
    [
      "its own error comes before its exit code",
      { final: { ok: false, reason: "RATE_LIMITED", message: "too many" }, answered: true, exit: exit() },
      { reason: "RATE_LIMITED", message: "too many" },
    ],
    [
      "done, and no model has answered",
      { final: done, answered: false, exit: exit() },
      { reason: "NO_ANSWER", message: "x exited with code 0, and no model has answered; nothing on stderr" },
    ],
    [
      "without a last word",
      { final: undefined, answered: true, exit: exit({ stderrTail: "a\nb" }) },
      { reason: "NO_ANSWER", message: "x exited with code 0, and no model has answered; the end of its stderr: b" },
    ],
    [
      "done, and another exit code than 0",
      { final: done, answered: true, exit: exit({ code: 3 }) },
      { reason: "AGENT_FAILED", message: "x exited with code 3; nothing on stderr" },
    ],
    [
      "an exit code with a status on stderr",
      { final: undefined, answered: false, exit: exit({ code: 1, stderrTail: "API Error: 529 overloaded" }) },
      {
        reason: "MODEL_UNREACHABLE",
        message: "x exited with code 1; the end of its stderr: API Error: 529 overloaded",
      },
    ],
    [
      "a signal",
      { final: done, answered: true, exit: exit({ code: null, signal: "SIGKILL" }) },
      { reason: "AGENT_FAILED", message: "x was ended by SIGKILL; nothing on stderr" },
    ],
  ])("is a failure: %s", (_, end, expected) => {
    expect(() => resultOf("x", end)).toThrow(expect.objectContaining(expected));
  });
});

it.each([
  ["API Error: 401 stub error 401", "NOT_LOGGED_IN"],
  ["Please run /login", "NOT_LOGGED_IN"],
  ["Invalid API key", "NOT_LOGGED_IN"],
  ["status code: 429", "RATE_LIMITED"],
  ["Usage limit reached", "RATE_LIMITED"],
  ["HTTP 403 Forbidden", "MODEL_REFUSED"],
  ["unexpected status 500", "MODEL_UNREACHABLE"],
  ["connect ECONNREFUSED 127.0.0.1:1", "MODEL_UNREACHABLE"],
  ["the file has 429 lines", "AGENT_FAILED"],
  ["something else", "AGENT_FAILED"],
])("“%s” means %s", (text, reason) => {
  expect(reasonOfText(text)).toBe(reason);
});
