import { describe, expect, it } from "vitest";
import { lowReport, remember } from "../../../coordinator/core/reports/report-repeat.ts";
import type { Recorded } from "../../../coordinator/core/reports/report-repeat.ts";

const ACCEPT = 1;
const PROGRESS = 5;
const COMPLETED = 6;

describe("a report with a low number", () => {
  const recorded: Recorded = [
    [5, ACCEPT],
    [6, PROGRESS],
  ];
  it.each([
    ["the same kind under its number", 5, ACCEPT, "repeat"],
    ["the same kind under another number", 6, ACCEPT, "other"],
    ["another kind under a known number", 6, COMPLETED, "other"],
    ["a number that was skipped", 2, COMPLETED, "other"],
  ] as const)("%s", (_, seq, kind, low) => {
    expect(lowReport(recorded, seq, kind, kind === COMPLETED)).toBe(low);
  });

  it("of a store that kept no kinds is a repeat, but for a final one under a live lease", () => {
    expect(lowReport([[6, 0]], 3, ACCEPT, false)).toBe("repeat");
    expect(lowReport([[6, 0]], 7, ACCEPT, false)).toBe("other");
    expect(lowReport([[6, 0]], 3, COMPLETED, true)).toBe("other");
    expect(lowReport([[6, 0]], 3, COMPLETED, false)).toBe("repeat");
  });
});

it("what is remembered is bounded for each kind, and an accept outlives any progress", () => {
  let recorded: Recorded = [[1, ACCEPT]];
  for (let seq = 2; seq < 100; seq++) recorded = remember(recorded, seq, PROGRESS);
  expect(recorded).toEqual([[1, ACCEPT], ...[96, 97, 98, 99].map((seq) => [seq, PROGRESS])]);
});
