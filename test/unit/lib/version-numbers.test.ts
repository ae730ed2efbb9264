import { describe, expect, it } from "vitest";
import { compareVersions, versionIn } from "../../../lib/version-numbers.ts";

describe("a version", () => {
  it.each([
    ["v26.10.0", "26.10.0"],
    ["Robot CLI 1.0.102.\nRun `update`", "1.0.102"],
    ["robot/2.0.0-beta.1 linux", "2.0.0-beta.1"],
    ["1.2", "1.2"],
    ["1.2.3.4", "1.2.3.4"],
    ["7 things", undefined],
    ["", undefined],
  ])("in %j is %j", (text, version) => {
    expect(versionIn(text)).toBe(version);
  });

  it.each([
    ["1.2.3", "1.2.3", 0],
    ["1.2", "1.2.0", 0],
    ["1.2.9", "1.2.10", -1],
    ["2.0.0", "1.99.99", 1],
    ["2.0.0-beta.2", "2.0.0", -1],
    ["2.0.0-beta.10", "2.0.0-beta.2", 1],
  ])("%s against %s is %i", (a, b, sign) => {
    expect(Math.sign(compareVersions(a, b))).toBe(sign);
    expect(Math.sign(compareVersions(b, a))).toBe(-sign + 0);
  });
});
