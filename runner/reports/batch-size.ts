/** A proxy takes a body of 1 MiB unless somebody told it to take more. */
export const BATCH_MAX_BYTES = 768 * 1024;
/** The first batch: 8 s at 64 kbit/s. */
const START_BYTES = 64 * 1024;
/** Something on the way that takes not even this is in trouble: the size is not what is wrong. */
export const BATCH_MIN_BYTES = 4 * 1024;
/** Time that a batch is to take: as long waits what comes up while it is under way. */
const TARGET_MS = 2_000;

/** How much goes into one call: follows what the network takes, and what it does not. No clock; decides by what it is told. */
export class BatchSize {
  readonly #itemsLimit: number;
  #bytesLimit = BATCH_MAX_BYTES;
  #maxBytes = START_BYTES;
  #maxItems: number;

  constructor(maxItems: number) {
    this.#itemsLimit = maxItems;
    this.#maxItems = maxItems;
  }

  /** Bytes of a batch of more than one item. */
  get maxBytes(): number {
    return this.#maxBytes;
  }

  get maxItems(): number {
    return this.#maxItems;
  }

  /** A batch was answered after `ms`. */
  answered(bytes: number, ms: number): void {
    this.#maxItems = Math.min(this.#itemsLimit, this.#maxItems * 2);
    if (ms <= TARGET_MS) this.#setBytes(this.#maxBytes * 2);
    // A small batch that was slow says something of the way there and nothing of its width.
    else if (bytes * 2 > this.#maxBytes) this.#setBytes((bytes * TARGET_MS) / ms);
  }

  /** A batch took too long, or its connection broke. */
  failed(bytes: number): void {
    this.#setBytes(Math.min(this.#maxBytes, bytes / 2));
  }

  /** A batch of this size is never taken: no later one grows to it. */
  tooLarge(bytes: number): void {
    this.#bytesLimit = Math.max(BATCH_MIN_BYTES, Math.floor(bytes / 2));
    this.#setBytes(this.#bytesLimit);
  }

  /** One of this many items was refused: fewer find it. */
  refused(items: number): void {
    this.#maxItems = Math.max(1, Math.floor(items / 2));
  }

  #setBytes(bytes: number): void {
    this.#maxBytes = Math.floor(Math.max(BATCH_MIN_BYTES, Math.min(this.#bytesLimit, bytes)));
  }
}
