import { describe, expect, it } from "vitest";
import { hookAnswer } from "../../../runner/execution/hook-answer.ts";

describe("the answer of an on_run_start hook", () => {
  it.each<[string, object]>([
    ["", { type: "continue" }],
    [" \n", { type: "continue" }],
    ['{"action":"continue"}', { type: "continue" }],
    [
      '{"action":"continue","prompt":"p","parameters":{"a":[1]}}',
      { type: "continue", prompt: "p", parameters: { a: [1] } },
    ],
    ['{\n "action": "block",\n "block_reason": "no"\n}\n', { type: "block", reason: "no" }],
    ['{"action":"block"}', { type: "block", reason: "it says no reason" }],
  ])("%j", (text, answer) => expect(hookAnswer(text)).toEqual(answer));

  it.each([
    ["go on", /^its output is not JSON: /],
    ["[]", /^its output is no JSON object$/],
    ["{}", /^its "action" is missing, neither "continue" nor "block"$/],
    ['{"action":"stop"}', /^its "action" is "stop", neither/],
    ['{"action":"continue","prompt":5}', /^its "prompt" is no text$/],
    ['{"action":"continue","prompt":""}', /^its "prompt" is no text$/],
    ['{"action":"continue","parameters":[]}', /^its "parameters" are no JSON object$/],
    [
      `{"action":"continue","parameters":${'{"a":'.repeat(25)}1${"}".repeat(25)}}`,
      /^its parameters: nested more than 24/,
    ],
  ])("%.50s cannot be understood", (text, problem) => {
    expect(hookAnswer(text)).toEqual({ type: "unclear", problem: expect.stringMatching(problem) });
  });

  it("is kept short", () => {
    const answer = hookAnswer(JSON.stringify({ action: "block", block_reason: "x".repeat(100_000) }));
    expect(answer).toEqual({ type: "block", reason: "x".repeat(4_000) });
  });
});
