import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { SubagentItem } from "../../../../executors/lib/agent-config/spec.ts";
import { subagentsToJson } from "../../../../executors/lib/agent-config/subagents.ts";
import { codes, put, tempFolder } from "../../../support/agent-config.ts";

const REVIEWER = {
  name: "reviewer",
  description: "Code reviewer",
  tools: ["Read", "Grep"],
  model: "sonnet",
  default: true,
  system_prompt: "You are a code reviewer.",
};
const agent = (name: string, more: object = {}) => ({ name, description: "D", prompt: "P", ...more });

function entries(items: readonly SubagentItem[], selected: readonly string[] | null = null) {
  return JSON.parse(subagentsToJson(items, selected).json) as Record<string, Record<string, unknown>>;
}

describe("subagentsToJson", () => {
  it("inline default=true included, keyed by name; system_prompt→prompt; name/default/system_prompt absent", () => {
    const result = subagentsToJson([REVIEWER]);
    expect(JSON.parse(result.json)).toEqual({
      reviewer: {
        description: "Code reviewer",
        tools: ["Read", "Grep"],
        model: "sonnet",
        prompt: "You are a code reviewer.",
      },
    });
    expect(result.diagnostics).toEqual([]);
  });

  it("default=false excluded without selection", () => {
    expect(entries([{ ...REVIEWER, default: false }])).toEqual({});
    expect(subagentsToJson([{ ...REVIEWER, default: false }]).diagnostics).toEqual([]);
  });

  it("selected_agents includes a non-default agent", () => {
    expect(entries([agent("debugger")], ["debugger"])).toEqual({ debugger: { description: "D", prompt: "P" } });
  });

  it("mix — default + selected kept, unselected dropped", () => {
    const items = [REVIEWER, agent("debugger", { default: false }), agent("planner", { default: false })];
    expect(Object.keys(entries(items, ["debugger"]))).toEqual(["reviewer", "debugger"]);
  });

  it("file: reference with default flag included", () => {
    const file = put(join(tempFolder(), "r.md"), "---\nname: reviewer\ndescription: D\ndefault: false\n---\nBody");
    expect(entries([{ file, default: true }])).toEqual({ reviewer: { description: "D", prompt: "Body" } });
  });

  it("missing file skipped", () => {
    const { json, diagnostics } = subagentsToJson([{ file: "/nowhere/x.md", default: true }]);
    expect([json, codes(diagnostics)]).toEqual(["{}", ["agent-file-missing"]]);
  });

  it("entry without name skipped", () => {
    const { json, diagnostics } = subagentsToJson([{ description: "D", default: true, prompt: "P" }]);
    expect([json, codes(diagnostics)]).toEqual(["{}", ["agent-name-missing"]]);
  });
});

describe("what is said of sub-agents", () => {
  it("unknown selected names, with the names that were meant", () => {
    const { json, diagnostics } = subagentsToJson([agent("planner")], ["planer"]);
    expect(json).toBe("{}");
    expect(diagnostics).toMatchObject([{ code: "selected-unknown", agent: "planer" }]);
    expect(diagnostics[0]?.message).toContain("did you mean planner?");
    expect(subagentsToJson([], ["x"]).diagnostics[0]?.message).toContain("there are none");
  });

  it("duplicate names: the later one wins as a whole", () => {
    const items = [agent("a", { default: true, model: "opus" }), agent("a", { default: true, prompt: "second" })];
    const { json, diagnostics } = subagentsToJson(items);
    expect(JSON.parse(json)).toEqual({ a: { description: "D", prompt: "second" } });
    expect(codes(diagnostics)).toEqual(["agent-duplicate-name"]);
  });

  it("allow-list filtering: unknown keys are dropped and said, unless extraFields names them", () => {
    const items = [agent("a", { default: true, desciption: "x", effort: "high", color: "red", vendorThing: 1 })];
    const { json, diagnostics } = subagentsToJson(items, null, { extraFields: ["vendorThing"] });
    expect(JSON.parse(json)).toEqual({
      a: { description: "D", effort: "high", color: "red", vendorThing: 1, prompt: "P" },
    });
    expect(diagnostics[0]?.message).toContain("did you mean description?");
    expect(codes(subagentsToJson(items).diagnostics)).toEqual(["agent-field-unknown", "agent-field-unknown"]);
  });

  it("wrong types are left out, null is nothing", () => {
    const items = [agent("a", { default: true, tools: 5, maxTurns: 0, background: "yes", hooks: [], model: null })];
    const { json, diagnostics } = subagentsToJson(items);
    expect(json).toBe('{"a":{"description":"D","prompt":"P"}}');
    expect(codes(diagnostics)).toEqual(Array.from({ length: 4 }, () => "agent-field-type"));
  });

  it.each([
    ["no", false],
    ["Yes", true],
    ["false", false],
    ["perhaps", false],
    [1, false],
  ])("default: %j is read as it is meant, and said", (value, taken) => {
    const { agents, diagnostics } = subagentsToJson([agent("a", { default: value })]);
    expect([agents.size === 1, codes(diagnostics)]).toEqual([taken, ["agent-default-not-boolean"]]);
  });

  it("a file gives its name to an agent that has none, and its own keys stay where they are", () => {
    const folder = tempFolder();
    put(join(folder, "planner.md"), "---\ndescription: D\n---\nBody");
    const items = [{ file: "planner.md", model: "opus", default: true }];
    const { json, diagnostics } = subagentsToJson(items, null, { baseDir: folder });
    expect(JSON.parse(json)).toEqual({ planner: { description: "D", prompt: "Body" } });
    expect(codes(diagnostics)).toEqual(["agent-keys-ignored"]);
  });

  it("one bad file does not take the others with it", () => {
    const file = put(join(tempFolder(), "bad.md"), "---\nname: [\n---\n");
    const { agents, diagnostics } = subagentsToJson([{ file, default: true }, REVIEWER]);
    expect([...agents.keys()]).toEqual(["reviewer"]);
    expect(diagnostics).toMatchObject([{ code: "frontmatter-invalid", file }]);
  });

  it.each([
    [[{ file: null }], ["agent-file-missing"]],
    [["text"], ["agent-not-an-object"]],
    [[null], ["agent-not-an-object"]],
    [[agent("a", { default: true, description: undefined })], ["agent-description-missing"]],
    [[{ name: "a", description: "D", default: true }], ["agent-prompt-missing"]],
    [[agent("a", { default: true, prompt: 7 })], ["agent-field-type"]],
    [[{ ...agent("a"), name: 1, default: true }], ["agent-name-not-text"]],
    [[{ ...agent("a"), name: ["x"], default: true }], ["agent-name-not-text"]],
  ])("%j is said", (items, expected) => {
    expect(codes(subagentsToJson(items as SubagentItem[]).diagnostics)).toEqual(expected);
  });
});

describe("the text", () => {
  it("deterministic JSON order: that of the fields, whatever the order of the definition", () => {
    const forth = { ...REVIEWER };
    const back = Object.fromEntries(Object.entries(REVIEWER).reverse()) as typeof REVIEWER;
    expect(subagentsToJson([back]).json).toBe(subagentsToJson([forth]).json);
    expect(Object.keys(entries([back])["reviewer"] ?? {})).toEqual(["description", "tools", "model", "prompt"]);
  });

  it("is one line of ASCII, and takes any name for a name", () => {
    const { json } = subagentsToJson([agent("__proto__", { default: true, prompt: "ä\u2028😀\n" })]);
    expect(json).toBe('{"__proto__":{"description":"D","prompt":"\\u00e4\\u2028\\ud83d\\ude00\\n"}}');
  });
});
