import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { heldNumber, numberProblem } from "../../../lib/protocol/json-numbers.ts";

describe("numbers that a double cannot hold", () => {
  it.each([
    ['{"channel_id": 1029384756610293847}', "1029384756610293847 would be read as 1029384756610293900"],
    ["[9007199254740993]", "9007199254740993 would be read as 9007199254740992"],
    ["-9007199254740993", "-9007199254740993 would"],
    ['{"a": [1, {"b": 1e400}]}', "1e400 is larger than"],
    ["-1E+309", "-1E+309 is larger than"],
    ["1e-400", "1e-400 would be read as 0"],
    [`0.${"0".repeat(400)}1`, "would be read as 0"],
    ["1029384756610293847.0", "1029384756610293847.0 would"],
    ["1029384756610293847e0", "1029384756610293847e0 would"],
    ['{"a\\"": 12345678901234567890}', "12345678901234567890 would"],
    ['{"a\\\\": 12345678901234567890}', "12345678901234567890 would"],
    [`1${"0".repeat(500)}`, "is larger than"],
  ])("are found: %s", (text, problem) => {
    expect(numberProblem(text)).toContain(problem);
    expect(numberProblem(text)).toContain("write it as a string");
  });

  it("are found in a number of a megabyte in one pass", () => {
    const zeros = "0".repeat(1024 * 1024);
    expect(numberProblem(`11111111111111111.${zeros}1`)).toContain("would be read as");
    expect(numberProblem(`1.${zeros}`)).toBeUndefined();
  });

  it.each([
    '{"id": "1029384756610293847"}',
    '{"1029384756610293847": "1e400 \\" 1e400"}',
    '"\\\\\\"1e400"',
    "9007199254740991",
    "9007199254740992",
    "18446744073709551616",
    "1e23",
    "1E+300",
    "1.7976931348623157e308",
    "1000000000000000000000000000000",
    "0.1000000000000000055511151231257827",
    "0.10000000000000001",
    "5e-324",
    "0e999",
    "-0.000000000000000000000",
    "1.50e3",
    "12345678901234.56789",
    "not JSON 1e5",
  ])("are not found in %s", (text) => {
    expect(numberProblem(text)).toBeUndefined();
  });

  it("are never among what a program writes that has doubles", () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => numberProblem(JSON.stringify(value)) === undefined),
      { numRuns: 2000 },
    );
    fc.assert(fc.property(fc.double({ noNaN: true, noDefaultInfinity: true }), (n) => heldNumber(String(n)) === n));
  });

  it("are those integers that come back as others", () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: 2n ** 70n }), (n) => {
        // A double that is written with the same digits is the same number to every reader.
        const same = BigInt(Number(n)) === n || BigInt(String(Number(n)).includes("e") ? 0 : String(Number(n))) === n;
        return (numberProblem(`[${n}]`) === undefined) === same;
      }),
    );
  });

  it("are looked for in one pass, also in a text of strings only", () => {
    expect(
      numberProblem(JSON.stringify({ a: `1e5${'\\"'.repeat(200_000)}`, b: "x".repeat(3_000_000) })),
    ).toBeUndefined();
  });
});
