import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { readArguments } from "../../../mcp/arguments.ts";
import { readBody } from "../../../mcp/body.ts";
import { ToolError } from "../../../mcp/errors.ts";
import { parseJson } from "../../../mcp/json.ts";
import { TOOLS } from "../../../mcp/tools.ts";

function toolNamed(name: string) {
  const tool = TOOLS.find((tool) => tool.name === name);
  if (tool === undefined) throw new Error(`there is no ${name}`);
  return tool;
}

const START = toolNamed("start_agent_session");
const RESULT = toolNamed("get_agent_session_result");
const STOP = toolNamed("stop_agent_session");

describe("arguments", () => {
  it.each([
    [START, { mode: "ASYNC-POLL" }, { mode: "async_poll" }],
    [START, { timeout_seconds: "90" }, { timeout_seconds: 90 }],
    [START, { tags: "gpu" }, { tags: ["gpu"] }],
    [START, { tags: '["gpu", "", null]' }, { tags: ["gpu"] }],
    [START, { parameters: '{"a": [1]}' }, { parameters: { a: [1] } }],
    [START, { parameters: {} }, { parameters: {} }],
    [START, { prompt: "[1]" }, { prompt: "[1]" }],
    [RESULT, { offset: "3.0", limit: null, part: "" }, { offset: 3, limit: 32_000, part: "text" }],
    [STOP, { include_children: "True", reason: null }, { include_children: true, reason: "" }],
  ])("of %o: %j are %j", (tool, given, meant) => {
    expect(readArguments(tool, given)).toMatchObject({ args: meant, ignored: [] });
  });

  it.each([
    [START, { timeout_seconds: "soon" }, 'timeout_seconds must be a whole number from 1 to 604800, not "soon"'],
    [START, { timeout_seconds: 1.5 }, "timeout_seconds must be a whole number from 1 to 604800, not 1.5"],
    [START, { session_name: "x".repeat(200) }, "must be a text of 1 to 128 characters, not a text of 200 characters"],
    [START, { parameters: [] }, "parameters must be an object of JSON, not a list of 0"],
    [START, { tags: [{}] }, "tags[0] must be a text of 1 to 128 characters, not an object"],
    [START, { tags: {} }, "tags must be a list of at most 64 entries, not an object"],
    [RESULT, { run_id: 5 }, "a start returns it, get_agent_session_status shows the last), not 5"],
    [STOP, { include_children: "yes" }, 'include_children must be true or false, not "yes"'],
  ])("of %o: %j are refused: %s", (tool, given, why) => {
    expect(() => readArguments(tool, given)).toThrow(why);
    expect(() => readArguments(tool, given)).toThrow("Nothing was done.");
  });

  it("that are many and unknown are not all named", () => {
    const given = Object.fromEntries(Array.from({ length: 1_000 }, (_, i) => [`${i}`.repeat(1_000), i]));
    const { ignored } = readArguments(START, given);
    expect(ignored).toHaveLength(6);
    expect(ignored.at(-1)).toBe("So were 995 others.");
    expect(ignored.join(" ").length).toBeLessThan(1_000);
  });

  it("of any kind are taken or refused in words", () => {
    const keys = Object.keys(START.schema.properties);
    const values = fc.dictionary(fc.oneof(fc.constantFrom(...keys), fc.string()), fc.jsonValue({ maxDepth: 30 }));
    fc.assert(
      fc.property(fc.constantFrom(...TOOLS), values, (tool, given) => {
        try {
          readArguments(tool, given);
        } catch (error) {
          expect(error).toBeInstanceOf(ToolError);
          expect((error as Error).message.length).toBeLessThan(4_000);
        }
      }),
    );
  });
});

describe("a body", () => {
  it("of any bytes or JSON is a message or a refusal", () => {
    const body = fc.oneof(
      fc.uint8Array(),
      fc.json({ maxDepth: 40 }).map((text) => Buffer.from(text)),
    );
    fc.assert(fc.property(body, (bytes) => ["messages", "refused"].includes(readBody(bytes).type)));
  });

  it("repeats no more than a line of it", () => {
    const id = "x".repeat(100_000);
    const call = (args: unknown) => ({
      jsonrpc: "2.0",
      id,
      method: "tools/call",
      params: { name: id, arguments: args },
    });
    for (const body of [call(5), [call({}), call({})]]) {
      const read = readBody(Buffer.from(JSON.stringify(body)));
      expect(read.type === "refused" && read.error.error.message.length).toBeLessThan(300);
    }
  });
});

describe("numbers", () => {
  it.each(["0", "-0", "0.1", "1e300", "9007199254740992", "12345678901234567000", "1".repeat(3)])(
    "%s are read",
    (text) => {
      expect(parseJson(`[${text}]`)).toEqual([Number(text)]);
    },
  );

  it.each([
    "9007199254740993",
    "1029384756610293847",
    "-1029384756610293847",
    "1e400",
    "-1e400",
    "9007199254740993e0",
    "1".repeat(400),
  ])("%s would be changed", (source) => {
    expect(parseJson(`[${source}]`)).toEqual([{ source }]);
  });
});
