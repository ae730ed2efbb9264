import { describe, expect, it } from "vitest";
import { clockAfterJump, clockAtStart, clockSeen, NO_PRUNE_MS } from "../../../lib/clock-note.ts";

const NOW = 1_800_000_000_000;
const DAY = 86_400_000;
const HOUR = 3_600_000;

describe("a coordinator that starts", () => {
  it.each([
    ["an hour after the last look", NOW - HOUR, 30 * DAY, 0],
    ["a day after the last look", NOW - DAY, 30 * DAY, 0],
    ["more than a day after it", NOW - DAY - 1, 30 * DAY, NOW + NO_PRUNE_MS],
    ["before the last look", NOW + 1, 30 * DAY, NOW + NO_PRUNE_MS],
    ["after a tenth of what is retained", NOW - 6 * 60_000, HOUR, 0],
    ["after more than a tenth of it", NOW - 6 * 60_000 - 1, HOUR, NOW + NO_PRUNE_MS],
  ])("%s", (_, seenAt, retainMs, pruneFrom) => {
    expect(clockAtStart({ seenAt, pruneFrom: 0 }, NOW, retainMs)).toEqual({ seenAt: NOW, pruneFrom });
  });

  it("has no limit of its own where everything is kept", () => {
    expect(clockAtStart({ seenAt: NOW - HOUR, pruneFrom: 0 }, NOW, 0).pruneFrom).toBe(0);
  });

  it("that was away again and again deletes when the day that it was told to wait has passed", () => {
    const first = clockAtStart({ seenAt: NOW - 2 * DAY, pruneFrom: 0 }, NOW, 30 * DAY);
    expect(first.pruneFrom).toBe(NOW + NO_PRUNE_MS);
    const used = clockSeen(first, NOW + HOUR);
    expect(clockAtStart(used, NOW + 2 * DAY, 30 * DAY).pruneFrom).toBeLessThan(NOW + 2 * DAY);
  });

  it("goes on holding back what the process before it held back", () => {
    const jumped = clockAfterJump(NOW);
    expect(clockAtStart(clockSeen(jumped, NOW + HOUR), NOW + 2 * HOUR, 30 * DAY)).toEqual({
      seenAt: NOW + 2 * HOUR,
      pruneFrom: NOW + NO_PRUNE_MS,
    });
  });
});
