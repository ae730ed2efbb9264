import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fromJson } from "@bufbuild/protobuf";
import type { JsonObject } from "@bufbuild/protobuf";
import { ValueSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { createClient } from "@connectrpc/connect";
import { afterEach, describe, expect, it } from "vitest";
import { ReportVerdict_Kind } from "../../../../gen/agentrunner/v1/runner_service_pb.ts";
import { RunService } from "../../../../gen/agentrunner/v1/run_service_pb.ts";
import { INVOCATION_MAX_BYTES, MESSAGE_MAX_BYTES, RESULT_PART_MAX_BYTES } from "../../../../lib/protocol/limits.ts";
import { reasonOf } from "../../../../lib/rpc/error-info.ts";
import { startTestCoordinator, stopTestCoordinators, tempDir } from "../../../support/coordinator.ts";
import type { NewRun, TestCoordinator } from "../../../support/coordinator.ts";
import { output, RawRunner } from "../../../support/raw-runner.ts";

afterEach(stopTestCoordinators);

/** Neither a run nor a session was made. */
async function expectNothingLeft(c: TestCoordinator): Promise<void> {
  expect((await c.runs.listRuns({})).runs).toEqual([]);
  expect((await c.sessions.listSessions({})).sessions).toEqual([]);
}

describe("control characters", () => {
  const CONTROLS = ["\0", "\n", "\x1b", "\x7f", "\x85", "\u2028", "\u202e", "\u2066"];
  const refused = (field: string) =>
    expect.objectContaining({
      code: Code.InvalidArgument,
      rawMessage: expect.stringContaining(`${field}: must not hold control characters`) as string,
    }) as unknown;

  it.each<[string, (text: string) => NewRun]>([
    ["request_id", (requestId) => ({ requestId })],
    ["session_name", (sessionName) => ({ sessionName })],
    ["agent_name", (agentName) => ({ agentName })],
    ["project_dir", (text) => ({ projectDir: `/${text}` })],
    ["demands.executor_profile", (executorProfile) => ({ demands: { executorProfile } })],
    ["demands.hostname", (hostname) => ({ demands: { hostname } })],
    ["demands.project_dir", (projectDir) => ({ demands: { projectDir } })],
    ["demands.tags[0]", (tag) => ({ demands: { tags: [tag] } })],
  ])("in %s are refused by CreateRun, which names the field", async (field, request) => {
    const c = await startTestCoordinator();
    for (const control of CONTROLS) {
      await expect(c.create(request(`a${control}b`))).rejects.toEqual(refused(field));
    }
    await expectNothingLeft(c);
  });

  it.each<[string, (text: string) => object]>([
    ["hostname", (hostname) => ({ hostname })],
    ["project_dir", (text) => ({ projectDir: `/${text}` })],
    ["executor_profile", (executorProfile) => ({ executorProfile })],
    ["tags[0]", (tag) => ({ tags: [tag] })],
    ["name", (name) => ({ name })],
    ["executor.type", (type) => ({ executor: { type } })],
    ["executor.command", (command) => ({ executor: { type: "x", command } })],
  ])("in %s are refused by Register, which names the field", async (field, about) => {
    const c = await startTestCoordinator();
    for (const control of CONTROLS) {
      await expect(RawRunner.register(c, about(`a${control}b`))).rejects.toEqual(refused(field));
    }
    await RawRunner.register(c, about("größer 漢字"));
  });

  it("in what a runner says of an executor are refused, alone of their batch", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    await c.create();
    const offer = await runner.take();
    for (const control of ["\0", "\u202e"]) {
      expect(await runner.report(offer, "PROGRESS", { executorSessionId: `a${control}` })).toBe("INVALID");
      const tool = { event: { case: "tool", value: { name: `a${control}` } } } as const;
      expect((await runner.append(offer, 1, [tool])).kind).toBe(ReportVerdict_Kind.INVALID);
    }
    expect(await runner.report(offer, "PROGRESS", { executorSessionId: "größer" })).toBe("OK");
  });

  it("in a new name of a session are refused, and in a prompt they are text", async () => {
    const c = await startTestCoordinator();
    const { sessionId } = await c.create({ prompt: "a\0b\x1b" });
    const update = { sessionId, sessionName: "a\0b", updateMask: { paths: ["session_name"] } };
    await expect(c.sessions.updateSession(update)).rejects.toEqual(refused("session_name"));
  });
});

describe("a session is not given a name that cannot be seen, or told from an id", () => {
  const isRefused = (error: unknown): boolean =>
    ConnectError.from(error).code === Code.InvalidArgument && reasonOf(error) === "SESSION_NAME_INVALID";

  it.each([" ", "a ", "run_1", "ses_1", "@last"])("%j", async (sessionName) => {
    const c = await startTestCoordinator();
    await expect(c.create({ sessionName })).rejects.toSatisfy(isRefused);
    await expectNothingLeft(c);
    const { sessionId } = await c.create({ sessionName: "good" });
    const update = { sessionId, sessionName, updateMask: { paths: ["session_name"] } };
    await expect(c.sessions.updateSession(update)).rejects.toSatisfy(isRefused);
    expect((await c.sessions.updateSession({ ...update, sessionName: "" })).session?.sessionName).toBe(sessionId);
    // That is its name already.
    expect((await c.sessions.updateSession({ ...update, sessionName: sessionId })).session?.sessionName).toBe(
      sessionId,
    );
  });
});

describe("CreateRun refuses with INVALID_ARGUMENT, and makes nothing of", () => {
  it.each<[string, NewRun]>([
    ["no prompt", { prompt: "" }],
    ["a prompt that is too large", { prompt: "x".repeat(INVOCATION_MAX_BYTES) }],
    ["parameters that are too large", { parameters: { text: "x".repeat(INVOCATION_MAX_BYTES) } }],
    ["both session_id and session_name", { sessionId: "ses_a", sessionName: "a" }],
    ["a relative project_dir", { projectDir: "src/project" }],
    ["a negative timeout", { timeout: { seconds: -1n } }],
    ["a timeout of nothing", { timeout: {} }],
    ["a negative idle_timeout", { idleTimeout: { nanos: -1 } }],
    ["a negative lost_after", { lostAfter: { seconds: -5n } }],
    ["an unknown mode", { mode: 9 as 1 }],
    ["an unknown execution_mode", { executionMode: 77 as 1 }],
    ["an unknown policy", { onLost: { policy: 4 as 1 } }],
    ["more attempts than a hundred", { onLost: { maxAttempts: 101 } }],
    ["a callback without a parent", { executionMode: 3 }],
    ["an empty tag", { demands: { tags: [""] } }],
    ["the same tag twice", { demands: { tags: ["a", "a"] } }],
    ["a request_id that is too long", { requestId: "r".repeat(129) }],
  ])("%s", async (_, request) => {
    const c = await startTestCoordinator();
    await expect(c.create(request)).rejects.toMatchObject({ code: Code.InvalidArgument });
    await expectNothingLeft(c);
  });

  it.each([
    ["a number for the prompt", { prompt: 7 }],
    ["a list for the prompt", { prompt: ["a"] }],
    ["a text for a number", { prompt: "x", on_lost: { max_attempts: "many" } }],
    ["an unknown number of an enum", { prompt: "x", mode: 9 }],
    ["a duration without its unit", { prompt: "x", timeout: "10" }],
    ["no object", "just text"],
  ])("JSON with %s", async (_, body) => {
    const c = await startTestCoordinator();
    const answer = await fetch(`${c.url}/agentrunner.v1.RunService/CreateRun`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    expect([answer.status, ((await answer.json()) as { code: string }).code]).toEqual([400, "invalid_argument"]);
    await expectNothingLeft(c);
  });

  it("a request_id that another run has, whose run stays as it was", async () => {
    const c = await startTestCoordinator();
    const { runId } = await c.create({ requestId: "r-1", sessionName: "a" });
    await expect(c.create({ requestId: "r-1", sessionName: "b" })).rejects.toMatchObject({ code: Code.AlreadyExists });
    expect((await c.runs.listRuns({})).runs.map((run) => run.runId)).toEqual([runId]);
    expect((await c.sessions.listSessions({})).sessions).toHaveLength(1);
  });

  it("not the same request sent ten times at once: it makes one run", async () => {
    const c = await startTestCoordinator();
    const runs = await Promise.all(Array.from({ length: 10 }, () => c.create({ requestId: "r-2" })));
    expect(new Set(runs.map(({ runId }) => runId)).size).toBe(1);
  });
});

describe("a message over 4 MiB", () => {
  it("is RESOURCE_EXHAUSTED, and the next call on the connection works", async () => {
    const c = await startTestCoordinator();
    const runs = createClient(RunService, createConnectTransport({ baseUrl: c.url, httpVersion: "1.1" }));
    const call = runs.createRun({ prompt: "x".repeat(MESSAGE_MAX_BYTES + 1) });
    await expect(call).rejects.toMatchObject({ code: Code.ResourceExhausted });
    expect((await runs.createRun({ prompt: "small" })).run?.prompt).toBe("small");
    expect((await c.runs.listRuns({})).runs).toHaveLength(1);
  });

  it("is not needed for the largest run that is accepted: it is offered whole", async () => {
    const c = await startTestCoordinator();
    const prompt = "é".repeat((INVOCATION_MAX_BYTES - 100) / 2);
    const runner = await RawRunner.online(c);
    const { runId } = await c.create({ prompt });
    const offer = await runner.take();
    expect(offer.invocation?.prompt).toBe(prompt);
    expect((await c.run(runId)).prompt).toBe(prompt);
    expect((await c.runs.listRuns({})).runs[0]?.prompt).toBe("");
  });
});

describe("what a runner sends too much of", () => {
  it("is cut and says so: the text of a result, and data that are too large", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    const { runId } = await c.create();
    const result = { text: "é".repeat(RESULT_PART_MAX_BYTES), data: { text: "x".repeat(RESULT_PART_MAX_BYTES * 2) } };
    await runner.ok(await runner.take(), "COMPLETED", { result });
    const run = await c.run(runId);
    expect(Buffer.byteLength(run.result?.text ?? "")).toBeLessThanOrEqual(RESULT_PART_MAX_BYTES);
    expect(run.result?.text).toMatch(/\[cut: \d+ of \d+ bytes shown\]/);
    expect(run.result?.data).toBeUndefined();
  });

  it("is refused: a message of a report over 64 KiB, 501 reports, 2001 leases", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    const { runId } = await c.create();
    const offer = await runner.take();
    const invalid = { code: Code.InvalidArgument };
    expect(await runner.report(offer, "PROGRESS", { message: "x".repeat(65_537) })).toBe("INVALID");
    const reports = Array.from({ length: 501 }, () => runner.said(offer, "PROGRESS"));
    await expect(runner.reports(reports)).rejects.toMatchObject(invalid);
    const leases = Array.from({ length: 2001 }, (_, n) => ({ runId, leaseId: `lease_${n}` }));
    await expect(runner.heartbeat({ held: leases })).rejects.toMatchObject(invalid);
    const events = Array.from({ length: 2001 }, () => output("x"));
    expect(await runner.append(offer, 1, events)).toMatchObject({ kind: ReportVerdict_Kind.INVALID, committedSeq: 0n });
    expect(await c.state(runId)).toBe("RUNNING");
  });
});

function nested(levels: number): JsonObject {
  let json: JsonObject = {};
  for (let level = 1; level < levels; level++) json = { a: json };
  return json;
}

describe("JSON of 24 levels is taken, and deeper JSON refused with the name of its field", () => {
  it.each(["metadata", "parameters"])("in %s of CreateRun", async (field) => {
    const c = await startTestCoordinator();
    await c.create({ [field]: nested(24) });
    const transport = createConnectTransport({ baseUrl: c.url, httpVersion: "1.1", useBinaryFormat: false });
    const json = createClient(RunService, transport);
    const refused = {
      code: Code.InvalidArgument,
      rawMessage: expect.stringContaining(`${field}: nested more than 24 levels`) as string,
    };
    await expect(c.create({ [field]: nested(25) })).rejects.toMatchObject(refused);
    for (const levels of [25, 40, 60, 90]) {
      await expect(json.createRun({ prompt: "x", [field]: nested(levels) })).rejects.toMatchObject(refused);
    }
  });

  it("in a result and an event, alone of its batch", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    const { runId } = await c.create();
    const offer = await runner.take();
    const input = fromJson(ValueSchema, nested(25));
    const deep = { event: { case: "tool", value: { name: "t", input } } } as const;
    expect((await runner.append(offer, 1, [deep])).kind).toBe(4);
    const { verdicts } = await runner.reports([
      runner.said(offer, "COMPLETED", { result: { data: nested(25) } }),
      runner.said(offer, "COMPLETED", { result: { data: nested(24) } }),
    ]);
    expect(verdicts.map(({ kind }) => kind)).toEqual([4, 1]);
    expect(verdicts[0]?.message).toContain("result.data: nested more than 24");
    expect(await c.state(runId)).toBe("COMPLETED");
  });
});

describe("lists", () => {
  it("of runs are paged, newest first, by state, session and runner", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c, { maxConcurrentRuns: 2 });
    const made: string[] = [];
    for (let n = 0; n < 5; n++) made.push((await c.create()).runId);
    await runner.take();
    await runner.take();
    const seen: string[] = [];
    for (let pageToken = ""; ;) {
      const page = await c.runs.listRuns({ pageSize: 2, pageToken });
      seen.push(...page.runs.map(({ runId }) => runId));
      if (page.nextPageToken === "") break;
      pageToken = page.nextPageToken;
    }
    expect(seen).toEqual(made.toReversed());
    const ids = async (query: Parameters<typeof c.runs.listRuns>[0]) =>
      (await c.runs.listRuns(query)).runs.map(({ runId }) => runId);
    expect(await ids({ states: [4] })).toEqual(made.slice(0, 2).toReversed());
    expect(await ids({ states: [1, 8] })).toEqual(made.slice(2).toReversed());
    expect(await ids({ runnerId: runner.runnerId })).toEqual(made.slice(0, 2).toReversed());
    const { sessionId } = await c.run(made[3] ?? "");
    expect(await ids({ sessionId })).toEqual([made[3]]);
  });

  it("refuse page tokens that are not theirs", async () => {
    const c = await startTestCoordinator();
    const other = await startTestCoordinator();
    for (let n = 0; n < 2; n++) await other.create();
    const { nextPageToken } = await other.runs.listRuns({ pageSize: 1 });
    await expect(c.runs.listRuns({ pageToken: "2" })).rejects.toMatchObject({ code: Code.InvalidArgument });
    await expect(c.runs.listRuns({ pageToken: nextPageToken })).rejects.toMatchObject({ code: Code.OutOfRange });
    await expect(c.runs.listRuns({ pageSize: 1001 })).rejects.toMatchObject({ code: Code.InvalidArgument });
  });
});

describe("a store that cannot be used", () => {
  it("is refused with its path and left as it is", async () => {
    const store = join(tempDir(), "coordinator.db");
    writeFileSync(store, "these are notes, not a database\n".repeat(400));
    await expect(startTestCoordinator({ memory: false, store })).rejects.toThrow(store);
    expect(readFileSync(store, "utf8")).toMatch(/^these are notes/);
  });

  it("because another coordinator has it is refused with its path", async () => {
    const first = await startTestCoordinator({ memory: false });
    const { store } = first.config;
    await expect(startTestCoordinator({ memory: false, store })).rejects.toThrow(/is in use by another process/);
    await first.create();
  });
});
