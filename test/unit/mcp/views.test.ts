import { errorInfo } from "../../../lib/rpc/error-info.ts";
import { create } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ExecutorResultSchema } from "../../../gen/agentrunner/v1/executor_pb.ts";
import { RunSchema, RunStateSchema } from "../../../gen/agentrunner/v1/run_pb.ts";
import { SessionSchema } from "../../../gen/agentrunner/v1/session_pb.ts";
import { tagsOf } from "../../../mcp/caller.ts";
import { adviceOf, ToolError } from "../../../mcp/errors.ts";
import { facts, treeView, pageOf, resultView, runView, word } from "../../../mcp/views.ts";

describe("pageOf", () => {
  it("gives pieces that together are the text, none longer than asked for, no character split", () => {
    const text = fc.string({ unit: "binary", maxLength: 60 });
    fc.assert(
      fc.property(text, fc.integer({ min: 2, max: 9 }), (whole, limit) => {
        const pieces: string[] = [];
        for (let offset: number | undefined = 0; offset !== undefined;) {
          const page = pageOf(whole, offset, limit);
          expect(page.text.length).toBeLessThanOrEqual(limit);
          expect(page.text.isWellFormed()).toBe(whole.isWellFormed());
          pieces.push(page.text);
          offset = page.next;
        }
        expect(pieces.join("")).toBe(whole);
      }),
    );
  });

  it("goes on even when the limit is less than a character", () => {
    expect(pageOf("🙂🙂", 0, 1)).toEqual({ text: "🙂", next: 2 });
    expect(pageOf("🙂🙂", 2, 1)).toEqual({ text: "🙂", next: undefined });
    expect(pageOf("abc", 9, 2)).toEqual({ text: "", next: undefined });
  });
});

describe("views", () => {
  it("leave out what is empty, and keep what is zero or false", () => {
    expect(facts({ a: "", b: undefined, c: [], d: 0, e: false, f: null })).toEqual({ d: 0, e: false, f: null });
  });

  it("cut long results with a marker that says how to get the rest", () => {
    const result = create(ExecutorResultSchema, { text: "x".repeat(50), data: { list: "y".repeat(50) } });
    expect(resultView(result, 20)).toEqual({
      result_text: `${"x".repeat(20)}…[cut: 20 of 50 characters shown; get_agent_session_result with offset 20 gives the rest]`,
      result_data_cut: '61 characters; get_agent_session_result with part "data" gives them',
    });
    expect(resultView(result)).toEqual({ result_text: result.text, result_data: result.data });
    expect(resultView(undefined)).toEqual({});
  });

  it("cut long messages and long lists of children", () => {
    const run = create(RunSchema, { failure: 1, message: "y".repeat(10_000), pendingReasons: ["z".repeat(10_000)] });
    expect(JSON.stringify(runView(run)).length).toBeLessThan(9_000);
    const session = create(SessionSchema, { childSessionIds: Array.from({ length: 150 }, (_, i) => `ses_${i}`) });
    const view = treeView(session);
    expect(view["child_session_ids"]).toHaveLength(100);
    expect(view["further_children"]).toContain("50 more");
  });

  it("name what a newer coordinator says", () => {
    expect(word(RunStateSchema, 3)).toBe("claimed");
    expect(word(RunStateSchema, 99)).toBe("unknown_99");
  });
});

describe("X-Agent-Tags", () => {
  it.each([
    ["", []],
    ["a", ["a"]],
    [" a ,b,, a", ["a", "b"]],
  ])("%j are the tags %j", (header, tags) => {
    expect(tagsOf(new Headers({ "X-Agent-Tags": header }))).toEqual(tags);
    expect(tagsOf(new Headers())).toEqual([]);
  });
});

describe("errors", () => {
  it.each([
    [new ToolError("do that instead"), "do that instead"],
    [new ConnectError("bad prompt", Code.InvalidArgument), "bad prompt. Nothing was changed. Correct the arguments"],
    [new ConnectError("the token has ended", Code.Unauthenticated), "stop working"],
    [new ConnectError("disk full", Code.ResourceExhausted), "Wait a minute"],
    [new ConnectError("disk full", Code.Unavailable, undefined, [errorInfo("STORE_FULL")]), "Wait a minute and call"],
    [new ConnectError("slow", Code.DeadlineExceeded), "does not answer"],
    [new ConnectError("internal error err_1", Code.Internal), "Internal: internal error err_1"],
    [new Error("a bug"), "Unknown: a bug"],
  ])("%s is said with what to do", (error, text) => {
    expect(adviceOf(error, { sessionId: "ses_1" })).toContain(text);
  });

  it("a token that is not good is no reason for a person's client to stop working", () => {
    const error = new ConnectError("the token is not a run token of this store", Code.Unauthenticated);
    expect(adviceOf(error, { sessionId: undefined })).toMatch(/^the token is not .* take `authorization` out/);
  });
});
