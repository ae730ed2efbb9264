import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { describe, expect, it } from "vitest";
import { ago, ansi, between, bytes, clean, duration, plain, shorten, word } from "../../../cli/text/format.ts";
import { table } from "../../../cli/text/table.ts";
import { FailureReasonSchema, RunStateSchema } from "../../../gen/agentrunner/v1/run_pb.ts";

describe("duration", () => {
  it.each([
    [-5, "0 ms"],
    [0, "0 ms"],
    [0.4, "0 ms"],
    [999, "999 ms"],
    [999.6, "1.0 s"],
    [1_240, "1.2 s"],
    [9_999, "9.9 s"],
    [10_000, "10 s"],
    [59_999, "59 s"],
    [60_000, "1 min"],
    [200_000, "3 min 20 s"],
    [3_599_999, "59 min 59 s"],
    [18_720_000, "5 h 12 min"],
    [172_799_999, "47 h 59 min"],
    [172_800_000, "2 d"],
    [273_600_000, "3 d 4 h"],
  ])("says %d ms as %s", (ms, text) => expect(duration(ms)).toBe(text));
});

describe("bytes", () => {
  it.each([
    [0, "0 B"],
    [1023, "1023 B"],
    [1536, "1.5 KiB"],
    [10_240, "10 KiB"],
    [20 * 2 ** 30, "20 GiB"],
    [5_000 * 2 ** 40, "5000 TiB"],
  ])("says %d as %s", (n, text) => expect(bytes(n)).toBe(text));
});

describe("ago and between", () => {
  const at = (ms: number) => timestampFromMs(ms);
  it("say nothing when a moment is missing", () => {
    expect([ago(undefined, 5), between(undefined, at(1)), between(at(1), undefined)]).toEqual(["", "", ""]);
  });
  it("count from the first moment to the second", () => {
    expect([ago(at(1_000), 43_000), between(at(1_000), at(1_250))]).toEqual(["42 s ago", "250 ms"]);
  });
});

describe("word", () => {
  it("says an enum value in lower case words, and a value from the future as its number", () => {
    expect(word(FailureReasonSchema, 1)).toBe("executor exit");
    expect(word(RunStateSchema, 6)).toBe("completed");
    expect(word(RunStateSchema, 99)).toBe("99");
  });
});

describe("clean", () => {
  it.each([
    ["two\nlines\n", "two⏎lines"],
    ["\u001b[2Jgone", "\\x1b[2Jgone"],
    ["tab\tbell\u0007", "tab\\x09bell\\x07"],
    ["c1 \u009b31m", "c1 \\x9b31m"],
    ["ünï → ok", "ünï → ok"],
  ])("lets nothing through that moves a terminal: %j", (text, cleaned) => expect(clean(text)).toBe(cleaned));
});

describe("shorten", () => {
  it("cuts between characters and says so", () => {
    expect(shorten("short", 5)).toBe("short");
    expect(shorten("😀😀😀", 3)).toBe("😀…");
  });
});

describe("table", () => {
  const rows = [
    ["a", "1", ""],
    [["red", "long cell"], "22", "note"],
  ] as const;

  it("aligns columns and leaves no space at line ends", () => {
    expect(table(["NAME", "N", ""], rows, plain)).toBe("NAME       N\na          1\nlong cell  22  note");
  });

  it("aligns the same when it is painted", () => {
    const painted = table(["NAME", "N", ""], rows, ansi);
    expect(painted).toContain("\u001b[31mlong cell\u001b[39m  22");
    // eslint-disable-next-line no-control-regex
    expect(painted.replaceAll(/\u001b\[\d+m/g, "")).toBe(table(["NAME", "N", ""], rows, plain));
  });

  it("shows cells of programs without their control characters", () => {
    expect(table(["", ""], [["a\u001b]0;title\u0007", "b"]], plain)).toBe("a\\x1b]0;title\\x07  b");
  });
});
