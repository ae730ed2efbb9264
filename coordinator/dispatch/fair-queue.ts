/** Things in the order in which their turns come: what had its last turn longest ago is first, what is new is last. */
export class FairQueue<T> implements Iterable<T> {
  /** A set keeps the order of insertion, so taking a thing out and putting it in again moves it to the end. */
  readonly #items = new Set<T>();

  get size(): number {
    return this.#items.size;
  }

  /** What is already in keeps its place. */
  add(item: T): void {
    this.#items.add(item);
  }

  delete(item: T): void {
    this.#items.delete(item);
  }

  /** It had its turn, and goes to the end; unless it is not in. */
  hadTurn(item: T): void {
    if (this.#items.delete(item)) this.#items.add(item);
  }

  [Symbol.iterator](): Iterator<T> {
    return this.#items.values();
  }
}
