import { describe, expect, it } from "vitest";
import { ReportVerdict_Kind } from "../../../gen/agentrunner/v1/runner_service_pb.ts";
import { MAX_RENUMBERED, numbered, renumbered, UNNUMBERED } from "../../../runner/reports/numbering.ts";

const { INVALID, OK, STALE, UNKNOWN } = ReportVerdict_Kind;

describe("the number of a report", () => {
  it("is one more than the last", () => {
    expect(numbered(numbered(UNNUMBERED))).toEqual({ seq: 2n, renumbered: 0 });
  });

  it.each([
    ["the one that the coordinator names", 2n, 2n, 7n, 7n],
    ["one after those that were given meanwhile", 9n, 2n, 7n, 10n],
    ["one after the one that was given last, when that is the one named", 7n, 2n, 7n, 8n],
  ])("that was used is %s", (_, last, seq, nextSeq, expected) => {
    const again = renumbered({ seq: last, renumbered: 0 }, { seq }, { kind: INVALID, nextSeq });
    expect(again).toEqual({ seq: expected, renumbered: 1 });
  });

  it.each([
    ["OK", OK, 7n],
    ["STALE", STALE, 7n],
    ["UNKNOWN", UNKNOWN, 7n],
    ["INVALID without a number", INVALID, 0n],
    ["INVALID with the report's own number", INVALID, 2n],
  ])("stays as it is after %s", (_, kind, nextSeq) => {
    expect(renumbered({ seq: 2n, renumbered: 0 }, { seq: 2n }, { kind, nextSeq })).toBeUndefined();
  });

  it("is changed no more than eight times for one lease", () => {
    let numbering = numbered(UNNUMBERED);
    for (let times = 1; times <= MAX_RENUMBERED; times += 1) {
      const { seq } = numbering;
      numbering = renumbered(numbering, { seq }, { kind: INVALID, nextSeq: seq + 1n })!;
      expect(numbering.renumbered).toBe(times);
    }
    const { seq } = numbering;
    expect(renumbered(numbering, { seq }, { kind: INVALID, nextSeq: seq + 1n })).toBeUndefined();
  });
});
