import { describe, expect, it } from "vitest";
import fc from "fast-check";
import { formatMeasured, quantity } from "../../../bench/figures.ts";
import type { Figure } from "../../../bench/figures.ts";
import { bucketBound, formatTable, median, parseSamples, percentile } from "../../../bench/stats.ts";

describe("the statistics of the bench", () => {
  it("take the nearest rank as a percentile, whatever the order of the samples", () => {
    const samples = [30, 10, 20, 40, 50];
    expect([0, 0.2, 0.21, 0.5, 0.99, 1].map((q) => percentile(samples, q))).toEqual([10, 10, 20, 30, 50, 50]);
    expect(samples).toEqual([30, 10, 20, 40, 50]);
  });

  it("order samples as numbers and not as texts", () => {
    expect(percentile([9, 10, 100], 0.5)).toBe(10);
    expect(median([9, 10, 100])).toBe(10);
  });

  it("take the mean of the two samples in the middle as the median of an even number", () => {
    expect(median([4, 1, 3, 2])).toBe(2.5);
    expect(median([7])).toBe(7);
  });

  it("have no figure without samples", () => {
    expect(percentile([], 0.5)).toBeNaN();
    expect(median([])).toBeNaN();
  });

  it("answer a percentile that was measured, with the share of the samples at or below it", () => {
    const samples = fc.array(fc.double({ noNaN: true }), { minLength: 1 });
    fc.assert(
      fc.property(samples, fc.double({ min: 0, max: 1, noNaN: true }), (all, q) => {
        const found = percentile(all, q);
        expect(all.some((sample) => sample === found)).toBe(true);
        expect(all.filter((sample) => sample <= found).length).toBeGreaterThanOrEqual(q * all.length);
      }),
    );
  });
});

describe("the figures of a coordinator", () => {
  const page = [
    "# HELP commit Time of a commit",
    'commit_bucket{le="0.001"} 5',
    'commit_bucket{le="0.01"} 9',
    'commit_bucket{le="+Inf"} 10',
    "commit_count 10",
    'runs{state="PENDING"} 3',
    "",
  ].join("\n");

  it("are read by name and labels", () => {
    const samples = parseSamples(page);
    expect(samples.get('runs{state="PENDING"}')).toBe(3);
    expect(samples.get("commit_count")).toBe(10);
    expect(samples.size).toBe(5);
  });

  it("bound a percentile by the bucket it is in, of what was counted since the first look", () => {
    const nothing = new Map<string, number>();
    const all = parseSamples(page);
    expect([0.5, 0.9, 0.99].map((q) => bucketBound(nothing, all, "commit", q))).toEqual([0.001, 0.01, Infinity]);
    const before = parseSamples('commit_bucket{le="0.001"} 5\ncommit_bucket{le="0.01"} 5\ncommit_bucket{le="+Inf"} 6');
    expect(bucketBound(before, all, "commit", 0.5)).toBe(0.01);
    expect(bucketBound(all, all, "commit", 0.5)).toBeNaN();
  });
});

describe("the table of the bench", () => {
  it("puts texts to the left and numbers to the right", () => {
    const text = formatTable(
      ["what", "n", "why"],
      [
        ["a", "1 ms", "because"],
        ["bcd", "200 ms", ""],
      ],
    );
    expect(text.split("\n")).toEqual([
      "what       n  why",
      "─────────────────────",
      "a       1 ms  because",
      "bcd   200 ms",
    ]);
  });

  it("gives a value about three digits, and a rate none behind the point", () => {
    expect([0.1234, 1.25, 12.34, 123.4].map((value) => quantity(value, "ms"))).toEqual([
      "0.12 ms",
      "1.25 ms",
      "12.3 ms",
      "123 ms",
    ]);
    expect(quantity(2345.6, "/s")).toBe("2346 /s");
  });

  it("shows each figure beside the raw limit and says whether its target is met", () => {
    const rate: Figure = {
      row: 2,
      what: "runs",
      unit: "/s",
      median: 500,
      raw: { what: "calls", value: 1000 },
      target: { says: "≥ 400 /s", met: true },
    };
    const latency: Figure = { row: 1, what: "offer", unit: "ms", median: 3, p99: 9, raw: { what: "call", value: 2 } };
    const late: Figure = { ...latency, target: { says: "≤ 2 ms", met: false } };
    const lines = formatMeasured([{ figures: [rate, latency, late], notes: ["how it was done"] }]).split("\n");
    expect(lines[2]).toMatch(/^2 +runs +500 \/s +1000 \/s +50 % +≥ 400 \/s +met +calls$/);
    expect(lines[3]).toMatch(/^1 +offer +3\.00 ms +9\.00 ms +2\.00 ms +1\.5 × +call$/);
    expect(lines[4]).toMatch(/ ≤ 2 ms +NOT MET +call$/);
    expect(lines).toContain("  how it was done");
  });
});
