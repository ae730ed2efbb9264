import { create, fromJson } from "@bufbuild/protobuf";
import type { JsonObject } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import {
  judgeExactPrompt,
  judgeExit,
  judgeHang,
  judgeHeaders,
  judgeHome,
  judgeLeft,
  judgeModelError,
  judgePrompt,
  judgeRefusal,
  judgeResume,
  judgeSession,
  judgeStart,
  judgeStop,
  judgeToolBackground,
  judgeToolCall,
  judgeToolStop,
} from "../../../conformance/judge.ts";
import type { Seen } from "../../../conformance/judge.ts";
import { isOk, reportOf } from "../../../conformance/points.ts";
import { ExecutorEventSchema, ExecutorResultSchema } from "../../../gen/agentrunner/v1/executor_pb.ts";
import { ExitSchema, FailureReason } from "../../../gen/agentrunner/v1/run_pb.ts";
import { Report_Kind } from "../../../gen/agentrunner/v1/runner_service_pb.ts";

type Request = Seen["requests"][number];

const request = (...texts: string[]): Request => ({
  turns: [{ who: "user", texts }],
  tools: [],
  reply: { type: "text", text: "" },
});
const event = (json: JsonObject) => fromJson(ExecutorEventSchema, json);
const stderr = (text: string) => event({ output: { stream: "STREAM_STDERR", text } });
const SESSION = event({ session: { executorSessionId: "s1" } });
const MESSAGE = event({ message: { role: "assistant", text: "hi" } });

interface Facts extends Partial<Omit<Seen, "outcome">> {
  readonly kind?: Seen["outcome"]["kind"];
  readonly failure?: FailureReason;
  readonly exit?: { code?: number; signal?: string; forced?: boolean; outputTruncated?: boolean };
  readonly result?: string;
  readonly session?: string;
}

function seen({ kind = Report_Kind.COMPLETED, failure, exit, result, session = "", ...rest }: Facts = {}): Seen {
  return {
    outcome: {
      kind,
      failure: failure ?? FailureReason.UNSPECIFIED,
      message: kind === Report_Kind.COMPLETED ? "" : "executor exited with code 1",
      exit: create(ExitSchema, exit ?? { code: 0 }),
      result: result === undefined ? undefined : create(ExecutorResultSchema, { text: result }),
      executorSessionId: session,
    },
    events: [],
    requests: [],
    stopped: false,
    endedAfterMs: 0,
    durationMs: 1_200,
    ...rest,
  };
}

const FAILED = { kind: Report_Kind.FAILED, exit: { code: 1 }, failure: FailureReason.EXECUTOR_EXIT };
const STOPPED = { kind: Report_Kind.STOPPED, stopped: true, endedAfterMs: 300 };

describe("what an executor did becomes a verdict", () => {
  it.each([
    ["a failure", judgeStart(seen(FAILED), undefined), "fail", "exited with code 1"],
    ["no result of one without a model", judgeStart(seen(), undefined), "pass", "no result"],
    ["the model's answer", judgeStart(seen({ result: "WORD", requests: [request()] }), "WORD"), "pass", "1 request to"],
    ["another answer", judgeStart(seen({ result: "x" }), "WORD"), "fail", 'the result is "x"'],
    ["no answer", judgeStart(seen(), "WORD"), "fail", "there is no result"],
  ])("start: %s", (_, verdict, status, detail) => {
    expect(verdict).toEqual({ status, detail: expect.stringContaining(detail) });
  });

  it("session-early: before everything that counts, or not at all without a model", () => {
    expect(judgeSession(seen({ events: [SESSION, MESSAGE], session: "s1" }), true).status).toBe("pass");
    expect(judgeSession(seen({ events: [MESSAGE, SESSION] }), true).detail).toContain("a message event came before");
    expect(judgeSession(seen(), true).status).toBe("fail");
    expect(judgeSession(seen(), false).status).toBe("skip");
  });

  it("exits: by itself, alone", () => {
    expect(judgeExit(seen()).detail).toBe("exit code 0 after 1.2 s");
    expect(judgeExit(seen({ exit: { forced: true } })).status).toBe("fail");
    expect(judgeExit(seen({ exit: { outputTruncated: true } })).status).toBe("fail");
  });

  it("resume: the same session, and the model sees what was said before", () => {
    const first = seen({ session: "s1" });
    expect(judgeResume(first, seen({ session: "s1", requests: [request("WORD", "x")] }), "WORD").status).toBe("pass");
    expect(judgeResume(first, seen({ session: "s1", requests: [request("x")] }), "WORD").detail).toContain("another");
    expect(judgeResume(first, seen({ session: "s2" }), undefined).detail).toContain('is "s2" now');
    expect(judgeResume(first, seen(), "WORD").detail).toBe("no request came to the model");
    expect(judgeResume(first, seen(FAILED), "WORD").status).toBe("fail");
    expect(judgeResume(seen(), seen(), undefined).status).toBe("pass");
  });

  it("bad-json, eof: an exit code and words", () => {
    expect(judgeRefusal(seen({ ...FAILED, events: [stderr("a\nbad: why\n")] })).detail).toBe('exit code 1: "bad: why"');
    expect(judgeRefusal(seen(FAILED)).detail).toContain("nothing on stderr");
    expect(judgeRefusal(seen()).detail).toContain("exit code 0");
    expect(judgeRefusal(seen({ ...FAILED, failure: FailureReason.TIMEOUT })).detail).toContain("did not end");
    expect(judgeRefusal(seen({ ...FAILED, exit: { signal: "SIGSEGV" } })).detail).toBe("ended by SIGSEGV");
  });

  it("prompt-exact: to the byte, and where it parts", () => {
    const judge = (text: string) => judgePrompt(seen({ requests: [request(text)] }), "Keep this, please\n", true);
    expect(judge("before Keep this, please\n").status).toBe("pass");
    expect(judge("Keep this, please").detail).toContain("line end at its end is missing");
    expect(judge("Keep this; please\n").detail).toContain('after 9 characters "; please\\n" instead of ", please\\n"');
    expect(judge("nothing").detail).toContain('nothing that begins with "Keep thi"');
    expect(judgePrompt(seen(), "x", true).detail).toBe("no request came to the model");
    expect(judgePrompt(seen({ ...FAILED }), "x", true).status).toBe("fail");
    expect(judgePrompt(seen(), "x", false).detail).toBe("exit code 0 after 1 byte");
    expect(judgeExactPrompt(seen({ result: "Echo: x y" }), "x y", false).status).toBe("pass");
    expect(judgeExactPrompt(seen({ result: "3 words" }), "x y", false).status).toBe("skip");
    expect(judgeExactPrompt(seen(FAILED), "x y", false).status).toBe("fail");
  });

  it("model errors: never COMPLETED, never silent", () => {
    const requests = [request(), request()];
    expect(judgeModelError(seen({ ...FAILED, requests, events: [stderr("401: no")] })).detail).toContain("2 requests");
    expect(judgeModelError(seen({ ...FAILED, requests })).detail).toContain("without a word");
    expect(judgeModelError(seen({ requests, result: "sorry" })).detail).toContain('COMPLETED with "sorry"');
    expect(judgeModelError(seen(FAILED)).detail).toContain("no request came to the model");
    const late = { ...FAILED, failure: FailureReason.TIMEOUT, requests };
    expect(judgeModelError(seen(late)).status).toBe("fail");
    expect(judgeModelError(seen({ ...late, events: [event({ status: { text: "busy" } })] })).status).toBe("pass");
  });

  it("stops: by SIGTERM where that is asked, and STOPPED in any case", () => {
    const judge = (facts: Facts, graceful = true) => judgeStop(seen(facts), "the stop", { graceful });
    expect(judge({ ...STOPPED, exit: { signal: "SIGTERM" } }).detail).toBe("SIGTERM, 0.3 s after the stop");
    expect(judge({ ...STOPPED, exit: { code: 143 } }).detail).toContain("exit code 143");
    expect(judge({ ...STOPPED, exit: { signal: "SIGKILL" } }).status).toBe("fail");
    expect(judge({ ...STOPPED, exit: { signal: "SIGKILL" } }, false).status).toBe("pass");
    expect(judge({ ...FAILED, stopped: true }).detail).toContain("the runner would call it");
    expect(judge({}).status).toBe("skip");
    expect(judge(FAILED).status).toBe("fail");
  });

  it("result-then-hang: the result is kept", () => {
    expect(judgeHang(seen({ exit: { forced: true }, result: "x" })).status).toBe("pass");
    expect(judgeHang(seen({ exit: { forced: true } })).status).toBe("fail");
    expect(judgeHang(seen()).status).toBe("pass");
    expect(judgeHang(seen(FAILED)).status).toBe("fail");
  });

  it("tools: seen, and gone", () => {
    const stopped = seen({ ...STOPPED, exit: { signal: "SIGTERM" } });
    expect(judgeToolStop(stopped, []).status).toBe("pass");
    expect(judgeToolStop(stopped, ["tail"]).detail).toBe("still there after the stop: tail");
    const none = seen({ requests: [{ ...request(), reply: { type: "text", text: "NOT-OFFERED: a shell" } }] });
    expect(judgeToolStop(none, []).detail).toContain("NOT-OFFERED");
    const refused = seen({ requests: [{ ...request(), turns: [{ who: "tool", texts: ["permission denied"] }] }] });
    expect(judgeToolBackground(refused, false, []).detail).toContain("permission denied");
    expect(judgeToolBackground(seen(), true, []).status).toBe("pass");
    expect(judgeToolBackground(seen(), true, ["tail"]).status).toBe("fail");
    expect(judgeToolBackground(seen(FAILED), true, []).status).toBe("fail");
  });

  it("MCP: called, with its headers", () => {
    const call = { server: "orchestrator", tool: "t", args: {}, headers: { a: "1" } } as const;
    expect(judgeToolCall(seen(), [call], "t", { a: "1" }).status).toBe("pass");
    expect(judgeToolCall(seen(), [call], "t", { b: "1" }).detail).toContain("the header b missing");
    expect(judgeToolCall(seen(), [call], "t", { a: "2" }).detail).toContain('the header a "1"');
    expect(judgeToolCall(seen(), [], "t", {}).detail).toContain("t was not called");
    expect(judgeToolCall(seen(FAILED), [call], "t", {}).status).toBe("fail");
    expect(judgeHeaders(seen(), [{ a: "1" }, { a: "1" }], { a: "1" }).detail).toBe("2 requests, each with a");
    expect(judgeHeaders(seen(), [{ a: "1" }, {}], { a: "1" }).detail).toBe("a request came with the header a missing");
    expect(judgeHeaders(seen(), [], { a: "1" }).status).toBe("fail");
    expect(judgeHeaders(seen(FAILED), [{ a: "1" }], { a: "1" }).status).toBe("fail");
  });

  it("what is left, and what has changed", () => {
    expect(judgeLeft([], [])).toEqual({ status: "pass", detail: "none" });
    expect(judgeLeft([], ["tail (pid 1)"]).detail).toContain("the runner had to end tail");
    expect(judgeLeft(["tail"], []).status).toBe("fail");
    expect(judgeHome([]).status).toBe("pass");
    expect(judgeHome(["1", "2", "3", "4", "5", "6", "7"]).detail).toBe("1, 2, 3, 4, 5, and 2 more");
  });
});

describe("the report of a point", () => {
  const point = { name: "resume", title: "resumes" } as const;

  it("says which failure is known, and fails for the others alone", () => {
    const known = reportOf(point, { status: "fail", detail: "no" }, { resume: "it forgets" }, 1.4);
    expect(known).toMatchObject({ status: "fail", known: "it forgets", duration_ms: 1 });
    const unknown = reportOf(point, { status: "fail", detail: "no" }, {}, 1);
    expect(unknown.known).toBe("");
    expect([isOk([known]), isOk([known, unknown])]).toEqual([true, false]);
  });

  it("points out what the roster says and is not so", () => {
    const report = reportOf(point, { status: "pass", detail: "yes" }, { resume: "it forgets" }, 1);
    expect(report).toMatchObject({ known: "", detail: expect.stringContaining("correct the roster") });
  });
});
