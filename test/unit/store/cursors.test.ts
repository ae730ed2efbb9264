import { describe, expect, it } from "vitest";
import { EventCursors } from "../../../coordinator/store/event-cursors.ts";

const A = { epoch: "aaaaaaaaaaaa", after: 10 };
const B = { epoch: "bbbbbbbbbbbb", after: 20 };
const C = { epoch: "cccccccccccc", after: 20 };

describe("a place in the events of a store", () => {
  const cursors = new EventCursors("store_x", [A, B, C]);

  it("is good in the epoch in which it was made, as far as this store knows that epoch", () => {
    expect(cursors.cursorOf(25)).toBe("store_x.25.cccccccccccc");
    for (const [cursor, place] of [
      ["", 0],
      ["store_x.25.cccccccccccc", 25],
      ["store_x.20.bbbbbbbbbbbb", 20],
      ["store_x.20.aaaaaaaaaaaa", 20],
      // Of the time before there were epochs.
      ["store_x.10", 10],
    ] as const) {
      expect(cursors.placeOf(cursor)).toBe(place);
    }
  });

  it.each(["store_x.21.bbbbbbbbbbbb", "store_x.21.aaaaaaaaaaaa", "store_x.5.dddddddddddd", "store_x.11"])(
    "of a time that the store lost is refused: %s",
    (cursor) => {
      expect(() => cursors.placeOf(cursor)).toThrow(
        expect.objectContaining({ code: "OUT_OF_RANGE", reason: "STORE_WENT_BACK" }),
      );
    },
  );

  it("of another store, and what is no cursor, is refused", () => {
    expect(() => cursors.placeOf("store_y.1.aaaaaaaaaaaa")).toThrow(
      expect.objectContaining({ code: "OUT_OF_RANGE", reason: "OTHER_STORE" }),
    );
    for (const text of [
      "x",
      "store_x.",
      "store_x.1.2",
      "store_x.-1",
      "store_x.1.aaaaaaaaaaaa.1",
      "store_x.1.AAAAAAAAAAAA",
    ]) {
      expect(() => cursors.placeOf(text)).toThrow(expect.objectContaining({ code: "INVALID_ARGUMENT" }));
    }
  });
});
