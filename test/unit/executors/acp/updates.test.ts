import { describe, expect, it } from "vitest";
import { Updates } from "../../../../executors/acp/updates.ts";

const KIB = 1024;

function chunk(text: string, more: object = {}): object {
  return { sessionUpdate: "agent_message_chunk", content: { type: "text", text }, ...more };
}

function call(id: string, change: object): object {
  return { sessionUpdate: "tool_call_update", toolCallId: id, ...change };
}

function read(updates: Updates, ...all: object[]) {
  return all.flatMap((one) => updates.read(one));
}

describe("messages", () => {
  it("are put together of their pieces, whatever else comes between", () => {
    const updates = new Updates();
    const between = [
      "agent_thought_chunk",
      "usage_update",
      "available_commands_update",
      "session_info_update",
      "tomorrow",
    ];
    const said = between.flatMap((sessionUpdate) => read(updates, chunk("a"), { sessionUpdate }));
    expect(said).toEqual([]);
    expect(updates.flush()).toEqual([{ type: "message", role: "assistant", text: "aaaaa" }]);
    expect(updates.answer).toBe("aaaaa");
    expect(updates.flush()).toEqual([]);
  });

  it.each([
    ["a call", { sessionUpdate: "tool_call", toolCallId: "1", title: "t" }],
    ["a plan", { sessionUpdate: "plan", entries: [] }],
    ["another message", chunk("", { messageId: "2" })],
  ])("end with %s", (_, next) => {
    const updates = new Updates();
    const said = read(updates, chunk("one"), next, chunk("two", { messageId: "2" }));
    expect(said[0]).toEqual({ type: "message", role: "assistant", text: "one" });
    updates.flush();
    expect(updates.answer).toBe("two");
  });

  it("that are empty neither are said nor become the answer", () => {
    const updates = new Updates();
    expect(read(updates, chunk("one"), call("1", { title: "t" }), chunk(" \n"))).toHaveLength(2);
    expect(updates.flush()).toEqual([]);
    expect(updates.answer).toBe("one");
    expect(
      read(updates, { sessionUpdate: "agent_message_chunk", content: { type: "image" } }, chunk(5 as never)),
    ).toEqual([]);
  });

  it("are said in parts of at most 256 KiB, and kept up to 512 KiB as the answer", () => {
    const updates = new Updates();
    const said = [
      ...read(updates, ...Array.from({ length: 9 }, () => chunk("é".repeat(50 * KIB)))),
      ...updates.flush(),
    ];
    const sizes = said.map((event) => ("text" in event ? Buffer.byteLength(event.text ?? "") : 0));
    expect(sizes.reduce((sum, size) => sum + size)).toBe(900 * KIB);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(256 * KIB);
    expect(Buffer.byteLength(updates.answer)).toBeLessThanOrEqual(612 * KIB);
  });
});

describe("calls of tools", () => {
  it("are said once when they begin and once when they end, under the first name", () => {
    const updates = new Updates();
    const said = read(
      updates,
      call("1", { sessionUpdate: "tool_call", title: "list", kind: "read", status: "pending", rawInput: { a: 1 } }),
      call("1", { status: "in_progress", title: "List files" }),
      call("1", { status: "completed", content: [{ type: "content", content: { type: "text", text: "out" } }] }),
    );
    expect(said).toEqual([
      { type: "tool", tool_call_id: "1", name: "list", input: { a: 1 } },
      { type: "tool", tool_call_id: "1", name: "list", output: "out" },
    ]);
    expect(updates.toolCalls).toBe(1);
    expect(updates.nameOf("1")).toBeUndefined();
  });

  it("are said even when only their end comes", () => {
    const said = read(new Updates(), call("1", { status: "failed", rawOutput: { code: "no" } }));
    expect(said).toEqual([
      { type: "tool", tool_call_id: "1", name: "tool", input: {} },
      { type: "tool", tool_call_id: "1", name: "tool", error: '{"code":"no"}' },
    ]);
    expect(read(new Updates(), call("", { status: "failed" }))).toEqual([]);
  });

  it("have the input that is shown as JSON where there is no other", () => {
    const shown = (text: string) => ({ content: [{ type: "content", content: { type: "text", text } }] });
    const inputs = [shown('{"a":1}'), shown("{ not JSON"), shown("[cwd]")].map(
      (more, n) => read(new Updates(), call(`${n}`, more))[0],
    );
    expect(inputs).toMatchObject([{ input: { a: 1 } }, { input: {} }, { input: {} }]);
  });

  it("are names, ids and values as an event may hold them", () => {
    const deep = JSON.parse(`${"[".repeat(50)}${"]".repeat(50)}`) as unknown;
    const [long, nested] = [
      read(
        new Updates(),
        call("x".repeat(300), { title: `a\n${"b".repeat(400)}`, rawInput: { n: 2 ** 60, t: "x".repeat(99 * KIB) } }),
      ),
      read(new Updates(), call("a\nb", { title: "t", rawInput: { deep } })),
    ];
    expect(long[0]).toMatchObject({ tool_call_id: expect.stringMatching(/^[0-9a-f]{64}$/) as string });
    expect(long[0]).toMatchObject({ name: expect.stringMatching(/^a b{253}…$/) as string });
    expect(Buffer.byteLength(JSON.stringify(long[0]))).toBeLessThan(70 * KIB);
    expect(nested[0]).toMatchObject({ input: "[nested too deeply to be shown]" });
    expect(read(new Updates(), call("1", { title: "t", rawInput: { n: 2 ** 60 } }))[0]).toMatchObject({
      input: { n: "1152921504606847000" },
    });
  });

  it("show a change of a file by its name, and cut a large output", () => {
    const said = read(
      new Updates(),
      call("1", {
        status: "completed",
        content: [{ type: "diff", path: "a.c", oldText: "", newText: "x" }, { type: "terminal" }],
      }),
      call("2", { status: "completed", rawOutput: "x".repeat(200 * KIB) }),
    );
    expect(said[1]).toMatchObject({ output: "changed a.c" });
    expect(Buffer.byteLength((said[3] as { output: string }).output)).toBeLessThanOrEqual(128 * KIB);
  });
});

it("a plan says how far it is, a mode its name", () => {
  const entries = [
    { content: "read", status: "completed" },
    { content: "write", status: "pending" },
  ];
  expect(read(new Updates(), { sessionUpdate: "plan", entries })).toEqual([
    { type: "status", text: "plan, 1 of 2 done: write" },
  ]);
  expect(read(new Updates(), { sessionUpdate: "current_mode_update", currentModeId: "plan" })).toEqual([
    { type: "status", text: "mode plan" },
  ]);
});
