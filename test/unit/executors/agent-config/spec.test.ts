import { expect, it } from "vitest";
import { AgentConfigSpec } from "../../../../executors/lib/agent-config/spec.ts";
import type { AgentConfigFields } from "../../../../executors/lib/agent-config/spec.ts";
import { codes, refusal, specIn } from "../../../support/agent-config.ts";

it("has the defaults of the format", () => {
  const spec = new AgentConfigSpec({ tasksRoot: "/t", taskId: 7, subagents: [] });
  expect(spec).toEqual({
    tasksRoot: "/t",
    taskId: "7",
    subagents: [],
    selectedAgents: null,
    prompt: null,
    provider: "claude",
    instructions: null,
    defaultAgent: null,
    mountsBase: null,
  });
});

it("cannot be changed, neither can what is in it, and no change of the caller's values reaches it", () => {
  const subagents = [{ name: "a", tools: ["Read"] }];
  const spec = specIn("/r", { subagents, selectedAgents: ["a"] });
  subagents[0]?.tools.push("Bash");
  expect(spec.subagents).toEqual([{ name: "a", tools: ["Read"] }]);
  expect(() => Object.assign(spec, { prompt: "x" })).toThrow(TypeError);
  expect(() => (spec.subagents as unknown[]).push({})).toThrow(TypeError);
  expect(() => Object.assign(spec.subagents[0] ?? {}, { name: "b" })).toThrow(TypeError);
  expect(() => (spec.selectedAgents as string[]).push("b")).toThrow(TypeError);
});

it.each(["../../esc", "..", ".", "", "a/b", "a\0b", "a\nb", "-x", ".hidden", "ä", "x".repeat(129)])(
  "refuses the path-escaping task_id %j",
  (taskId) => {
    const error = refusal(() => specIn("/r", { taskId }).check());
    expect(codes(error.diagnostics)).toEqual(["unsafe-path"]);
    expect(error.message).toContain("give 1 to 128 letters");
  },
);

it.each(["t1", 42, "a..b", "A_b-1.2", "x".repeat(128)])("takes the task id %j", (taskId) => {
  expect(() => specIn("/r", { taskId }).check()).not.toThrow();
});

it("says everything that is wrong at once: mounts_base missing, a text for a list, a number for a text", () => {
  const fields = { mountsBase: null, subagents: "abc", selectedAgents: "abc", prompt: 5, tasksRoot: "" };
  const error = refusal(() => specIn("/r", fields as unknown as Partial<AgentConfigFields>).check());
  expect(error.diagnostics.map(({ message }) => message.split(" ")[0])).toEqual([
    "prompt",
    "tasksRoot",
    "mountsBase",
    "subagents",
    "selectedAgents",
  ]);
});
