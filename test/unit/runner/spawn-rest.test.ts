import { describe, expect, it } from "vitest";
import { isShortage } from "../../../runner/execution/shortage.ts";
import { afterShortage, afterStart, slotsOf } from "../../../runner/leases/spawn-rest.ts";

const MAX = 40;

describe("a runner whose machine can start nothing", () => {
  it("takes nothing for 2 s, then as many as ran, and twice as many whenever that bound is reached", () => {
    const rest = afterShortage(undefined, "EMFILE", 14, 1_000);
    expect([1_000, 2_999].map((now) => slotsOf(rest, MAX, now))).toEqual([0, 0]);
    expect(slotsOf(rest, MAX, 3_000)).toBe(14);
    expect(afterStart(rest, 13, 3_000)).toBe(rest);
    expect(slotsOf(afterStart(rest, 14, 3_000), MAX, 3_000)).toBe(28);
    expect(slotsOf(rest, 5, 3_000)).toBe(5);
  });

  it("counts what fails during a pause as the same failure, with the lowest bound", () => {
    const first = afterShortage(undefined, "EMFILE", 19, 0);
    const last = afterShortage(afterShortage(first, "EMFILE", 18, 1), "EMFILE", 14, 2);
    expect(last).toEqual({ ...first, limit: 14 });
  });

  it("pauses longer each time, up to a minute, and always leaves one slot", () => {
    const pauses: number[] = [];
    let rest = afterShortage(undefined, "EAGAIN", 0, 0);
    for (let now = rest.untilMs; pauses.length < 7; now = rest.untilMs) {
      rest = afterShortage(rest, "EAGAIN", 0, now);
      pauses.push(rest.untilMs - now);
      expect(slotsOf(rest, MAX, rest.untilMs)).toBe(1);
    }
    expect(pauses).toEqual([4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]);
  });

  it("is well again after a minute without a failure", () => {
    const rest = afterShortage(afterShortage(undefined, "ENOMEM", 3, 0), "ENOMEM", 3, 2_000);
    expect(slotsOf(rest, MAX, rest.untilMs + 59_999)).toBe(3);
    const calmMs = rest.untilMs + 60_000;
    expect(slotsOf(rest, MAX, calmMs)).toBe(MAX);
    expect(afterShortage(rest, "ENOMEM", 9, calmMs)).toMatchObject({ pauses: 1, limit: 9 });
  });

  it("is told from an executor that cannot be started by the code of the system", () => {
    const withCode = (code: string) => Object.assign(new Error(code), { code });
    for (const code of ["EMFILE", "ENFILE", "EAGAIN", "ENOMEM", "ENOSPC"])
      expect(isShortage(withCode(code))).toBe(true);
    for (const code of ["ENOENT", "EACCES", "E2BIG", "ENOEXEC"]) expect(isShortage(withCode(code))).toBe(false);
    expect(isShortage(new Error("EMFILE"))).toBe(false);
  });
});
