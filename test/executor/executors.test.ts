import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { fromJson } from "@bufbuild/protobuf";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ExecutorInvocation, InvocationError, STDIN_MAX_BYTES } from "../../executors/lib/invocation.ts";
import { ExecutorEventSchema } from "../../gen/agentrunner/v1/executor_pb.ts";
import { until } from "../support/until.ts";
import type { Ended, StartOptions } from "./executors-support.ts";
import { invocationOf, isAlive, killStarted, start, TEST_EXECUTOR } from "./executors-support.ts";

let dir: string;
beforeEach(() => (dir = mkdtempSync(join(tmpdir(), "executors-"))));
afterEach(() => {
  killStarted();
  rmSync(dir, { recursive: true });
});

const startTest = (prompt: string, options: StartOptions = {}, change: object = {}) =>
  start([TEST_EXECUTOR], invocationOf(prompt, change), options);
const runTest = (prompt: string, options?: StartOptions): Promise<Ended> => startTest(prompt, options).ended;

/** The lines of stdout that are events. */
const eventsIn = (stdout: string) =>
  stdout
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line));

/** What the test executor says after its greeting of three events. */
const saidBy = ({ stdout }: Ended) => stdout.split("\n").slice(3, -1);

describe("the test executor", () => {
  it("says its session, both messages and its echo", async () => {
    const { code, stdout, stderr } = await runTest("Grüße\n„hi“");
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(eventsIn(stdout)).toEqual([
      { type: "session", executor_session_id: "test-ses_1" },
      { type: "message", role: "user", text: "Grüße\n„hi“" },
      { type: "message", role: "assistant", text: "[test-executor] start: Grüße\n„hi“" },
      { type: "result", text: "Echo: Grüße\n„hi“" },
    ]);
  });

  it("keeps the session that it is given when it is resumed", async () => {
    const { stdout } = await startTest("more", {}, { mode: "resume", executor_session_id: "mine" }).ended;
    expect(eventsIn(stdout)[0]).toEqual({ type: "session", executor_session_id: "mine" });
    expect(eventsIn(stdout)[2]).toMatchObject({ text: "[test-executor] resume: more" });
  });

  it.each([
    ["print a\nerror b\nno-result", 0, ["a"], "b\n"],
    ["env COLOR; env NOTHING; no-result", 0, ["COLOR=blue", "NOTHING=(not set)"], ""],
    ["result a; result b", 0, ['{"type":"result","text":"a"}', '{"type":"result","text":"b"}'], ""],
    ['json {"a":"x;y"}', 0, ['{"type":"result","data":{"a":"x;y"}}'], ""],
    ["status busy; no-result", 0, ['{"type":"status","text":"busy"}'], ""],
    ["result kept; fail no disk; print never", 1, ['{"type":"result","text":"kept"}'], "no disk\n"],
    ["exit 75; print never", 75, [], ""],
    ["sleep 1ms", 0, ['{"type":"result","text":"Echo: sleep 1ms"}'], ""],
  ])("obeys %j", async (prompt, code, lines, stderr) => {
    const ended = await runTest(prompt, { env: { COLOR: "blue" } });
    expect({ code: ended.code, lines: saidBy(ended), stderr: ended.stderr }).toEqual({ code, lines, stderr });
  });

  it("says a tool call and its outcome under one id", async () => {
    const [call, outcome] = eventsIn((await runTest("tool grep")).stdout).slice(3);
    expect(call).toEqual({ type: "tool", tool_call_id: "call-grep", name: "grep", input: { asked_by: "prompt" } });
    expect(outcome).toEqual({ type: "tool", tool_call_id: "call-grep", name: "grep", output: "done" });
  });

  it("prints its working directory, and takes relative paths from there", async () => {
    const ended = await runTest("touch made; wait-for-file made; cwd; no-result", { cwd: dir });
    expect(saidBy(ended)).toEqual([dir]);
  });

  it("floods to the byte, on the stream that is asked for", async () => {
    const out = await runTest("flood 5MB; no-result");
    expect(out.stdout.length - out.stdout.indexOf("The quick")).toBe(5_000_000);
    const err = await runTest("flood 3KiB stderr");
    expect(err.stderr.length).toBe(3_072);
  });

  it("waits for a file", async () => {
    const latch = join(dir, "latch");
    const run = startTest(`print waiting; wait-for-file ${latch}; print seen`);
    await until(() => run.stdout().includes("waiting\n"), "it waits");
    expect(run.stdout()).not.toContain("\nseen\n");
    writeFileSync(latch, "");
    expect((await run.ended).stdout).toContain("\nseen\n");
  });

  it("dies of SIGTERM unless it was told to ignore it", async () => {
    const soft = startTest("print up; sleep 10m");
    await until(() => soft.stdout().includes("up\n"), "it runs");
    soft.kill("SIGTERM");
    expect((await soft.ended).signal).toBe("SIGTERM");

    const latch = join(dir, "latch");
    const hard = startTest(`ignore-term; print up; wait-for-file ${latch}`);
    await until(() => hard.stdout().includes("up\n"), "it runs");
    hard.kill("SIGTERM");
    writeFileSync(latch, "");
    expect(await hard.ended).toMatchObject({ code: 0, signal: null });
  });

  it("kills itself when told to crash", async () => {
    expect((await runTest("crash")).signal).toBe("SIGKILL");
  });

  it("gives its result and does not exit when told to hang", async () => {
    const run = startTest("hang-after-result");
    await until(
      () => run.stdout().includes('{"type":"result","text":"Echo: hang-after-result"}\n'),
      "it gave a result",
    );
    expect(isAlive(run.pid)).toBe(true);
  });

  it("leaves a grandchild in its group when told to fork", async () => {
    const run = startTest("fork; exit 3");
    const [, grandchild] = await until(() => /grandchild (\d+)\n/.exec(run.stdout()), "it forked");
    await until(() => !isAlive(run.pid), "the leader is gone");
    expect(isAlive(Number(grandchild))).toBe(true);
    process.kill(-run.pid, "SIGKILL");
    expect((await run.ended).code).toBe(3);
  });

  it("refuses a bad command before it says anything", async () => {
    expect(await runTest("print a; sleep tight")).toEqual({
      code: 2,
      signal: null,
      stdout: "",
      stderr: 'test-executor: sleep: expected a duration such as 500ms or 2s, up to 10m, found "tight"\n',
    });
  });

  it("refuses a bad invocation", async () => {
    const { code, stderr } = await startTest("a", {}, { schema_version: "3.0" }).ended;
    expect({ code, stderr }).toEqual({
      code: 2,
      stderr: 'test-executor: invocation.schema_version: expected a version "2.x", found "3.0"\n',
    });
  });

  it("ends when nobody reads what it prints any more", async () => {
    const run = startTest("flood 1GB");
    await until(() => run.stdout().length > 1_000_000, "it floods");
    run.hangUp();
    const { code, stderr } = await run.ended;
    expect(code).not.toBe(0);
    expect(stderr).toContain("EPIPE");
  });

  it("shows a fault of its own, such as a path that cannot be written", async () => {
    const { code, stderr } = await runTest("touch /nowhere/at/all");
    expect(code).toBe(1);
    expect(stderr).toContain("ENOENT");
  });
});

describe("emit", () => {
  it("writes every event in the shape of ExecutorEvent", async () => {
    const lib = pathToFileURL(join(TEST_EXECUTOR, "../../lib/emit.ts"));
    const program = `
      import { emit } from ${JSON.stringify(lib)};
      await emit.session("s");
      await emit.message("system", "m\\n");
      await emit.tool({ tool_call_id: "t", name: "n", input: [1], output: null, error: "e" });
      await emit.result("r", { a: 1 });
      await emit.result({ b: [true] });
      await emit.usage({ input_tokens: 5, output_tokens: 6, cost_usd: 0.5, model: "x" });
      await emit.status("u");`;
    const { code, stdout } = await start([process.execPath, "--input-type=module", "-e", program], "").ended;
    expect(code).toBe(0);
    const events = eventsIn(stdout);
    expect(events).toEqual([
      { type: "session", executor_session_id: "s" },
      { type: "message", role: "system", text: "m\n" },
      { type: "tool", tool_call_id: "t", name: "n", input: [1], output: null, error: "e" },
      { type: "result", text: "r", data: { a: 1 } },
      { type: "result", data: { b: [true] } },
      { type: "usage", input_tokens: 5, output_tokens: 6, cost_usd: 0.5, model: "x" },
      { type: "status", text: "u" },
    ]);
    for (const { type, ...event } of events) {
      expect(fromJson(ExecutorEventSchema, { [type]: event }).event.case).toBe(type);
    }
  });
});

describe("ExecutorInvocation.fromStdin", () => {
  async function* chunks(...parts: Uint8Array[]) {
    yield* parts;
  }

  it("joins chunks that split a character", async () => {
    const bytes = Buffer.from(invocationOf("é"));
    const at = bytes.indexOf("é") + 1;
    const invocation = await ExecutorInvocation.fromStdin(chunks(bytes.subarray(0, at), bytes.subarray(at)));
    expect(invocation.prompt).toBe("é");
  });

  it("takes 8 MiB and refuses a byte more, without reading on", async () => {
    const [before = "", behind = ""] = invocationOf("?").split("?");
    const fill = (bytes: number) => Buffer.from(before + "x".repeat(bytes - before.length - behind.length) + behind);
    const { prompt } = await ExecutorInvocation.fromStdin(chunks(fill(STDIN_MAX_BYTES)));
    expect(prompt.length).toBeGreaterThan(STDIN_MAX_BYTES - 200);
    async function* endless() {
      for (;;) yield fill(STDIN_MAX_BYTES / 4);
    }
    const error = new InvocationError("invocation: longer than 8388608 bytes");
    await expect(ExecutorInvocation.fromStdin(chunks(fill(STDIN_MAX_BYTES + 1)))).rejects.toThrow(error);
    await expect(ExecutorInvocation.fromStdin(endless())).rejects.toThrow(error);
  });

  it("refuses bytes that are not UTF-8", async () => {
    const bytes = Buffer.from(invocationOf("?"), "latin1");
    bytes[bytes.indexOf("?")] = 0xff;
    const error = new InvocationError("invocation: not UTF-8");
    await expect(ExecutorInvocation.fromStdin(chunks(bytes))).rejects.toThrow(error);
  });
});
