import { Refusal } from "./refusal.ts";
import type { Page } from "./store.ts";

/** A place in a store, for callers: they give it back and read nothing from it. */
export function cursorOf(storeId: string, place: number): string {
  return `${storeId}.${place}`;
}

/**
 * Inverse of `cursorOf`; empty is the beginning, 0.
 * @throws Refusal INVALID_ARGUMENT for a text that is not a cursor, OUT_OF_RANGE for one of another store.
 */
export function placeOf(storeId: string, cursor: string): number {
  if (cursor === "") return 0;
  const [store, place, ...rest] = cursor.split(".");
  if (place === undefined || rest.length > 0 || !/^\d{1,15}$/.test(place)) {
    throw new Refusal("INVALID_ARGUMENT", `not a cursor: ${cursor}`);
  }
  if (store !== storeId) {
    throw new Refusal(
      "OUT_OF_RANGE",
      `cursor ${cursor} is of another store; this one is ${storeId}. Begin without one.`,
    );
  }
  return Number(place);
}

/** Where a page of a list that runs downwards begins: rows with a lower number. */
export function pageStart(storeId: string, pageToken: string): number {
  return pageToken === "" ? Number.MAX_SAFE_INTEGER : placeOf(storeId, pageToken);
}

/** Cuts rows, of which one more than a page was read, to a page. */
export function pageOf<T>(storeId: string, rows: T[], pageSize: number, place: (row: T) => number): Page<T> {
  const items = rows.slice(0, pageSize);
  const last = items.at(-1);
  return { items, next: rows.length > pageSize && last !== undefined ? cursorOf(storeId, place(last)) : "" };
}
