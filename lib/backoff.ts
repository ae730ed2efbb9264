/**
 * Waits between attempts: full jitter, so that runners that lost a coordinator together do not come back together.
 * Each wait is uniform between 0 and a ceiling that starts at `minMs` and doubles up to `maxMs`.
 */
export class Backoff {
  readonly #random: () => number;
  #attempts = 0;
  minMs: number;
  maxMs: number;

  /** `random` answers numbers from 0 to below 1. */
  constructor(minMs: number, maxMs: number, random: () => number = Math.random) {
    this.minMs = minMs;
    this.maxMs = maxMs;
    this.#random = random;
  }

  /** Attempts since the last reset. */
  get attempts(): number {
    return this.#attempts;
  }

  /** The next wait in milliseconds, never under 1. */
  next(): number {
    // 2 ** 40 ms is beyond every maximum; more would only lose precision.
    const ceilingMs = Math.min(this.maxMs, this.minMs * 2 ** Math.min(this.#attempts, 40));
    this.#attempts += 1;
    return Math.max(1, Math.round(this.#random() * ceilingMs));
  }

  /** The thing worked: the next wait is a short one again. */
  reset(): void {
    this.#attempts = 0;
  }
}
