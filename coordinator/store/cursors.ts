import { cursorOf, placeOf } from "./event-cursors.ts";
import type { Page } from "./store.ts";

export { cursorOf };

/** Where a page of a list that runs downwards begins: rows with a lower number. */
export function pageStart(storeId: string, pageToken: string): number {
  return pageToken === "" ? Number.MAX_SAFE_INTEGER : placeOf(storeId, pageToken, "page_token");
}

/** Cuts rows, of which one more than a page was read, to a page. */
export function pageOf<T>(storeId: string, rows: T[], pageSize: number, place: (row: T) => number): Page<T> {
  const items = rows.slice(0, pageSize);
  const last = items.at(-1);
  return { items, next: rows.length > pageSize && last !== undefined ? cursorOf(storeId, place(last)) : "" };
}
