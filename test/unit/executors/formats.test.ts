import type { JsonObject } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { FORMATS } from "../../../executors/agent-cli/formats/formats.ts";
import type { Reading } from "../../../executors/agent-cli/formats/format.ts";
import type { Final } from "../../../executors/lib/agent/final.ts";
import type { Usage } from "../../../executors/lib/agent/usage.ts";
import { agentLines } from "../../support/agent-lines.ts";

type Name = keyof typeof FORMATS;

interface Read {
  readonly said: Reading["said"];
  readonly sessionIds: readonly string[];
  readonly usages: readonly Usage[];
  readonly final: Final | undefined;
  readonly answered: boolean;
}

function readAll(name: Name, lines: readonly (string | object)[], before: Usage = {}): Read {
  const reader = FORMATS[name].reader(before);
  const readings = lines
    .map((line) => (typeof line === "string" ? line : JSON.stringify(line)))
    .filter((line) => line.startsWith("{"))
    .map((line) => reader.read(JSON.parse(line) as JsonObject));
  return {
    said: readings.flatMap(({ said = [] }) => said),
    sessionIds: [...new Set(readings.flatMap(({ sessionId }) => sessionId ?? []))],
    usages: readings.flatMap(({ usage }) => usage ?? []),
    final: readings.findLast(({ final }) => final !== undefined)?.final ?? reader.end(),
    answered: readings.some(({ answered }) => answered),
  };
}

/** Kinds of the events, with what identifies them. */
function kinds({ said = [] }: Read): string[] {
  return said.map((event) => {
    if (event.type === "tool") return "input" in event ? `call ${event.name}` : `outcome ${event.name}`;
    return event.type === "message" ? `says ${event.text.slice(0, 12)}` : event.type;
  });
}

describe("what real agents print", () => {
  it.each<[Name, string, string[]]>([
    [
      "claude",
      "ALL DONE",
      ["call Bash", "outcome Bash", "call mcp__orch__start_child", "outcome mcp__orch__start_child", "says ALL DONE"],
    ],
    [
      "copilot",
      "COPILOT DONE",
      ["call bash", "outcome bash", "call orch-start_child", "outcome orch-start_child", "says COPILOT DONE"],
    ],
    ["codex", "DONE1", ["status", "call shell", "outcome shell", "says DONE1"]],
    ["opencode", "OC DONE", ["call bash", "outcome bash", "says OC DONE"]],
    [
      "gemini",
      "GEM DONE",
      [
        "call run_shell_command",
        "outcome run_shell_command",
        "call mcp_orch_start_child",
        "outcome mcp_orch_start_child",
        "says GEM DONE",
      ],
    ],
    ["qwen", "NO-MCP-TOOL in agent,edit", ["call run_shell_command", "outcome run_shell_command", "says NO-MCP-TOOL "]],
    ["vibe", "NO-MCP-TOOL in search_tool", ["call file_system.bash", "outcome file_system.bash", "says NO-MCP-TOOL "]],
    ["pi", "PI DONE", ["call bash", "outcome bash", "says PI DONE"]],
    ["kimi", "KIMI DONE", ["call Bash", "outcome Bash", "says KIMI DONE"]],
  ])("%s: its messages and tools, one session, and its answer", (name, text, events) => {
    const read = readAll(name, agentLines(name));
    expect(kinds(read)).toEqual(events);
    expect(read.final).toMatchObject({ ok: true, text: expect.stringContaining(text) });
    expect(read.sessionIds).toHaveLength(1);
    expect(read.answered).toBe(true);
  });

  it.each<[Name, Usage[]]>([
    ["claude", [{ inputTokens: 432, outputTokens: 66, costUsd: 0.0026718 }]],
    ["codex", [{ inputTokens: 222, outputTokens: 44 }]],
    ["copilot", []],
    ["gemini", [{ inputTokens: 333, outputTokens: 66 }]],
    ["qwen", [{ inputTokens: 222, outputTokens: 44 }]],
    ["vibe", []],
    ["kimi", []],
  ])("%s: its usage", (name, usages) => {
    expect(readAll(name, agentLines(name)).usages).toEqual(usages);
  });

  it("opencode and pi: usage of each step, with what came from a cache", () => {
    expect(readAll("opencode", agentLines("opencode")).usages).toEqual([
      { inputTokens: 111, outputTokens: 22, costUsd: 0 },
      { inputTokens: 111, outputTokens: 22, costUsd: 0 },
    ]);
    expect(readAll("pi", agentLines("pi")).usages).toEqual([
      { inputTokens: 111, outputTokens: 22, costUsd: 0.000122 },
      { inputTokens: 111, outputTokens: 22, costUsd: 0.000122 },
    ]);
  });

  it("claude: takes what the conversation had cost before off its cost", () => {
    const [usage] = readAll("claude", agentLines("claude"), { costUsd: 0.002 }).usages;
    expect(usage?.costUsd).toBeCloseTo(0.0006718, 6);
  });

  it("every line in any order of its keys, and lines that nobody knows", () => {
    for (const name of Object.keys(FORMATS) as Name[]) {
      const lines = agentLines(name).filter((line) => line.startsWith("{"));
      const turned = lines.map((line) => Object.fromEntries(Object.entries(JSON.parse(line) as object).reverse()));
      const unknown = [{ type: "news", data: null }, { role: 5 }, {}, { type: "result_of_tomorrow", part: [] }];
      expect(readAll(name, [...unknown, ...turned, ...unknown]).final).toEqual(readAll(name, lines).final);
    }
  });
});

describe("errors", () => {
  it.each<[string, Name, readonly (string | object)[], Partial<Final>]>([
    ["a 401", "codex", agentLines("codex-401"), { ok: false, reason: "NOT_LOGGED_IN" }],
    [
      "a 429",
      "codex",
      [{ type: "turn.failed", error: { message: "exceeded retry limit, last status: 429 Too Many Requests" } }],
      { ok: false, reason: "RATE_LIMITED" },
    ],
    [
      "a dropped stream",
      "codex",
      [{ type: "turn.failed", error: { message: "stream disconnected before completion: Transport error" } }],
      { ok: false, reason: "MODEL_UNREACHABLE" },
    ],
    [
      "an error without the end of a turn",
      "codex",
      [{ type: "error", message: "HTTP error 503" }],
      { ok: false, reason: "MODEL_UNREACHABLE" },
    ],
    [
      "a 401",
      "opencode",
      agentLines("opencode-401"),
      { ok: false, reason: "NOT_LOGGED_IN", message: "stub error 401" },
    ],
    [
      "an error that is a success",
      "claude",
      [{ type: "result", subtype: "success", is_error: true, result: "API Error: 529 overloaded" }],
      { ok: false, reason: "MODEL_UNREACHABLE", message: "API Error: 529 overloaded" },
    ],
    [
      "an error",
      "qwen",
      [
        {
          type: "result",
          subtype: "error_during_execution",
          is_error: true,
          error: { message: "[API Error: 401 no]" },
        },
      ],
      { ok: false, reason: "NOT_LOGGED_IN", message: "[API Error: 401 no]" },
    ],
    [
      "an error, and a result with exit code 1",
      "copilot",
      [
        { type: "session.error", data: { errorType: "authentication", statusCode: 401, message: "no key" } },
        { type: "result", exitCode: 1, sessionId: "s" },
      ],
      { ok: false, reason: "NOT_LOGGED_IN", message: "no key" },
    ],
    [
      "an error",
      "gemini",
      [{ type: "result", status: "error", error: { type: "Error", message: "API error 429: quota" }, stats: {} }],
      { ok: false, reason: "RATE_LIMITED", message: "API error 429: quota" },
    ],
    [
      "an error that exits 0",
      "pi",
      [
        {
          type: "message_end",
          message: { role: "assistant", content: [], stopReason: "error", errorMessage: "401 stub error" },
        },
        { type: "agent_settled" },
      ],
      { ok: false, reason: "NOT_LOGGED_IN", message: "401 stub error" },
    ],
  ])("%s of %s", (_, name, lines, final) => {
    expect(readAll(name, lines).final).toMatchObject(final);
  });

  it("pi: an attempt that succeeds after an error", () => {
    const failed = { role: "assistant", content: [], stopReason: "error", errorMessage: "529" };
    const well = { role: "assistant", content: [{ type: "text", text: "fine" }], stopReason: "stop" };
    const lines = [
      { type: "message_end", message: failed },
      { type: "message_end", message: well },
      { type: "agent_settled" },
    ];
    expect(readAll("pi", lines).final).toEqual({ ok: true, text: "fine" });
  });

  it("a tool that failed", () => {
    const { said } = readAll("codex", [
      {
        type: "item.completed",
        item: { id: "i", type: "command_execution", command: "false", aggregated_output: "no", exit_code: 1 },
      },
    ]);
    expect(said).toEqual([{ type: "tool", tool_call_id: "i", name: "shell", error: "exit code 1\nno" }]);
  });

  it("codex: a call of a server's tool, and its error", () => {
    const item = { id: "i", type: "mcp_tool_call", server: "orch", tool: "start", arguments: { a: 1 } };
    const { said } = readAll("codex", [
      { type: "item.started", item: { ...item, status: "in_progress" } },
      { type: "item.completed", item: { ...item, status: "failed", error: { message: "no such agent" } } },
    ]);
    expect(said).toEqual([
      { type: "tool", tool_call_id: "i", name: "orch.start", input: { a: 1 } },
      { type: "tool", tool_call_id: "i", name: "orch.start", error: "no such agent" },
    ]);
  });

  it("servers that an agent could not reach", () => {
    const reading = FORMATS.copilot.reader({}).read({
      type: "session.mcp_servers_loaded",
      ephemeral: true,
      data: {
        servers: [
          { name: "orch", status: "failed" },
          { name: "other", status: "disabled" },
        ],
      },
    });
    expect(reading.failedServers).toEqual(["orch (failed)"]);
  });
});

describe("structured results", () => {
  it("qwen and claude have them in their result", () => {
    const result = { type: "result", subtype: "success", is_error: false, result: "{}" };
    expect(readAll("qwen", [{ ...result, structured_result: { a: 1 } }]).final).toMatchObject({
      ok: true,
      data: { a: 1 },
    });
    expect(readAll("claude", [{ ...result, structured_output: { a: 1 } }]).final).toMatchObject({
      ok: true,
      data: { a: 1 },
    });
  });
});
