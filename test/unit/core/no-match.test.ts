import { expect, it } from "vitest";
import { isOverdue, unmatchedSince } from "../../../coordinator/core/no-match.ts";

it.each([
  ["a class that something matches", undefined, 100, undefined],
  ["a run that was pending before its class was unmatched", 200, 100, 200],
  ["a run that became pending later", 200, 300, 300],
])("the clock of %s", (_, classSince, pendingSince, since) => {
  expect(unmatchedSince(classSince, pendingSince)).toBe(since);
});

it.each([
  ["before the limit", 499, true],
  ["at the limit", 500, false],
  ["now", 1_000, false],
  ["a little ahead, by a clock that was set back a little", 1_400, false],
  ["further ahead than a run may wait", 1_501, true],
])("a run that is unmatched since %s", (_, since, overdue) => {
  expect(isOverdue(since, 500, 1_000)).toBe(overdue);
});
