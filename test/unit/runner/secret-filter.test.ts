import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { OutputParser } from "../../../runner/execution/executor-output.ts";
import { SecretFilter, Secrets } from "../../../runner/execution/secret-filter.ts";

const TOKEN = `rt_${"0a1b".repeat(16)}`;

function filtered(secrets: readonly string[], chunks: readonly string[]): string {
  const filter = new SecretFilter(new Secrets(secrets));
  const parts = chunks.map((chunk) => filter.push(Buffer.from(chunk)));
  return Buffer.concat([...parts, filter.end()]).toString();
}

/** The same, slowly: every place where a secret is, those that overlap as one. */
function masked(secrets: readonly string[], text: string): string {
  let shown = "";
  let end = 0;
  for (let at = 0; at < text.length; at += 1) {
    const longest = Math.max(0, ...secrets.filter((one) => text.startsWith(one, at)).map(({ length }) => length));
    if (longest > 0 && at >= end) shown += "***";
    end = Math.max(end, longest > 0 ? at + longest : 0);
    if (at >= end) shown += text.charAt(at);
  }
  return shown;
}

describe("a secret in what an executor prints", () => {
  it("is masked wherever it is cut into chunks", () => {
    const text = `a ${TOKEN}\n"${TOKEN}${TOKEN}" r rt rt_ rt_0a1 ${TOKEN.slice(0, -1)}. ${TOKEN.slice(0, 40)}${TOKEN}`;
    const expected = text.replaceAll(TOKEN, "***");
    expect(filtered([TOKEN], text.split(""))).toBe(expected);
    const cuts = fc.array(fc.integer({ min: 0, max: text.length }));
    fc.assert(
      fc.property(cuts, (places) => {
        const at = [0, ...places.toSorted((a, b) => a - b), text.length];
        const chunks = at.slice(1).map((end, index) => text.slice(at[index], end));
        expect(filtered([TOKEN], chunks)).toBe(expected);
      }),
    );
  });

  it.each([
    ["one is the beginning of another", ["abcdefgh", "abcdefghijkl"], "<abcdefghijkl> <abcdefghij>", "<***> <***ij>"],
    ["one is the end of another", ["efghijkl", "abcdefghijkl"], "<abcdefghijkl> <efghijkl>", "<***> <***>"],
    ["one is within another", ["cdefghij", "abcdefghijkl"], "<abcdefghijkl> <cdefghij>", "<***> <***>"],
    ["one ends as another begins", ["abcdefgh", "efghijkl"], "<abcdefghijkl> <abcdefghefghijkl>", "<***> <******>"],
    ["three in a row", ["abcdefgh", "efghijkl", "ijklmnop"], "<abcdefghijklmnop>", "<***>"],
    ["one overlaps itself", ["abababab"], "<abababababab> <ababababa>", "<***> <***a>"],
  ])("leaves no part of itself where %s", (_, secrets, text, expected) => {
    expect(filtered(secrets, [text])).toBe(expected);
    expect(filtered(secrets, text.split(""))).toBe(expected);
    for (let at = 1; at < text.length; at += 1) {
      expect(filtered(secrets, [text.slice(0, at), text.slice(at)]), text.slice(at)).toBe(expected);
    }
  });

  it("of all runs is prepared once, and looked for beside that of one run", () => {
    const shared = new Secrets(["of all runs"]);
    const both = new Secrets(["of this run"], shared);
    expect(both.patterns[0]).toBe(shared.patterns[0]);
    expect(shared.patterns).toHaveLength(1);
    const filter = new SecretFilter(both);
    expect(Buffer.concat([filter.push(Buffer.from("of all runs, of this run")), filter.end()]).toString()).toBe(
      "***, ***",
    );
  });

  it("is masked however it overlaps itself and others", () => {
    const word = fc.string({ unit: fc.constantFrom("a", "b"), minLength: 8, maxLength: 12 });
    const chunk = fc.string({ unit: fc.constantFrom("a", "b"), maxLength: 30 });
    fc.assert(
      fc.property(fc.uniqueArray(word, { minLength: 1, maxLength: 3 }), fc.array(chunk), (secrets, chunks) => {
        expect(filtered(secrets, chunks)).toBe(masked(secrets, chunks.join("")));
      }),
      { numRuns: 500 },
    );
  });

  it("is masked as JSON writes it, and line by line", () => {
    const secret = `pa/ss"wörd\\ 1\n${"k".repeat(20)}\nshort`;
    const json = JSON.stringify({ secret, ascii: 1 });
    const ascii = json.replace("ö", "\\u00f6").replaceAll("/", "\\/");
    expect(filtered([secret], [json])).toBe('{"secret":"***","ascii":1}');
    expect(filtered([secret], [ascii])).toBe('{"secret":"***","ascii":1}');
    expect(filtered([secret], [`one\n${"k".repeat(20)}\nshort`])).toBe("one\n***\nshort");
  });

  it("that is shorter than 8 bytes is not looked for, and what costs too much to look for says so", () => {
    expect(filtered(["", "true"], ["true"])).toBe("true");
    expect(new Secrets(["x".repeat(8192)]).problem).toBeUndefined();
    expect(new Secrets(["x".repeat(8193)]).problem).toBe("a value has 8193 bytes; at most 8192 can be masked");
    const lines = Array.from({ length: 300 }, (_, line) => `line ${line} of a key`).join("\n");
    expect(new Secrets([lines]).problem).toMatch(/^the values have \d+ lines and forms; at most 256 can be masked$/);
  });

  it("is in no event, no result, no session id and no end of stderr", () => {
    const parser = new OutputParser({ secrets: new Secrets([TOKEN]) });
    const result = JSON.stringify({ type: "result", text: TOKEN, data: { [TOKEN]: TOKEN } });
    const session = JSON.stringify({ type: "session", executor_session_id: `of ${TOKEN}` });
    const stdout = `plain ${TOKEN}\n${session}\n{"type":"tool","name":"x","input":"${TOKEN}","output":${TOKEN}}\n${result}`;
    const events = stdout.split("").flatMap((char) => parser.push("stdout", Buffer.from(char)));
    for (const char of `failed with ${TOKEN}`.split("")) events.push(...parser.push("stderr", Buffer.from(char)));
    events.push(...parser.end());
    const summary = parser.summary();
    const seen = JSON.stringify([events, summary], (_, value: unknown) =>
      typeof value === "bigint" ? String(value) : value,
    );
    expect(seen).not.toContain(TOKEN.slice(8, 24));
    expect(summary.result).toMatchObject({ text: "***", data: { "***": "***" } });
    expect([summary.executorSessionId, summary.stderrTail]).toEqual(["of ***", "failed with ***"]);
    expect(summary.outputBytes).toBe(Buffer.byteLength(stdout) + `failed with ${TOKEN}`.length);
  });

  it("that only begins again and again is held back for no longer than it may be one", () => {
    const secrets = Array.from({ length: 20 }, (_, n) => `${"a".repeat(1_000)}${n}`);
    const text = "a".repeat(1_000);
    expect(filtered(secrets, text.split(""))).toBe(text);
    expect(filtered(secrets, [text.repeat(1_000)])).toBe(text.repeat(1_000));
    expect(filtered(["a".repeat(8_192)], [text.repeat(1_000)])).toBe("***");
  });
});
