import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { loadRoster } from "../../../executors/lib/roster/load-roster.ts";
import { parseRunnerOptions } from "../../../runner/config.ts";
import { missingAgent, withAgents } from "../../../runner/settings/agents.ts";
import { discoverExecutors, findExecutor } from "../../../runner/settings/discovery.ts";
import { findProfile, listProfiles } from "../../../runner/settings/profiles.ts";
import { executorListText, resolveSettings } from "../../../runner/settings/resolve-settings.ts";
import { inRepository } from "../../support/paths.ts";

const EXECUTORS = ["acp", "agent-cli", "claude-code", "codex"];

let dir: string;
let env: Record<string, string>;

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "agents-"));
  env = { PATH: join(dir, "bin"), HOME: dir };
  for (const name of EXECUTORS) program(`executors/${name}/ao-${name}-exec`);
});

afterEach(() => rmSync(dir, { recursive: true, force: true }));

function program(path: string): string {
  const file = join(dir, path);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, "#!/bin/sh\n");
  chmodSync(file, 0o755);
  return file;
}

const discovered = () =>
  withAgents(
    discoverExecutors(join(dir, "executors")),
    loadRoster({ bundledDir: inRepository("executors/roster"), userDir: join(dir, "agents") }),
    env,
  );

describe("agents among the executors", () => {
  it("are found by their names, and start the executor that drives them", () => {
    const found = discovered();
    expect(found.problems).toEqual([]);
    expect(findExecutor(found, "copilot")).toMatchObject({
      path: join(dir, "executors/acp/ao-acp-exec"),
      source: join(dir, "executors"),
      agent: { label: "Copilot CLI", program: undefined, ask: undefined, env: expect.arrayContaining(["GH_TOKEN"]) },
    });
    expect(findExecutor(found, "claude").path).toBe(join(dir, "executors/claude-code/ao-claude-code-exec"));
    const names = found.executors.map(({ name }) => name);
    expect(names).toEqual(names.toSorted());
  });

  it("are known to be installed without a process", () => {
    const path = program("bin/copilot");
    const { agent } = findExecutor(discovered(), "copilot");
    expect(agent).toMatchObject({ program: path, ask: { program: path, args: ["--version"] } });
    const text = executorListText({ discovery: discovered(), profiles: { profiles: [], problems: [] } });
    const lines = text.split("\n").map((line) => line.replace(/ +\/\S+ */, " · "));
    expect(lines).toEqual(expect.arrayContaining(["copilot · installed", "gemini · not installed", "acp · "]));
  });

  it("give way to a folder of the same name, also to one that cannot be used", () => {
    const own = program("executors/gemini/ao-gemini-exec");
    chmodSync(program("executors/vibe/ao-vibe-exec"), 0o644);
    const found = discovered();
    expect(findExecutor(found, "gemini")).toEqual({ name: "gemini", path: own, source: join(dir, "executors") });
    expect(() => findExecutor(found, "vibe")).toThrow("is not executable; run: chmod +x ");
    expect(found.problems.map(({ name }) => name)).toEqual(["vibe"]);
    // The executor and the agent have the same name here: the folder has it.
    expect(findExecutor(found, "codex").agent).toBeUndefined();
  });

  it("without their executor say which one they need", () => {
    rmSync(join(dir, "executors/agent-cli"), { recursive: true });
    expect(() => findExecutor(discovered(), "pi")).toThrow(
      'agent pi needs the executor "agent-cli", which is not here',
    );
  });

  it("of a user's file that cannot be used say why", () => {
    mkdirSync(join(dir, "agents"));
    writeFileSync(join(dir, "agents/vibe.yaml"), "lable: x");
    expect(() => findExecutor(discovered(), "vibe")).toThrow(
      `${join(dir, "agents/vibe.yaml")}: lable is not known; did you mean label?`,
    );
    expect(findExecutor(discovered(), "copilot").name).toBe("copilot");
  });
});

describe("a runner of an agent", () => {
  const settings = (...args: string[]) => {
    const parsed = parseRunnerOptions([...args, "-p", dir, "--state-dir", join(dir, "state")], {}, () => undefined);
    if (parsed.type === "text") throw new Error(parsed.text);
    const discovery = discovered();
    const profiles = listProfiles([join(dir, "profiles")], discovery);
    return resolveSettings(parsed.config, { discovery, profiles }, dir);
  };

  it("tells the executor which one, and hands it the keys", () => {
    const { executor, executorProfile } = settings("-x", "copilot", "--pass-env", "MINE");
    expect(executorProfile).toBe("copilot");
    expect(executor).toMatchObject({
      type: "copilot",
      command: join(dir, "executors/acp/ao-acp-exec"),
      config: { agent: "copilot" },
      passEnv: expect.arrayContaining(["MINE", "COPILOT_PROVIDER_API_KEY", "COPILOT_PROVIDER_BASE_URL"]),
    });
  });

  it("hands the keys of an executor's only agent to it, also without a name of the agent", () => {
    const { executor } = settings("-x", "claude-code");
    expect(executor).toMatchObject({ config: {}, passEnv: expect.arrayContaining(["ANTHROPIC_API_KEY"]) });
    expect(settings("-x", "codex").executor.passEnv).toContain("OPENAI_API_KEY");
    expect(settings("-x", "acp").executor).toMatchObject({ config: {}, passEnv: [] });
  });

  it("may have a profile of that type, whose configuration comes on top", () => {
    mkdirSync(join(dir, "profiles"));
    writeFileSync(
      join(dir, "profiles/quick.json"),
      JSON.stringify({ type: "copilot", config: { model: "small" }, env: ["MINE"] }),
    );
    writeFileSync(join(dir, "profiles/own.json"), JSON.stringify({ type: "copilot", command: "../bin/copilot" }));
    writeFileSync(join(dir, "profiles/acp.json"), JSON.stringify({ type: "acp", config: { agent: "gemini" } }));
    writeFileSync(join(dir, "profiles/odd.json"), JSON.stringify({ type: "acp", config: { agent: "constructor" } }));
    program("bin/copilot");
    const profiles = listProfiles([join(dir, "profiles")], discovered());
    expect(profiles.problems).toEqual([]);
    expect(findProfile(profiles, "quick")).toMatchObject({
      type: "copilot",
      command: join(dir, "executors/acp/ao-acp-exec"),
      config: { agent: "copilot", model: "small" },
      env: expect.arrayContaining(["MINE", "GH_TOKEN"]),
    });
    expect(findProfile(profiles, "own")).toMatchObject({ config: {}, env: [] });
    expect(findProfile(profiles, "acp")).toMatchObject({ config: { agent: "gemini" } });
    expect(findProfile(profiles, "acp").env).toEqual(expect.arrayContaining(["GEMINI_API_KEY"]));
    expect(findProfile(profiles, "odd")).toMatchObject({ config: { agent: "constructor" }, env: [] });
  });
});

describe("an agent that is not installed", () => {
  const missing = (command: string, config = {}) =>
    missingAgent(discovered(), { command: join(dir, `executors/${command}/ao-${command}-exec`), config });

  it("is named at the start of its runner, with the command that installs it", () => {
    expect(missing("claude-code")).toMatch(/^Claude Code is not installed, .* install it: .*npm install --prefix /);
    expect(missing("acp", { agent: "copilot" })).toMatch(/Copilot.* is not installed/);
  });

  it("is nobody's matter when it is there, or when nobody knows which one is meant", () => {
    program("bin/claude");
    expect(missing("claude-code")).toBeUndefined();
    expect(missing("acp")).toBeUndefined();
    expect(missingAgent(discovered(), { command: "/elsewhere", config: {} })).toBeUndefined();
  });
});
