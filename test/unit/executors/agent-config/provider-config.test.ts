import { describe, expect, it } from "vitest";
import { applyProviderConfig, resolveProviderValue } from "../../../../executors/lib/agent-config/provider-config.ts";
import { getProvider } from "../../../../executors/lib/agent-config/providers.ts";
import { codes, refusal } from "../../../support/agent-config.ts";

describe("resolveProviderValue", () => {
  it("flat for any provider", () => {
    expect(resolveProviderValue("model", { model: "opus" }, "claude")).toBe("opus");
    expect(resolveProviderValue("model", { model: "opus" }, "codex")).toBe("opus");
  });

  it("per-provider map", () => {
    const config = { model: { claude: "opus", codex: "o3" } };
    expect(resolveProviderValue("model", config, "claude")).toBe("opus");
    expect(resolveProviderValue("model", config, "codex")).toBe("o3");
  });

  it("_default fallback", () => {
    const config = { model: { claude: null, _default: "fast" } };
    expect(resolveProviderValue("model", config, "codex")).toBe("fast");
    expect(resolveProviderValue("model", config, "claude")).toBe("fast");
  });

  it("missing ⇒ nothing", () => {
    expect(resolveProviderValue("model", {}, "claude")).toBeUndefined();
    expect(resolveProviderValue("model", { model: {} }, "constructor")).toBeUndefined();
    expect(resolveProviderValue("constructor", {}, "claude")).toBeUndefined();
  });
});

describe("applyProviderConfig", () => {
  const claude = getProvider("claude");
  const codex = getProvider("codex");

  it("model from config", () => expect(applyProviderConfig(claude, { model: "opus" }).model).toBe("opus"));
  it("timeout default 1800", () => expect(applyProviderConfig(claude, {}).timeout).toBe(1800));

  it('max_turns unsupported ⇒ prompt text "30 steps", value None', () => {
    const { maxTurns, promptExtra, warnings } = applyProviderConfig(codex, { max_turns: 30 });
    expect(maxTurns).toBeNull();
    expect(promptExtra).toContain("no more than 30 steps");
    expect(codes(warnings)).toEqual(["config-unsupported"]);
  });

  it("overrides win, but for an empty model", () => {
    const config = { model: "opus", max_turns: 3, timeout: 5 };
    expect(applyProviderConfig(claude, config, { model: "", maxTurns: 7, timeout: 0 })).toMatchObject({
      model: "opus",
      maxTurns: 7,
      timeout: 0,
    });
  });

  it("a model that no flag takes, and sub-agents that nobody reads, are said", () => {
    const { model, warnings } = applyProviderConfig(getProvider("kisski"), { model: "x", subagents: [{}] });
    expect(model).toBeNull();
    expect(codes(warnings)).toEqual(["config-unsupported", "agents-unsupported"]);
  });

  it.each([
    ["claude", false],
    ["codex", false],
    ["opencode", false],
    ["openrouter", false],
    ["copilot", true],
    ["vibe", true],
    ["pi", true],
  ])("instructions of %s go into the prompt: %s", (name, isInPrompt) => {
    const { promptExtra } = applyProviderConfig(getProvider(name), {}, { instructions: "Be brief." });
    expect(promptExtra).toBe(isInPrompt ? "Be brief." : "");
  });

  it("instructions stand before what is said of turns", () => {
    const { promptExtra } = applyProviderConfig(getProvider("pi"), { max_turns: "4" }, { instructions: "Be brief." });
    expect(promptExtra).toBe("Be brief.\n\nImportant: complete this task in no more than 4 steps.");
  });

  it.each([
    ["max_turns", "many"],
    ["timeout", -1],
    ["timeout", 1.5],
    ["max_turns", true],
    ["timeout", "1e3"],
  ])("refuses %s: %j", (key, value) => {
    expect(refusal(() => applyProviderConfig(claude, { [key]: value })).message).toContain(
      `${key} is ${JSON.stringify(value)}`,
    );
  });
});
