import { TIMER_MAX_MS } from "./config/kinds.ts";

/**
 * A signal that aborts after so many milliseconds. `AbortSignal.timeout` ends at TIMER_MAX_MS, some 24 days; this goes on in steps.
 * Like that one it keeps no process alive.
 */
export function longTimeout(timeoutMs: number): AbortSignal {
  const over = new AbortController();
  const step = (leftMs: number): void => {
    const stepMs = Math.min(leftMs, TIMER_MAX_MS);
    setTimeout(() => (leftMs > stepMs ? step(leftMs - stepMs) : over.abort()), stepMs).unref();
  };
  step(timeoutMs);
  return over.signal;
}
