import { Buffer } from "node:buffer";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { NotUtf8Counter } from "../../../runner/execution/not-utf8.ts";

function count(...chunks: readonly Buffer[]): number {
  const counter = new NotUtf8Counter();
  for (const chunk of chunks) counter.push(chunk);
  return counter.end();
}

describe("bytes that are not UTF-8", () => {
  it.each([
    ["none in text of every length", Buffer.from("aé漢🚀\0\ufffd"), 0],
    ["a byte that begins nothing", Buffer.from([0x61, 0xff, 0x80, 0x61]), 2],
    ["a character that is cut off by another", Buffer.from([0xe6, 0xbc, 0x61]), 2],
    ["a character that is cut off by the end", Buffer.from([0x61, 0xf0, 0x9f, 0x9a]), 3],
    ["a longer form than needed", Buffer.from([0xc0, 0x80, 0xe0, 0x80, 0x80, 0xf0, 0x80, 0x80, 0x80]), 9],
    ["half of a pair", Buffer.from([0xed, 0xa0, 0x80]), 3],
    ["beyond the last character", Buffer.from([0xf4, 0x90, 0x80, 0x80, 0xf5]), 5],
    ["Latin-1", Buffer.from("grün", "latin1"), 1],
  ])("%s", (_, bytes, expected) => {
    expect(count(bytes)).toBe(expected);
    expect(count(...[...bytes].map((byte) => Buffer.from([byte])))).toBe(expected);
  });

  it("are as many wherever the stream is cut, and what is left of it is what was read", () => {
    const piece = fc.oneof(
      fc.uint8Array({ maxLength: 6 }).map((bytes) => Buffer.from(bytes)),
      fc.string({ unit: "binary", maxLength: 4 }).map((text) => Buffer.from(text)),
    );
    fc.assert(
      fc.property(fc.array(piece), fc.array(fc.nat(40)), (pieces, places) => {
        const bytes = Buffer.concat(pieces);
        const at = [0, ...places.map((place) => Math.min(place, bytes.length)).sort((a, b) => a - b), bytes.length];
        const chunks = at.slice(1).map((end, index) => bytes.subarray(at[index], end));
        const expected = count(bytes);
        expect(count(...chunks)).toBe(expected);
        // Each mark stands for one to three bytes, and takes three.
        const kept = bytes.toString("utf8").replaceAll("\ufffd", "");
        const marks = bytes.toString("latin1").split("\u00ef\u00bf\u00bd").length - 1;
        expect(Buffer.byteLength(kept) + 3 * marks + expected).toBe(bytes.length);
      }),
      { numRuns: 500 },
    );
  });
});
