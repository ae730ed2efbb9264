import { describe, expect, it } from "vitest";
import { ConfigStack } from "../../../../executors/lib/agent-config/config-stack.ts";
import type { ConfigData } from "../../../../executors/lib/agent-config/config-stack.ts";
import { refusal } from "../../../support/agent-config.ts";

function stack(...levels: readonly (ConfigData | null)[]): ConfigStack {
  const made = new ConfigStack();
  for (const [index, data] of levels.entries()) made.push({ level: `level${index}`, source: null, data });
  return made;
}

describe("ConfigStack", () => {
  it("resolves one scope", () => expect(stack({ a: 1 }).resolve()).toEqual({ a: 1 }));

  it("two scopes merge", () => {
    const merged = stack({ model: "haiku", timeout: 60 }, { model: "opus" }).resolve();
    expect(merged).toEqual({ model: "opus", timeout: 60 });
  });

  it.each([
    ["maps recurse", { a: { b: 1, c: 2 } }, { a: { b: 3 } }, { a: { b: 3, c: 2 } }],
    ["null deletes", { a: 1, b: 2 }, { a: null }, { b: 2 }],
    ["null deletes in a map", { a: { b: 1, c: 2 } }, { a: { b: null } }, { a: { c: 2 } }],
    ["lists replace", { a: [1, 2] }, { a: [3] }, { a: [3] }],
    ["_inherit in a list splices", { a: [1, 2] }, { a: [0, "_inherit", 3] }, { a: [0, 1, 2, 3] }],
    ["bare _inherit keeps what is below", { a: [1] }, { a: "_inherit" }, { a: [1] }],
    ["a map with _inherit overlays", { a: { b: 1 } }, { a: { _inherit: true, c: 2 } }, { a: { b: 1, c: 2 } }],
    ["a map replaces a value", { a: 1 }, { a: { b: null, c: 2 } }, { a: { c: 2 } }],
    [
      "_inherit with nothing below stays",
      {},
      { a: ["_inherit", "x"], b: "_inherit" },
      { a: ["_inherit", "x"], b: "_inherit" },
    ],
    ["an empty file", { a: 1 }, null, { a: 1 }],
  ])("%s", (_, base, over, expected) => {
    expect(stack(base, over).resolve()).toEqual(expected);
  });

  it("gives a section, and what it is made of", () => {
    const made = stack({ agent: { model: "opus" }, other: 1 });
    expect([made.resolveSection("agent"), made.resolveSection("other"), made.resolveSection("none")]).toEqual([
      { model: "opus" },
      {},
      {},
    ]);
    expect(made.scopes.map(({ level }) => level)).toEqual(["level0"]);
  });

  it("refuses what is no map, by the name of its file", () => {
    const data = ["a"] as unknown as ConfigData;
    const error = refusal(() => new ConfigStack().push({ level: "project", source: "project.yml", data }));
    expect(error.message).toMatch(/^project\.yml holds no map/);
  });

  it("takes any key for a key", () => {
    const data = JSON.parse('{"__proto__": {"polluted": true}}') as ConfigData;
    expect(Object.keys(stack({}, data).resolve())).toEqual(["__proto__"]);
    expect("polluted" in {}).toBe(false);
  });
});
