import { describe, expect, it } from "vitest";
import { buildHeadlessCommand } from "../../../../executors/lib/agent-config/headless-command.ts";
import { CONTAINER_PATHS, containerPaths } from "../../../../executors/lib/agent-config/container-paths.ts";
import {
  AGENT_PROVIDERS,
  PROVIDER_NAMES,
  collectAutoApproveEnv,
  getProvider,
} from "../../../../executors/lib/agent-config/providers.ts";
import { refusal } from "../../../support/agent-config.ts";

const NAMES = ["blablador", "claude", "codex", "copilot", "kisski", "opencode", "openrouter", "pi", "vibe"];

describe("the registry of providers", () => {
  it("holds exactly the 9 names", () => {
    expect([...AGENT_PROVIDERS.keys()]).toEqual(NAMES);
    for (const [name, provider] of AGENT_PROVIDERS) expect([provider.name, provider.binary]).toEqual([name, name]);
  });

  it("PROVIDER_NAMES is a matching tuple", () => {
    expect(PROVIDER_NAMES).toEqual(NAMES);
    expect(() => (PROVIDER_NAMES as string[]).push("x")).toThrow(TypeError);
  });

  it("providers are frozen", () => {
    expect(() => Object.assign(getProvider("claude"), { name: "changed" })).toThrow(TypeError);
  });

  it("a provider that resumes has a word for it, and values of variables are texts", () => {
    for (const { session, autoApproveEnv } of AGENT_PROVIDERS.values()) {
      expect(session?.resume.word ?? "none").not.toBe("");
      for (const value of Object.values(autoApproveEnv)) expect(value).toBeTypeOf("string");
    }
  });
});

describe("getProvider", () => {
  it("explicit name", () => expect(getProvider("codex").name).toBe("codex"));
  it("None uses default_agent", () => expect(getProvider(null, "copilot").name).toBe("copilot"));
  it("None and no default ⇒ claude", () => expect(getProvider(null, null).name).toBe("claude"));
  it("an empty name is none", () => expect(getProvider("", "pi").name).toBe("pi"));

  it("unknown ⇒ refusal naming it, and the names that there are", () => {
    const { message } = refusal(() => getProvider("cluade"));
    expect(message).toContain('"cluade"');
    expect(message).toContain(NAMES.join(", "));
    expect(message).toContain("Did you mean claude?");
  });
});

describe("buildHeadlessCommand", () => {
  const command = (name: string, more: object = {}) =>
    buildHeadlessCommand(getProvider(name), { timeout: 1800, ...more });

  it("every headless command starts with init-ssh-and-repo.sh", () => {
    for (const name of NAMES) expect(command(name)).toMatch(/^init-ssh-and-repo\.sh && /);
  });

  it.each([
    ["claude", "claude --terok-timeout 1800 --model 'a b' --max-turns 5 --output-format stream-json --verbose -p"],
    ["codex", "codex --terok-timeout 1800 exec --model 'a b' -"],
    ["copilot", "copilot --terok-timeout 1800 --model 'a b'"],
    ["vibe", "vibe --terok-timeout 1800 --agent 'a b' --max-turns 5 -p"],
    ["opencode", "opencode --terok-timeout 1800 run --model 'a b'"],
    ["pi", "pi --terok-timeout 1800 --model 'a b' --mode json -p"],
    ["kisski", "kisski --terok-timeout 1800 run"],
  ])("%s gets what it has a flag for, and its prompt on stdin", (name, expected) => {
    const text = command(name, { model: "a b", maxTurns: 5 });
    expect(text).toBe(`init-ssh-and-repo.sh && ${expected} < /home/dev/.terok/prompt.txt`);
  });

  it("leaves out what is 0 or nothing, and takes other paths", () => {
    const paths = containerPaths({ config: "/o'ther" });
    expect(command("pi", { timeout: 0, model: "", maxTurns: 0, paths })).toBe(
      "init-ssh-and-repo.sh && pi --terok-timeout 0 --mode json -p < '/o'\\''ther/prompt.txt'",
    );
  });
});

it("merged auto-approve env has OpenCode, Vibe, Copilot keys", () => {
  expect(collectAutoApproveEnv()).toEqual({
    OPENCODE_PERMISSION: '{"*":"allow"}',
    COPILOT_ALLOW_ALL: "true",
    VIBE_BYPASS_TOOL_PERMISSIONS: "true",
  });
});

it("two providers may not disagree about a variable", () => {
  const one = { ...getProvider("pi"), autoApproveEnv: { A: "1" } };
  expect(refusal(() => collectAutoApproveEnv([one, { ...one, autoApproveEnv: { A: "2" } }])).message).toContain("A=2");
});

it("container paths are absolute and on one line", () => {
  expect(containerPaths()).toEqual(CONTAINER_PATHS);
  for (const home of ["", "home", "/a\nb"]) {
    expect(refusal(() => containerPaths({ home })).message).toContain("paths.home");
  }
});
