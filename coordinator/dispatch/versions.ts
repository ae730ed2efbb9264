import assert from "node:assert";

/**
 * When each of a number of things changed last, on a count of changes.
 *
 * It tells whether an answer is still true when it arrives: take the `moment` before the question is asked, and believe the
 * answer only about things that are `unchangedSince` then.
 */
export class Versions {
  readonly #changes = new Map<string, number>();
  #count = 0;

  /** The moment now, for `unchangedSince`. Only comparable with moments of this counter. */
  get moment(): number {
    return this.#count;
  }

  /** The thing changed. */
  changed(id: string): void {
    this.#changes.set(id, ++this.#count);
  }

  /** True when the thing did not change after this moment; false for one that is unknown or was forgotten. */
  unchangedSince(moment: number, id: string): boolean {
    assert(moment <= this.#count, "a moment of another counter, or of the future");
    const last = this.#changes.get(id);
    return last !== undefined && last <= moment;
  }

  /** The thing is gone. */
  forget(id: string): void {
    this.#changes.delete(id);
  }
}
