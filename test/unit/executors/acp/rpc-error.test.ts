import { describe, expect, it } from "vitest";
import { agentErrorOf } from "../../../../executors/acp/rpc-error.ts";
import type { Step } from "../../../../executors/acp/rpc-error.ts";

describe("an error of JSON-RPC", () => {
  it.each<[string, number, string, unknown, Step, string]>([
    ["a missing login", -32_000, "Authentication required", undefined, "begin", "NOT_LOGGED_IN"],
    ["a missing login without words", -32_000, "No.", undefined, "begin", "NOT_LOGGED_IN"],
    ["a limit under the same code", -32_000, "API Error: 429 slow down", undefined, "prompt", "RATE_LIMITED"],
    ["a status as the code", 401, '{"error":{"code":401,"message":"no"}}', undefined, "prompt", "NOT_LOGGED_IN"],
    ["another status as the code", 529, "busy", undefined, "prompt", "MODEL_UNREACHABLE"],
    ["an inner error", -32_603, "Internal error", { details: "401 no" }, "prompt", "NOT_LOGGED_IN"],
    ["an inner error of words", -32_603, "Internal error", "socket hang up", "prompt", "MODEL_UNREACHABLE"],
    ["a nested one", -31_002, "Failed", { error: { message: "status: 403" } }, "prompt", "MODEL_REFUSED"],
    ["another", -32_603, "Internal error", { details: "it burns" }, "prompt", "AGENT_FAILED"],
    [
      "a method that it lacks",
      -32_601,
      '"Method not found": session/set_mode',
      undefined,
      "configure",
      "AGENT_VERSION",
    ],
    ["a lost session", -32_002, "Resource not found", undefined, "resume", "UNKNOWN_SESSION"],
    ["a lost session in words", -32_602, "Session not found: x", undefined, "resume", "UNKNOWN_SESSION"],
    [
      "a lost session in other words",
      -32_603,
      "Internal error",
      { details: "No previous sessions found." },
      "resume",
      "UNKNOWN_SESSION",
    ],
    [
      "a lost session of Kimi",
      -32_602,
      "Invalid params: Unknown sessionId: 1-2",
      undefined,
      "resume",
      "UNKNOWN_SESSION",
    ],
    ["a lost session of OpenCode", -32_603, "service failure", { service: "session" }, "resume", "UNKNOWN_SESSION"],
    ["something lost later", -32_002, "Resource not found: a.txt", undefined, "prompt", "AGENT_FAILED"],
  ])("for %s has its name", (_, code, message, data, step, reason) => {
    expect(agentErrorOf({ code, message, data }, step, "A")).toMatchObject({ reason });
  });

  it("says what the agent said, on one line and not without end", () => {
    const data = { details: "first\n  second" };
    expect(agentErrorOf({ code: -32_603, message: "Internal error", data }, "prompt", "A").message).toBe(
      "A: Internal error: first second",
    );
    expect(agentErrorOf({ code: -32_603, message: "same", data: "same" }, "prompt", "A").message).toBe("A: same");
    expect(agentErrorOf({ code: 7, message: "" }, "prompt", "A").message).toBe("A: error 7");
    expect(agentErrorOf({ code: 7, message: "x".repeat(9000) }, "prompt", "A").message).toHaveLength(1003);
  });
});
