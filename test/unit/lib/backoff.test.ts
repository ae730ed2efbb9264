import { expect, it } from "vitest";
import { Backoff } from "../../../lib/rpc/backoff.ts";

it("waits under a ceiling that doubles from the shortest to the longest, and starts again after a success", () => {
  const backoff = new Backoff(100, 1_000, () => 1);
  expect([1, 2, 3, 4, 5].map(() => backoff.next())).toEqual([100, 200, 400, 800, 1_000]);
  backoff.reset();
  expect(backoff.next()).toBe(100);
});

it("spreads every wait, the first too, over the whole range", () => {
  const backoff = new Backoff(1_000, 10_000);
  const firsts = Array.from({ length: 500 }, () => {
    backoff.reset();
    return backoff.next();
  });
  expect(Math.min(...firsts)).toBeLessThan(100);
  expect(Math.max(...firsts)).toBeGreaterThan(900);
  expect(firsts.every((wait) => wait >= 1 && wait <= 1_000)).toBe(true);
});

it("never waits less than 1 ms nor more than the longest, however often it failed", () => {
  expect(Backoff.wait(1, 100, 1_000, () => 0)).toBe(1);
  expect(Backoff.wait(10_000, 100, 1_000, () => 1)).toBe(1_000);
});
