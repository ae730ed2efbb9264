/** When the same trouble is said again: at once, and then at most once in `intervalMs`, with the number of times it came. */
export class Rarely {
  readonly #intervalMs: number;
  readonly #steadyMs: () => number;
  #saidAtMs = -Infinity;
  #unsaid = 0;

  constructor(intervalMs: number, steadyMs: () => number = () => performance.now()) {
    this.#intervalMs = intervalMs;
    this.#steadyMs = steadyMs;
  }

  /** It came once more. Returns how often it came since it was last said, when it is time to say so; otherwise undefined. */
  again(): number | undefined {
    this.#unsaid += 1;
    const nowMs = this.#steadyMs();
    if (nowMs - this.#saidAtMs < this.#intervalMs) return undefined;
    const times = this.#unsaid;
    this.#unsaid = 0;
    this.#saidAtMs = nowMs;
    return times;
  }
}
