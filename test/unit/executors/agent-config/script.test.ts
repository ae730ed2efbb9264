import { spawnSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { CONTAINER_PATHS } from "../../../../executors/lib/agent-config/container-paths.ts";
import { AGENT_PROVIDERS, getProvider } from "../../../../executors/lib/agent-config/providers.ts";
import { renderProviderFunction, renderScript } from "../../../../executors/lib/agent-config/script.ts";

/*
 * What the script says. What it does is in test/executor/terok-script*.test.ts.
 */

const OPTIONS = { paths: CONTAINER_PATHS, hasAgents: false, taskSettings: false };
const ALL = renderScript({ ...OPTIONS, hasAgents: true, taskSettings: true });
const NAMES = [...AGENT_PROVIDERS.keys()];

function functionOf(name: string, more: Partial<typeof OPTIONS> = {}): string {
  return renderProviderFunction(getProvider(name), { ...OPTIONS, ...more });
}

describe("the Claude wrapper", () => {
  it('has claude(), --add-dir "/", identity call; no agents.json by default', () => {
    const text = functionOf("claude");
    expect(text).toContain("claude() (");
    expect(text).toContain('--add-dir "/"');
    expect(text).toContain("_terok_identity Claude noreply@anthropic.com");
    expect(text).not.toContain("agents.json");
  });

  it("agents.json referenced when has_agents", () => {
    expect(functionOf("claude", { hasAgents: true })).toContain("/home/dev/.terok/agents.json");
  });

  it("--append-system-prompt behind run-time file guard", () => {
    const text = functionOf("claude");
    expect(text).toContain("if [ -f /home/dev/.terok/instructions.md ]; then");
    expect(text).toContain("--append-system-prompt");
  });

  it("--resume from claude-session.txt", () => {
    expect(functionOf("claude")).toContain("_terok_resumes /home/dev/.terok/claude-session.txt --resume");
  });

  it("memory-path override exported", () => {
    expect(functionOf("claude")).toContain(
      'CLAUDE_COWORK_MEMORY_PATH_OVERRIDE=/home/dev/.claude/projects/"$PROJECT_ID"-workspace/memory',
    );
  });
});

describe("the functions of the others", () => {
  it("session providers resume with explicit id from their own session file", () => {
    for (const name of ["vibe", "opencode", "blablador", "kisski", "openrouter", "pi"]) {
      const { session } = getProvider(name);
      expect(functionOf(name)).toContain(`/home/dev/.terok/${name}-session.txt ${session?.resume.word}`);
    }
  });

  it("vibe: lazy model sync; non-vibe: none", () => {
    for (const name of NAMES) expect(functionOf(name).includes("vibe-model-sync")).toBe(name === "vibe");
    expect(ALL).toContain("-mmin +1440");
  });

  it("non-vibe: no vibe env/trust", () => {
    for (const name of NAMES) {
      const text = functionOf(name);
      expect(/VIBE_|_terok_trust/.test(text)).toBe(name === "vibe");
    }
  });

  it("trust helper defined exactly once and uses flock", () => {
    expect(ALL.match(/^_terok_trust\(\)/gm)).toHaveLength(1);
    expect(ALL).toContain("flock -w 10 9");
  });

  it("every wrapper picks up initial prompt and renames it", () => {
    for (const name of NAMES) {
      expect(functionOf(name)).toContain(
        "_terok_initial_prompt /home/dev/.terok/initial-prompt.txt /home/dev/.terok/initial-prompt.consumed.txt",
      );
    }
  });

  it("pickup gated on empty session file (vibe, opencode, blablador, kisski), and disabled in headless", () => {
    for (const name of ["vibe", "opencode", "blablador", "kisski"]) {
      expect(functionOf(name)).toContain(`&& [ ! -s /home/dev/.terok/${name}-session.txt ] &&`);
    }
    for (const name of NAMES) expect(functionOf(name)).toContain('if [ -z "$_terok_timeout" ] && [ "$#" -eq 0 ]');
  });

  it("no refuse list ⇒ no guard text", () => {
    for (const name of NAMES) {
      expect(functionOf(name).includes("_terok_refuse")).toBe(getProvider(name).refuseSubcommands.length > 0);
    }
  });
});

describe("the combined file", () => {
  it("all providers present in combined file", () => {
    for (const name of NAMES) expect(ALL.match(new RegExp(`^${name}\\(\\) \\($`, "gm"))).toHaveLength(1);
  });

  it("passes `bash -n`", () => {
    for (const text of [
      ALL,
      renderScript(OPTIONS),
      renderScript({ ...OPTIONS, paths: { config: "/a'b $(c)", workspace: "/`w`", home: '/h"}$x', share: "/s s" } }),
    ]) {
      const { status, stderr } = spawnSync("bash", ["-n"], { input: text, encoding: "utf8" });
      expect([status, stderr]).toEqual([0, ""]);
    }
  });

  it("passes shellcheck", ({ skip }) => {
    if (spawnSync("shellcheck", ["--version"]).status !== 0) skip("shellcheck is not installed");
    const { status, stdout } = spawnSync("shellcheck", ["-"], { input: ALL, encoding: "utf8" });
    expect([status, stdout]).toEqual([0, ""]);
  });

  it("names no vendor in what all share", () => {
    const helpers = renderScript(OPTIONS).split("# Generated: ")[0] ?? "";
    expect(NAMES.filter((name) => new RegExp(`\\b${name}\\b`, "i").test(helpers))).toEqual([]);
  });
});
