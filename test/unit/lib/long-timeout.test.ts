import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { longTimeout } from "../../../lib/long-timeout.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const DAY_MS = 86_400_000;

it.each([0, 1, 30 * DAY_MS, 365 * DAY_MS])("aborts after %d ms, and not before", async (timeoutMs) => {
  const signal = longTimeout(timeoutMs);
  if (timeoutMs > 0) await vi.advanceTimersByTimeAsync(timeoutMs - 1);
  expect(signal.aborted).toBe(false);
  await vi.advanceTimersByTimeAsync(1);
  expect(signal.aborted).toBe(true);
  expect(vi.getTimerCount()).toBe(0);
});
