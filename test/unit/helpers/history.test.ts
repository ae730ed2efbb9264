import { expect, test } from "vitest";
import { violations } from "../../support/history.ts";
import type { RunHistory } from "../../support/history.ts";

const GOOD: RunHistory = {
  runId: "run_1",
  transitions: ["PENDING", "CLAIMED", "RUNNING", "COMPLETED"],
  attempts: [0, 1, 1, 1],
  state: "COMPLETED",
  begun: [1],
};

test("a run that was accepted, executed and completed once breaks no promise", () => {
  expect(violations([GOOD])).toEqual([]);
});

test.each<[string, Partial<RunHistory>, string]>([
  ["an acknowledged run that is gone", { state: undefined }, "is lost"],
  ["a run that never ends", { state: "RUNNING", transitions: ["PENDING", "CLAIMED", "RUNNING"] }, "never ended"],
  ["two accepted outcomes", { transitions: ["PENDING", "CLAIMED", "FAILED", "COMPLETED"] }, "2 accepted outcomes"],
  ["a final state that moves", { transitions: ["PENDING", "CLAIMED", "COMPLETED", "PENDING"] }, "went on after"],
  ["an outcome that is not the state", { state: "FAILED" }, "but its outcome was COMPLETED"],
  ["attempts that fall", { attempts: [0, 2, 1, 1] }, "attempts fell"],
  ["an attempt that is executed twice", { begun: [1, 1] }, "executed twice"],
  ["an executor that runs before its accept", { begun: [2] }, "ran with 1 accepts"],
  ["a completed run that nobody executed", { begun: [] }, "without being executed"],
])("%s is a broken promise", (_, change, words) => {
  expect(violations([{ ...GOOD, ...change }]).join()).toContain(words);
});
