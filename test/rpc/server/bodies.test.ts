import { create, toBinary } from "@bufbuild/protobuf";
import type { JsonObject } from "@bufbuild/protobuf";
import { ListValueSchema, ValueSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { CreateRunRequestSchema, RunService } from "../../../gen/agentrunner/v1/run_service_pb.ts";
import { startTestCoordinator, stopTestCoordinators } from "../../support/coordinator.ts";
import type { TestCoordinator } from "../../support/coordinator.ts";
import { PROTOCOL_NAMES, PROTOCOLS } from "../../support/test-server.ts";

let c: TestCoordinator;
beforeEach(async () => void (c = await startTestCoordinator()));
afterEach(stopTestCoordinators);

async function post(
  body: string | Uint8Array<ArrayBuffer>,
  method = "RunService/CreateRun",
  type = "application/json",
): Promise<{ status: number; code: string | undefined; message: string }> {
  const headers = { "content-type": type };
  const answer = await fetch(`${c.url}/agentrunner.v1.${method}`, { method: "POST", headers, body });
  const { code, message = "" } = (await answer.json()) as { code?: string; message?: string };
  return { status: answer.status, code, message };
}

/** A list in a list in a list, as protobuf of a google.protobuf.Value; no library writes one that is deep enough. */
function deepList(levels: number): Uint8Array<ArrayBuffer> {
  const heads: Uint8Array[] = [];
  let length = 0;
  const wrap = (tag: number) => {
    const head = Buffer.from([tag, ...varint(length)]);
    length += head.length;
    heads.push(head);
  };
  for (let level = 0; level < levels; level++) {
    if (level > 0) wrap(ListValueSchema.field.values.number * 8 + 2);
    wrap(ValueSchema.field.listValue.number * 8 + 2);
  }
  return new Uint8Array(Buffer.concat(heads.toReversed()));
}

function varint(n: number): number[] {
  return n < 128 ? [n] : [(n % 128) + 128, ...varint(Math.floor(n / 128))];
}

/** CreateRunRequest with `a` in its metadata. */
function withMetadata(value: Uint8Array): Uint8Array<ArrayBuffer> {
  const field = (number: number, bytes: Uint8Array) =>
    Buffer.concat([Buffer.from([...varint(number * 8 + 2), ...varint(bytes.length)]), bytes]);
  const entry = Buffer.concat([field(1, Buffer.from("a")), field(2, value)]);
  const metadata = field(CreateRunRequestSchema.field.metadata.number, field(1, entry));
  return new Uint8Array(
    Buffer.concat([toBinary(CreateRunRequestSchema, create(CreateRunRequestSchema, { prompt: "x" })), metadata]),
  );
}

async function runs(): Promise<number> {
  return (await c.runs.listRuns({})).runs.length;
}

describe("a binary body", () => {
  it.each([24, 60, 150, 400, 5000, 20_000])(
    "with lists %s levels deep in a list is refused as too deep",
    async (levels) => {
      const answer = await post(withMetadata(deepList(levels)), undefined, "application/proto");
      expect(answer).toMatchObject({ status: 400, code: "invalid_argument" });
      expect(answer.message).toMatch(/metadata: nested more than 24 levels|JSON may be nested 24 levels deep/);
      expect(await runs()).toBe(0);
    },
  );

  it.each([
    ["NaN", Buffer.from([0x11, 0, 0, 0, 0, 0, 0, 0xf8, 0x7f])],
    ["an infinite number", Buffer.from([0x11, 0, 0, 0, 0, 0, 0, 0xf0, 0x7f])],
  ])("with %s, which JSON cannot say, is refused", async (_, value) => {
    const answer = await post(withMetadata(value), undefined, "application/proto");
    expect(answer).toMatchObject({ status: 400, code: "invalid_argument" });
    expect(await runs()).toBe(0);
  });

  it("at the bound is taken", async () => {
    expect(await post(withMetadata(deepList(23)), undefined, "application/proto").catch(() => "taken")).toBe("taken");
    expect(await runs()).toBe(1);
  });

  it.each([
    ["garbage", Buffer.from("{not protobuf}")],
    ["a text that is not UTF-8", Buffer.from([CreateRunRequestSchema.field.prompt.number * 8 + 2, 2, 0xff, 0xfe])],
  ])("that is %s is the fault of who sent it", async (_, bytes) => {
    const answer = await post(new Uint8Array(bytes), undefined, "application/proto");
    expect(answer).toMatchObject({ status: 400, code: "invalid_argument" });
  });

  it.each(PROTOCOL_NAMES)("that is too deep is INVALID_ARGUMENT over %s", async (protocol) => {
    const client = createClient(RunService, PROTOCOLS[protocol](c.url));
    for (const levels of [25, 60, 80, 200]) {
      let metadata: JsonObject = {};
      for (let level = 1; level < levels; level++) metadata = { a: metadata };
      const error = await client
        .createRun({ prompt: "x", metadata })
        .then(String, (reason: unknown) => ConnectError.from(reason));
      expect(error).toMatchObject({ code: Code.InvalidArgument });
    }
    expect(await runs()).toBe(0);
  });
});

describe("a JSON body", () => {
  it.each([
    [
      "a large integer in metadata",
      '{"prompt": "x", "metadata": {"channel_id": 1029384756610293847}}',
      "1029384756610293847",
    ],
    ["a large integer in parameters", '{"prompt": "x", "parameters": {"a": [9007199254740993]}}', "9007199254740993"],
    ["an infinite number", '{"prompt": "x", "metadata": {"a": 1e400}}', "1e400"],
    ["Latin-1", Buffer.from('{"prompt": "caf\xe9"}', "latin1"), "not UTF-8"],
    ["bytes that are no text", Buffer.from('{"prompt":"a\xff\xfeb"}', "latin1"), "not UTF-8"],
    ["UTF-16", Buffer.from('\ufeff{"prompt":"a"}', "utf16le"), "UTF-16"],
    ["half a character", '{"prompt": "x", "metadata": {"k": "\\ude00"}}', "metadata"],
    ["half a character in a name", '{"prompt": "x", "metadata": {"\\ud800": "v"}}', "metadata"],
    ["half a character in a list", '{"prompt": "x", "parameters": {"a": [["\\ude00"]]}}', "parameters"],
    ["half a character in a text", '{"prompt": "a\\ud83dz"}', "prompt"],
  ])("with %s is refused", async (_, body, named) => {
    const answer = await post(typeof body === "string" ? body : new Uint8Array(body));
    expect(answer).toMatchObject({ status: 400, code: "invalid_argument" });
    expect(answer.message).toContain(named);
    expect(await runs()).toBe(0);
  });

  it("is the same by GET", async () => {
    const message = encodeURIComponent('{"page_size": 1e400}');
    const answer = await fetch(`${c.url}/agentrunner.v1.RunService/ListRuns?encoding=json&message=${message}`);
    expect(answer.status).toBe(400);
    expect(await answer.text()).toContain("1e400");
  });

  it("may begin with a byte order mark, and hold ids as strings", async () => {
    await post('\ufeff{"prompt": "x", "metadata": {"channel_id": "1029384756610293847", "n": 1e23}}');
    const [run] = (await c.runs.listRuns({})).runs;
    expect((await c.run(run?.runId ?? "")).metadata).toEqual({ channel_id: "1029384756610293847", n: 1e23 });
  });

  it.each([60, 450, 5000, 100_000])("%s levels deep is refused", async (levels) => {
    const answer = await post(`{"prompt": "x", "metadata": {"a": ${"[".repeat(levels)}${"]".repeat(levels)}}}`);
    expect(answer).toMatchObject({ status: 400, code: "invalid_argument" });
    expect(answer.message).toMatch(/nested (more than )?24 levels/);
  });
});

describe("a JSON field that the coordinator does not know", () => {
  it("is refused where people call, and left out of what a newer runner sends", async () => {
    const people = await post('{"prompt": "x", "demand": {}}');
    expect(people).toMatchObject({ status: 400, code: "invalid_argument" });
    expect(people.message).toContain("demand");
    const ids = { runner_id: "lnch_x", boot_id: "b" };
    const runner = await post(JSON.stringify({ ...ids, mood: "new" }), "RunnerService/Heartbeat");
    expect(runner).toEqual(await post(JSON.stringify(ids), "RunnerService/Heartbeat"));
    expect(runner.code).toBe("not_found");
  });
});
