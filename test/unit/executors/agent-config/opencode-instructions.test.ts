import { describe, expect, it } from "vitest";
import { withOpencodeInstructions } from "../../../../executors/lib/agent-config/opencode-instructions.ts";
import { refusal } from "../../../support/agent-config.ts";

const PATH = "/home/dev/.terok/instructions.md";
const SCHEMA = "https://opencode.ai/config.json";
const edit = (text?: string) => withOpencodeInstructions(text, PATH);
const value = (text?: string) => JSON.parse(edit(text).text) as Record<string, unknown>;

describe("instructions in opencode.json", () => {
  it("creates file with instructions list and $schema", () => {
    for (const text of [undefined, "", "\n"]) expect(value(text)).toEqual({ $schema: SCHEMA, instructions: [PATH] });
    expect(edit().text).toMatch(/^\{\n {2}"\$schema".*\n\}\n$/s);
  });

  it("idempotent, no duplicate", () => {
    const once = edit('{"model":"m"}').text;
    expect(edit(once).text).toBe(once);
    const compact = `{"$schema":"x","instructions":["${PATH}"]}`;
    expect(edit(compact)).toEqual({ text: compact, lost: [] });
  });

  it("appends to existing list", () => {
    expect(value('{"instructions":["/some/other/file.md"]}')["instructions"]).toEqual(["/some/other/file.md", PATH]);
  });

  it("keeps other keys", () => {
    expect(value('{"model":"test/model","$schema":"mine"}')).toEqual({
      model: "test/model",
      $schema: "mine",
      instructions: [PATH],
    });
  });

  it("invalid JSON overwritten with valid config, and said", () => {
    for (const text of ["not json", "[]", '"x"', "null", '{"a":1']) {
      expect(value(text)).toEqual({ $schema: SCHEMA, instructions: [PATH] });
      expect(edit(text).lost).toMatchObject([{ code: "shared-file-replaced" }]);
    }
    expect(edit('{\n "a": oops\n}').lost[0]?.message).toContain("line 2");
  });

  it("adds $schema where only that is missing", () => {
    expect(value(`{"instructions":["${PATH}"]}`)).toEqual({ instructions: [PATH], $schema: SCHEMA });
  });

  it("JSONC input: comments and trailing commas stay", () => {
    const before = `{
  // which model
  "model": "a/b", /* the best */
  "instructions": [
    "mine.md", // my own
  ],
  "$schema": "x",
}
`;
    const { text, lost } = edit(before);
    expect(lost).toEqual([]);
    for (const comment of ["// which model", "/* the best */", "// my own"]) expect(text).toContain(comment);
    const lines = before.split("\n");
    expect(
      text
        .split("\n")
        .filter((line) => !lines.includes(line))
        .join(),
    ).toContain(PATH);
    expect(edit(text).text).toBe(text);
  });

  it("non-list instructions: a text is kept, null is nothing, the rest is said", () => {
    expect(value('{"instructions":"one.md"}')["instructions"]).toEqual(["one.md", PATH]);
    expect(value(`{"instructions":"${PATH}"}`)["instructions"]).toEqual([PATH]);
    expect(edit('{"instructions":null}').lost).toEqual([]);
    expect(edit('{"instructions":{"a":1}}').lost).toMatchObject([{ code: "shared-value-replaced" }]);
    expect(value('{"instructions":{"a":1}}')["instructions"]).toEqual([PATH]);
  });

  it("a key that is there twice is refused", () => {
    expect(refusal(() => edit('{"instructions":[],"instructions":["x"]}')).message).toContain("twice");
  });
});
