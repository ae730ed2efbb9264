import { Refusal } from "./refusal.ts";

/** One start of a coordinator on the store: what was committed from then on, after place `after`. */
export interface Epoch {
  readonly epoch: string;
  readonly after: number;
}

/**
 * Places in the events of a store.
 *
 * A store can go back in time: somebody restores a copy, or a disk returns to a snapshot. What it then appends takes places
 * that others had seen taken by something else. So every start of a coordinator begins an _epoch_, and a cursor names the one
 * that it was made in: a place is good if this store has that epoch, and if the epoch went as far as that place in it.
 */
export class EventCursors {
  readonly #storeId: string;
  readonly #epochs: readonly Epoch[];
  readonly #current: string;

  /** @param epochs oldest first; the last one is that of this process. */
  constructor(storeId: string, epochs: readonly Epoch[]) {
    this.#storeId = storeId;
    this.#epochs = epochs;
    this.#current = epochs.at(-1)?.epoch ?? "";
  }

  cursorOf(place: number): string {
    return `${this.#storeId}.${place}.${this.#current}`;
  }

  /**
   * Inverse of `cursorOf`; empty is the beginning, 0.
   * @throws Refusal INVALID_ARGUMENT for a text that is not a cursor, OUT_OF_RANGE for one of another store or history.
   */
  placeOf(cursor: string): number {
    if (cursor === "") return 0;
    const [, head, epoch] = /^([^.]*\.[^.]*)(?:\.([0-9a-f]{12}))?$/.exec(cursor) ?? [];
    if (head === undefined) throw new Refusal("INVALID_ARGUMENT", `not a cursor: ${cursor}`);
    const place = placeOf(this.#storeId, head);
    if (place <= this.#endOf(epoch)) return place;
    throw new Refusal(
      "OUT_OF_RANGE",
      `cursor ${cursor} is of a time that the store ${this.#storeId} does not remember: it was restored from an older copy. ` +
        "Begin without a cursor",
      "STORE_WENT_BACK",
    );
  }

  /** The last place of an epoch, or of the time before there were any; -1 for one that is not known. */
  #endOf(epoch: string | undefined): number {
    const i = epoch === undefined ? -1 : this.#epochs.findIndex((known) => known.epoch === epoch);
    if (epoch !== undefined && i === -1) return -1;
    return this.#epochs[i + 1]?.after ?? Infinity;
  }
}

/** A place in a list. */
export function cursorOf(storeId: string, place: number): string {
  return `${storeId}.${place}`;
}

/**
 * Inverse. `what` is the word for it in errors.
 * @throws Refusal INVALID_ARGUMENT for a text that is none, OUT_OF_RANGE for one of another store.
 */
export function placeOf(storeId: string, cursor: string, what: "cursor" | "page_token" = "cursor"): number {
  const [store, place, ...rest] = cursor.split(".");
  if (place === undefined || rest.length > 0 || !/^\d{1,15}$/.test(place)) {
    throw new Refusal("INVALID_ARGUMENT", `not a ${what}: ${cursor}`);
  }
  if (store !== storeId) {
    throw new Refusal(
      "OUT_OF_RANGE",
      `${what} ${cursor} is of another store; this one is ${storeId}. Begin without one.`,
      "OTHER_STORE",
    );
  }
  return Number(place);
}
