import { afterEach, describe, expect, it } from "vitest";
import { SchemaJudge } from "../../../coordinator/schemas/schema-judge.ts";

/** A pattern of the kind that people write, and a text that makes it backtrack for longer than anybody waits. */
const SLOW = { type: "string", pattern: "^(\\w+\\s?)*$" };
const SLOW_TEXT = `${"a".repeat(40)}!`;

let judge: SchemaJudge;
afterEach(() => judge.close());

/** Longest time in which the event loop did nothing else while `work` ran. */
async function longestGapMs(work: () => Promise<unknown>): Promise<number> {
  let last = performance.now();
  let longest = 0;
  const timer = setInterval(() => {
    longest = Math.max(longest, performance.now() - last);
    last = performance.now();
  }, 1);
  await work();
  clearInterval(timer);
  return longest;
}

describe("the schema judge", () => {
  it("says what does not fit, and why a schema cannot be used", async () => {
    judge = new SchemaJudge();
    const schema = { type: "object", properties: { n: { type: "number" } } };
    expect(await judge.judge(schema, { n: 1 }, "data")).toEqual({ violations: [] });
    expect(await judge.judge(schema, { n: "x" }, "data")).toEqual({ violations: ["data/n must be number"] });
    expect(await judge.judge(schema, undefined, "data")).toEqual({ violations: [] });
    expect(await judge.judge({ type: "nonsense" }, 1, "data")).toMatchObject({
      problem: expect.stringMatching(/schema/),
    });
  });

  it("ends a question that takes too long, while this thread goes on, and answers the next", async () => {
    judge = new SchemaJudge({ deadlineMs: 1000 });
    const slow = judge.judge(SLOW, SLOW_TEXT, "parameters");
    const next = judge.judge({ type: "number" }, 1, "v");
    const gapMs = await longestGapMs(() => slow.catch(() => undefined));
    await expect(slow).rejects.toMatchObject({
      reason: "TOO_SLOW",
      message: expect.stringMatching(/^parameters: the schema took longer than 1000 ms/),
    });
    expect(await next).toEqual({ violations: [] });
    // Not a figure of speed: done on this thread, the question would never have come back.
    expect(gapMs).toBeLessThan(60_000);
  });

  it("does not try a schema again that has just been too slow", async () => {
    judge = new SchemaJudge({ deadlineMs: 1000 });
    const asked = [1, 2, 3].map(() => judge.judge(SLOW, SLOW_TEXT, "parameters").catch((error: Error) => error.name));
    expect(await Promise.all(asked)).toEqual(Array(3).fill("SchemaUnanswered"));
    await expect(judge.judge(SLOW, "fine", "parameters")).rejects.toMatchObject({ reason: "TOO_SLOW" });
    expect(await judge.judge({ ...SLOW, title: "another" }, "fine", "v")).toEqual({ violations: [] });
  });

  it("bounds what waits in bytes, and refuses the rest at once", async () => {
    judge = new SchemaJudge({ maxWaitingBytes: 10_000 });
    const large = "x".repeat(6_000);
    const first = judge.judge({ type: "string" }, large, "v");
    await expect(judge.judge({ type: "string" }, large, "v")).rejects.toMatchObject({ reason: "TOO_MANY" });
    expect(await first).toEqual({ violations: [] });
    expect(await judge.judge({ type: "string" }, large, "v")).toEqual({ violations: [] });
  });

  it("refuses what waits when it is closed, and everything after", async () => {
    judge = new SchemaJudge();
    const waiting = expect(judge.judge(SLOW, SLOW_TEXT, "v")).rejects.toMatchObject({ reason: "STOPPED" });
    await judge.close();
    await waiting;
    await expect(judge.judge({}, 1, "v")).rejects.toMatchObject({ reason: "STOPPED" });
  });
});

describe("the use of a schema", () => {
  it("is found out once for the same content, and refused for a value on which the thread breaks", async () => {
    judge = new SchemaJudge({ deadlineMs: 60_000, maxMib: 32 });
    expect(await judge.problem({ type: "nonsense" }, "s")).toMatch(/must be equal/);
    expect(await judge.problem({ type: "number" }, "s")).toBeUndefined();
    const wrong = { type: "string", allOf: Array.from({ length: 20 }, () => ({ type: "object" })) };
    const answer = judge.judge({ items: wrong }, Array(100_000).fill(0), "v");
    const next = judge.judge({ type: "number" }, 1, "v");
    await expect(answer).rejects.toMatchObject({
      reason: "FAILED",
      message: expect.stringMatching(/^v: the schema could/),
    });
    expect(await next).toEqual({ violations: [] });
    await judge.close();
    expect(await judge.problem({ type: "number" }, "s"), "which needs no thread").toBeUndefined();
  });
});
