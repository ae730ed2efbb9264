import { describe, expect, it } from "vitest";
import { SignalCount } from "../../../lib/signals.ts";

describe("signals", () => {
  it("of one second count once, and hammering gets through all the same", () => {
    const count = new SignalCount();
    const times = [0, 1, 500, 999, 1_000, 1_400, 1_999, 2_000, 9_000];
    const counted = times.map((atMs) => count.next(atMs));
    expect(counted).toEqual([1, undefined, undefined, undefined, 2, undefined, undefined, 3, 4]);
  });
});
