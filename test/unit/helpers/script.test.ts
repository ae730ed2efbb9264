import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { ScriptError, parseScript } from "../../../executors/script-agent/script.ts";
import { inRepository } from "../../support/paths.ts";

const parse = (script: unknown) => parseScript(JSON.stringify(script));

describe("a script", () => {
  it("may be empty: a turn that does nothing", () => {
    expect(parseScript("{}")).toEqual({ start: [], wait: false });
  });

  it("keeps everything that it says", () => {
    const start = {
      name: "leaf",
      agent: "reader",
      executor_profile: "script-agent",
      tags: ["gpu"],
      mode: "async_poll",
      prompt: "read it",
    };
    const script = { say: "hi", sleep: 0.5, start: [start], wait: true, fail: "no disk", result: "done" };
    expect(parse(script)).toEqual(script);
  });

  it("starts sessions with a callback, anywhere, unless it says otherwise", () => {
    expect(parse({ start: [{ prompt: "go" }] }).start).toEqual([{ mode: "async_callback", tags: [], prompt: "go" }]);
  });

  it("holds further scripts, as prompts of what it starts and as the turn afterwards", () => {
    const { start, afterwards } = parse({ start: [{ prompt: { say: "leaf" } }], afterwards: { say: "all done" } });
    expect(parseScript(start[0]?.prompt ?? "")).toMatchObject({ say: "leaf" });
    expect(afterwards).toEqual({ say: "all done", start: [], wait: false });
  });

  it.each<[string, unknown, string]>([
    ["a list", [], "script: expected an object, found []"],
    ["a word it does not know", { sleeep: 1 }, "script.sleeep: unknown"],
    ["a duration that is no number", { sleep: "1s" }, 'script.sleep: expected seconds up to 600, found "1s"'],
    ["a duration that is too long", { sleep: 601 }, "script.sleep: expected seconds up to 600, found 601"],
    ["a wait that is no truth value", { wait: 1 }, "script.wait: expected true or false, found 1"],
    ["one start without its list", { start: {} }, "script.start: expected a list, found {}"],
    ["a start without a prompt", { start: [{}] }, "script.start[0].prompt: expected an object, found undefined"],
    ["a mode that there is not", { start: [{ mode: "later" }] }, "script.start[0].mode: expected sync or async_poll"],
    [
      "tags that are not texts",
      { start: [{ tags: [1] }] },
      "script.start[0].tags: expected a list of texts, found [1]",
    ],
    ["a start with an unknown word", { start: [{ tag: "gpu" }] }, "script.start[0].tag: unknown"],
    ["a mistake in the turn afterwards", { afterwards: { say: 1 } }, "script.afterwards.say: expected a text, found 1"],
  ])("with %s is refused, and the message says where", (_, script, words) => {
    expect(() => parse(script)).toThrow(ScriptError);
    expect(() => parse(script)).toThrow(words);
  });

  it("is what executors/README.md and examples/tree.json show", () => {
    const read = (path: string) => readFileSync(inRepository(path), "utf8");
    const [, shown = ""] = /^## The script agent$.*?^```json\n(.*?)^```$/ms.exec(read("executors/README.md")) ?? [];
    expect(parseScript(shown)).toMatchObject({ start: [{ name: "reads" }, { name: "fails" }] });
    expect(parseScript(read("examples/tree.json")).start).toHaveLength(3);
  });

  it("that is no JSON is refused", () => {
    expect(() => parseScript("say hello")).toThrow(/^the prompt is no JSON: /);
  });
});
