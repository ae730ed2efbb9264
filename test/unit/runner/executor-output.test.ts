import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { createValidator } from "@bufbuild/protovalidate";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ExecutorEventSchema, ExecutorOutput_Stream } from "../../../gen/agentrunner/v1/executor_pb.ts";
import type { ExecutorEvent } from "../../../gen/agentrunner/v1/executor_pb.ts";
import { EVENT_CHUNK_MAX_BYTES, RESULT_PART_MAX_BYTES, STDERR_TAIL_MAX_BYTES } from "../../../lib/protocol/limits.ts";
import { EVENT_MAX_BYTES } from "../../../runner/execution/executor-event.ts";
import { OutputParser } from "../../../runner/execution/executor-output.ts";

/** Everything that the parser says of the chunks, all of stdout unless they say otherwise. */
function parse(chunks: readonly (string | Buffer | { stderr: string })[], options: { outputMaxBytes?: number } = {}) {
  const parser = new OutputParser(options);
  const events = chunks.flatMap((chunk) =>
    typeof chunk === "object" && "stderr" in chunk
      ? parser.push("stderr", Buffer.from(chunk.stderr))
      : parser.push("stdout", Buffer.from(chunk)),
  );
  return { events: [...events, ...parser.end()], summary: parser.summary() };
}

/** Short form of an event: output as its text, with `!` for stderr; anything else as its case. */
function brief({ event }: ExecutorEvent): string {
  if (event.case !== "output") return `<${event.case}>`;
  return (event.value.stream === ExecutorOutput_Stream.STDERR ? "!" : "") + event.value.text;
}

const brieved = (...chunks: Parameters<typeof parse>[0]) => parse(chunks).events.map(brief);

describe("lines that are events", () => {
  it.each([
    [`{"type":"session","executor_session_id":"c1"}`, "session", { executorSessionId: "c1" }],
    [`{"type":"message","role":"assistant","text":"hi"}`, "message", { role: "assistant", text: "hi" }],
    [
      `{"type":"tool","tool_call_id":"t1","name":"ls","input":{"a":[1,null]}}`,
      "tool",
      { toolCallId: "t1", name: "ls" },
    ],
    [`{"type":"tool","tool_call_id":"t1","error":"denied"}`, "tool", { error: "denied" }],
    [`{"type":"result","text":"done","data":{"n":1}}`, "result", { text: "done", data: { n: 1 } }],
    [
      `{"type":"usage","input_tokens":12,"output_tokens":"3","cost_usd":0.5}`,
      "usage",
      { inputTokens: 12n, costUsd: 0.5 },
    ],
    [`  {"text":"busy","type":"status","colour":"red"}\t`, "status", { text: "busy" }],
  ])("%s", (line, name, value) => {
    for (const end of ["\n", "\r\n", ""]) {
      const { events } = parse([line + end]);
      expect(events).toHaveLength(1);
      expect(events[0]?.event).toMatchObject({ case: name, value });
    }
  });

  it("keep their place between output of both streams", () => {
    const status = `{"type":"status","text":"x"}\n`;
    expect(brieved("a\n", "b\n", { stderr: "e\n" }, `c\n${status}d\n`, status, "f")).toEqual([
      "a\nb\n",
      "!e\n",
      "c\n",
      "<status>",
      "d\n",
      "<status>",
      "f",
    ]);
  });

  it("count with their last result and session", () => {
    const { summary } = parse([
      `{"type":"session","executor_session_id":"1"}\n{"type":"result","text":"first"}\n`,
      `plain\n{"type":"session","executor_session_id":"2"}\n{"type":"result","text":"second"}\n`,
    ]);
    expect(summary).toMatchObject({ executorSessionId: "2", result: { text: "second" }, malformedEvents: 0 });
  });
});

describe("lines that are output", () => {
  it.each([
    "plain",
    "",
    "{",
    `{"type":"thinking","text":"unknown type"}`,
    `{"type":"constructor"}`,
    `{"text":"no type"}`,
    `["type","status"]`,
    `{"type":"status","text":"two"} {"type":"status","text":"on one line"}`,
    `null`,
    `x{"type":"status","text":"not at the start"}`,
  ])("%s", (line) => {
    const { events, summary } = parse([`${line}\n`]);
    expect(events.map(brief)).toEqual([`${line}\n`]);
    expect(summary.malformedEvents).toBe(0);
  });

  const deep = (levels: number) => `${'{"a":'.repeat(levels)}1${"}".repeat(levels)}`;

  it.each([
    ["status: needs text", `{"type":"status"}`],
    ["status: needs text", `{"type":"status","text":null}`],
    ["message: needs text", `{"type":"message","role":"user"}`],
    ["result: needs text or data", `{"type":"result"}`],
    ["expected string, got 5", `{"type":"result","text":5}`],
    ["Struct", `{"type":"result","data":[1]}`],
    ["1e400 is larger than", `{"type":"result","data":{"a":1e400}}`],
    ["1029384756610293847 would be read as", `{"type":"result","data":{"a":[1029384756610293847]}}`],
    ["would be read as", `{"type":"usage","input_tokens":9007199254740993}`],
    ["half a character", `{"type":"tool","name":"x","output":[{"\\udc00":1}]}`],
    ["half a character", `{"type":"tool","name":"x","input":"\\ud800"}`],
    ["UTF8", `{"type":"result","text":"\\ud800"}`],
    ["input_tokens", `{"type":"usage","input_tokens":-1}`],
    ["executorSessionId has 0 characters", `{"type":"session","executor_session_id":""}`],
    ["session: needs executor_session_id", `{"type":"session","executorSessionId":"camel"}`],
    ["name has 257 characters, 0 to 256 are allowed", `{"type":"tool","name":"${"n".repeat(257)}"}`],
    ["executorSessionId must not hold control", `{"type":"session","executor_session_id":"a\\u0000"}`],
    ["name must not hold control", `{"type":"tool","name":"a\\nb"}`],
    ["toolCallId must not hold control", `{"type":"tool","tool_call_id":"a\\u202eb","name":"x"}`],
    ["nested more than 24 levels", `{"type":"tool","name":"x","input":${deep(40)}}`],
    ["recursion depth", `{"type":"tool","name":"x","input":${"[".repeat(200_000)}${"]".repeat(200_000)}}`],
    ["larger than 1048576 bytes as protobuf", `{"type":"tool","name":"x","input":[${"0,".repeat(200_000)}0]}`],
  ])("of a known type with a wrong shape are counted: %s", (reason, line) => {
    const { events, summary } = parse([`${line}\n`, `${line}\n`]);
    expect(events.map(brief).join("")).toBe(`${line}\n${line}\n`);
    expect(summary.malformedEvents).toBe(2);
    expect(summary.malformedReason).toContain(reason);
    expect(summary.malformedReason.length).toBeLessThanOrEqual(300);
  });
});

describe("bytes", () => {
  it("may be split anywhere, inside a character or an event, without changing what is read", () => {
    const text = `héllo 漢字 🚀\r\n \n{"type":"status","text":"🚀"}\n  {"type":"status","text":"b"}\nno newline\0{"ty`;
    const bytes = Buffer.concat([Buffer.from(text), Buffer.from([0xff, 0x0a, 0xe6, 0xbc])]);
    const whole = parse([bytes]);
    const joined = (events: ExecutorEvent[]) =>
      events.map(brief).reduce<string[]>((all, text) => {
        const last = all.at(-1);
        if (last === undefined || text.startsWith("<") || last.startsWith("<")) return [...all, text];
        return [...all.slice(0, -1), last + text];
      }, []);
    expect(joined(whole.events)[0]).toBe("héllo 漢字 🚀\r\n \n");
    const replaced = { events: 0n, bytes: 3n, reason: expect.stringContaining("not UTF-8; U+FFFD stands") };
    expect(whole.events.at(-1)?.event.value).toMatchObject(replaced);
    expect(whole.events.at(-2)?.event.value).toMatchObject({ text: `no newline\0{"ty\ufffd\n\ufffd` });
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: bytes.length })), (cuts) => {
        const at = [0, ...cuts.sort((a, b) => a - b), bytes.length];
        const parts = parse(at.slice(1).map((end, index) => bytes.subarray(at[index], end)));
        expect(joined(parts.events)).toEqual(joined(whole.events));
        expect(parts.summary).toEqual(whole.summary);
      }),
      { numRuns: 300 },
    );
  });

  it("that are not UTF-8 are counted on both streams, within events too, and said once; nothing is said of a character U+FFFD", () => {
    const chunks = [`{"type":"result","text":"a`, Buffer.from([0xe9]), `"}\n`, "\ufffd\n"];
    const parser = new OutputParser();
    const events = chunks.flatMap((chunk) => parser.push("stdout", Buffer.from(chunk)));
    events.push(...parser.push("stderr", Buffer.from([0xff, 0xfe])), ...parser.end());
    expect(events.map(brief)).toEqual(["<result>", "\ufffd\n", "!\ufffd\ufffd", "<dropped>"]);
    expect(events.at(-1)?.event.value).toMatchObject({ bytes: 3n });
    expect(brieved("\ufffd\n")).toEqual(["\ufffd\n"]);
  });

  it("of any kind give events that a coordinator accepts, and lose nothing", () => {
    const validator = createValidator();
    const line = fc.oneof(
      fc.string({ unit: "binary" }),
      fc.json(),
      fc
        .record({
          type: fc.constantFrom("session", "message", "tool", "result", "usage", "status", "else"),
          executor_session_id: fc.string({ maxLength: 1_100 }),
          role: fc.string({ maxLength: 80 }),
          name: fc.string({ maxLength: 300 }),
          text: fc.oneof(fc.string({ unit: "binary" }), fc.integer()),
          input: fc.jsonValue(),
        })
        .map((json) => JSON.stringify(json)),
    );
    fc.assert(
      fc.property(fc.array(line), (lines) => {
        const bytes = Buffer.from(lines.join("\n"));
        const { events, summary } = parse([bytes]);
        for (const event of events) {
          const read = fromBinary(ExecutorEventSchema, toBinary(ExecutorEventSchema, event));
          expect(validator.validate(ExecutorEventSchema, read).kind).toBe("valid");
        }
        expect(summary.outputBytes).toBe(bytes.length);
      }),
      { numRuns: 300 },
    );
  });
});

describe("output", () => {
  it("waits for more of its kind until it is flushed, and a line that begins like an object until it ends", () => {
    const parser = new OutputParser();
    expect(parser.pending).toBe(false);
    expect(parser.push("stdout", Buffer.from("progress 1%"))).toEqual([]);
    expect(parser.pending).toBe(true);
    expect(parser.flush().map(brief)).toEqual(["progress 1%"]);
    expect(parser.push("stdout", Buffer.from(`\n{"type":"status",`)).concat(parser.flush()).map(brief)).toEqual(["\n"]);
    expect([parser.pending, parser.flush()]).toEqual([false, []]);
    expect(parser.push("stdout", Buffer.from(`"text":"x"}\n`)).map(brief)).toEqual(["<status>"]);
  });

  it("comes in chunks of at most 64 KiB, also when every byte is replaced by three", () => {
    for (const byte of ["x", "\xff", "\n"]) {
      const { events } = parse([Buffer.alloc(1_000_000, byte, "latin1")]);
      const output = events.filter(({ event }) => event.case === "output");
      expect(events.length - output.length).toBe(byte === "\xff" ? 1 : 0);
      const sizes = output.map((event) => Buffer.byteLength(brief(event)));
      expect(Math.max(...sizes)).toBeLessThanOrEqual(EVENT_CHUNK_MAX_BYTES);
      expect(Math.min(...sizes.slice(0, -1))).toBeGreaterThan(EVENT_CHUNK_MAX_BYTES / 2);
      expect(sizes.reduce((sum, size) => sum + size)).toBe(byte === "\xff" ? 3_000_000 : 1_000_000);
    }
  });

  it("is what an event of more than 1 MiB becomes, and the next line is read again", () => {
    const event = (bytes: number) => `{"type":"status","text":"${"x".repeat(bytes - 28)}"}\n`;
    const fits = event(EVENT_MAX_BYTES);
    expect(fits).toHaveLength(EVENT_MAX_BYTES);
    const small = EVENT_MAX_BYTES - 100;
    expect(brieved(event(small))).toEqual(["<status>"]);
    const chunks = Buffer.from(`${event(10 * EVENT_MAX_BYTES)}{"type":"status","text":"next"}\n`);
    for (const size of [1_000, 65_536, chunks.length]) {
      const parts = Array.from({ length: Math.ceil(chunks.length / size) }, (_, i) =>
        chunks.subarray(i * size, (i + 1) * size),
      );
      const { events, summary } = parse(parts);
      expect(events.filter(({ event }) => event.case === "status")).toHaveLength(1);
      expect(summary.result?.text).toMatch(/^\{"type":"status","text":"xxx.*of 10485760 bytes shown\]$/s);
    }
  });

  it("of one byte at a time is held in bounded memory", () => {
    const parser = new OutputParser();
    parser.push("stdout", Buffer.from("{"));
    const x = Buffer.from("x");
    for (let i = 1; i < EVENT_MAX_BYTES; i += 1) parser.push("stdout", x);
    expect(parser.heldBytes).toBeGreaterThanOrEqual(EVENT_MAX_BYTES);
    expect(parser.heldBytes).toBeLessThanOrEqual(2 * EVENT_MAX_BYTES);
    expect(parser.push("stdout", x)).toHaveLength(16);
    expect(parser.heldBytes).toBeLessThan(100_000);
    expect(parser.end()).toHaveLength(1);
  });

  it("beyond the limit leaves a marker there, the totals at the end, and the result all the same", () => {
    const { events, summary } = parse(
      [
        "12345678",
        { stderr: "90abc" },
        `more\n{"type":"result","text":"r"}\n{"type":"session","executor_session_id":"s"}\n`,
      ],
      { outputMaxBytes: 10 },
    );
    expect(events.map(brief)).toEqual(["12345678", "!90", "<dropped>", "<dropped>"]);
    const reason = "output limit of 10 bytes for one run; ";
    expect(events[2]?.event.value).toMatchObject({
      events: 0n,
      bytes: 0n,
      reason: `${reason}what follows is not kept`,
    });
    expect(events[3]?.event.value).toMatchObject({ events: 2n, bytes: 82n, reason: `${reason}in total` });
    expect(summary).toMatchObject({ outputBytes: 92, result: { text: "r" }, executorSessionId: "s" });
  });

  it("of exactly the limit leaves no marker", () => {
    expect(parse(["1234567890"], { outputMaxBytes: 10 }).events.map(brief)).toEqual(["1234567890"]);
  });

  it("after an event that did not fit is not kept either, so that there is one gap", () => {
    const { events } = parse([`{"type":"status","text":"x"}\n`, "ab"], { outputMaxBytes: 10 });
    expect(events.map(brief)).toEqual(["<dropped>", "<dropped>"]);
    expect(events[1]?.event.value).toMatchObject({ events: 1n, bytes: 31n });
  });
});

describe("the result", () => {
  it("is the plain stdout when no result event was printed, and absent when nothing was", () => {
    expect(parse(["a\n", { stderr: "not this" }, `{"type":"status","text":"nor this"}\nb`]).summary.result?.text).toBe(
      "a\nb",
    );
    expect(parse([{ stderr: "x" }]).summary.result).toBeUndefined();
  });

  it("is cut at 256 KiB, and names the size of the whole", () => {
    const plain = parse(["x".repeat(1_000_000)]).summary.result!.text;
    const said = parse([`{"type":"result","text":"${"x".repeat(1_000_000)}"}\n`]).summary.result!.text;
    for (const text of [plain, said]) {
      expect(Buffer.byteLength(text)).toBeLessThanOrEqual(RESULT_PART_MAX_BYTES);
      expect(text).toMatch(/^x+…\[cut: \d+ of 1000000 bytes shown\]$/);
    }
  });

  it("loses data of more than 256 KiB, and its text says so", () => {
    const { events, summary } = parse([`{"type":"result","text":"t","data":{"a":"${"x".repeat(300_000)}"}}\n`]);
    expect(summary.result).toMatchObject({ text: "t\n[data of 300019 bytes left out: at most 262144 are kept]" });
    expect(summary.result?.data).toBeUndefined();
    expect(events[0]?.event.value).toEqual(summary.result);
  });
});

describe("the tail of stderr", () => {
  it("is all of it when it is short", () => {
    expect(parse([{ stderr: "a\n" }, "stdout", { stderr: "b" }]).summary.stderrTail).toBe("a\nb");
  });

  it("is the last 16 KiB with a marker when it is long, in whole characters", () => {
    const { stderrTail } = parse([{ stderr: "é".repeat(50_000) }, { stderr: "end" }]).summary;
    expect(Buffer.byteLength(stderrTail)).toBeLessThanOrEqual(STDERR_TAIL_MAX_BYTES);
    expect(stderrTail).toMatch(/^\[cut: last \d+ of 100003 bytes shown\]…é+end$/);
  });
});
