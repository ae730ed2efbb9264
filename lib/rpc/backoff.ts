/**
 * Waits between attempts: full jitter, so that runners that lost a coordinator together do not come back together.
 * Each wait is uniform between 0 and a ceiling that starts at `minMs` and doubles up to `maxMs`.
 */
export class Backoff {
  readonly #random: () => number;
  #failures = 0;
  minMs: number;
  maxMs: number;

  /** `random` returns numbers from 0 to below 1. */
  constructor(minMs: number, maxMs: number, random: () => number = Math.random) {
    this.minMs = minMs;
    this.maxMs = maxMs;
    this.#random = random;
  }

  /** The wait after the `failures`-th failure in a row, from 1; in milliseconds, never under 1. */
  static wait(failures: number, minMs: number, maxMs: number, random: () => number = Math.random): number {
    // 2 ** 40 ms is beyond every maximum; more would only lose precision.
    const ceilingMs = Math.min(maxMs, minMs * 2 ** Math.min(failures - 1, 40));
    return Math.max(1, Math.round(random() * ceilingMs));
  }

  /** Failures since the last reset. */
  get failures(): number {
    return this.#failures;
  }

  /** The next wait in milliseconds. */
  next(): number {
    this.#failures += 1;
    return Backoff.wait(this.#failures, this.minMs, this.maxMs, this.#random);
  }

  /** It worked: the next wait is a short one again. */
  reset(): void {
    this.#failures = 0;
  }
}
