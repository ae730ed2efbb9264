import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  CLIENT_WRITE_MAX_BYTES,
  cutTail,
  cutText,
  EVENT_CHUNK_MAX_BYTES,
  INVOCATION_MAX_BYTES,
  MESSAGE_MAX_BYTES,
  OUTPUT_MAX_BYTES,
  RESULT_PART_MAX_BYTES,
  STDERR_TAIL_MAX_BYTES,
} from "../../../lib/protocol/limits.ts";

const MARKER = /…?\[cut: (?:last )?(\d+) of (\d+) bytes shown\]…?/;

describe("the wire limits", () => {
  it("have the sizes of ADR 3", () => {
    expect(MESSAGE_MAX_BYTES).toBe(4_194_304);
    expect(INVOCATION_MAX_BYTES).toBe(3_145_728);
    expect(RESULT_PART_MAX_BYTES).toBe(262_144);
    expect(STDERR_TAIL_MAX_BYTES).toBe(16_384);
    expect(EVENT_CHUNK_MAX_BYTES).toBe(65_536);
    expect(OUTPUT_MAX_BYTES).toBe(67_108_864);
  });

  it("let a client write less than a server reads, and an invocation fit what a client writes", () => {
    expect(CLIENT_WRITE_MAX_BYTES).toBeLessThan(MESSAGE_MAX_BYTES);
    expect(INVOCATION_MAX_BYTES).toBeLessThan(CLIENT_WRITE_MAX_BYTES);
  });
});

describe("cutText and cutTail", () => {
  it("leave text alone that fits exactly", () => {
    const text = "é".repeat(50);
    expect(cutText(text, 100)).toBe(text);
    expect(cutTail(text, 100)).toBe(text);
  });

  it("keep the head, or the tail, and say how much of it is shown", () => {
    const text = `head${"-".repeat(200)}tail`;
    expect(cutText(text, 100)).toBe(`head${"-".repeat(64)}…[cut: 68 of 208 bytes shown]`);
    expect(cutTail(text, 100)).toBe(`[cut: last 63 of 208 bytes shown]…${"-".repeat(59)}tail`);
  });

  it("name the size of the whole when they are given only a part of it", () => {
    expect(cutText("head", 100, 5_000)).toBe("head…[cut: 4 of 5000 bytes shown]");
    expect(cutTail("tail", 100, 5_000)).toBe("[cut: last 4 of 5000 bytes shown]…tail");
  });

  it("never split a character of two, three or four bytes", () => {
    for (const character of ["é", "漢", "🚀"]) {
      for (let maxBytes = 72; maxBytes < 90; maxBytes += 1) {
        for (const cut of [cutText, cutTail]) {
          const shown = cut(character.repeat(100), maxBytes).replace(MARKER, "");
          expect(shown).toMatch(new RegExp(`^(${character})+$`, "u"));
        }
      }
    }
  });

  it("stay within the limit, and count what they show, for any text", () => {
    const words = fc.string({ unit: "binary", maxLength: 400 });
    fc.assert(
      fc.property(
        words,
        fc.integer({ min: 72, max: 600 }),
        fc.constantFrom(cutText, cutTail),
        (text, maxBytes, cut) => {
          const result = cut(text, maxBytes);
          expect(Buffer.byteLength(result)).toBeLessThanOrEqual(maxBytes);
          if (result === text) return;
          const [marker, shown, total] = MARKER.exec(result) ?? [];
          const kept = cut === cutText ? result.slice(0, -marker!.length) : result.slice(marker!.length);
          expect(cut === cutText ? text.startsWith(kept) : text.endsWith(kept)).toBe(true);
          expect([Buffer.byteLength(kept), Buffer.byteLength(text)]).toEqual([Number(shown), Number(total)]);
        },
      ),
      { numRuns: 500 },
    );
  });

  it("refuse a limit that has no room for the marker", () => {
    expect(() => cutText("short", 71)).toThrow(RangeError);
    expect(() => cutTail("short", 71)).toThrow(RangeError);
  });
});
