import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { buildHeadlessCommand } from "../../executors/lib/agent-config/headless-command.ts";
import { AGENT_PROVIDERS, getProvider } from "../../executors/lib/agent-config/providers.ts";
import { ScriptHarness, call, noPython } from "../support/terok-script.ts";

/*
 * What `terok-executor.sh` gives each agent, and takes from it, with agents that only write down how they are called. Every shell runs with `set -u`.
 */

const NAMES = [...AGENT_PROVIDERS.keys()];
/** How each is told the first message of a task; a provider that is not here fails. */
const FIRST_MESSAGE: Readonly<Record<string, readonly string[]>> = {
  blablador: ["run"],
  claude: [],
  codex: [],
  copilot: ["-p"],
  kisski: ["run"],
  opencode: ["run"],
  openrouter: ["run"],
  pi: [],
  vibe: [],
};

describe("the prompt", () => {
  const run = (harness: ScriptHarness, name: string, prompt: string) => {
    harness.config("prompt.txt", prompt);
    const command = buildHeadlessCommand(getProvider(name), { timeout: 60, paths: harness.paths });
    return harness.run(command, { env: { STUB_STDIN: join(harness.root, "stdin") }, flags: "-eu" });
  };

  it.each(NAMES)(">128 KiB prompt (1 MB), and one that begins with `-`, reach %s whole and on stdin", (name) => {
    const harness = new ScriptHarness();
    for (const prompt of [`${"ä".repeat(524_288)}\n\n`, "-x"]) {
      expect(run(harness, name, prompt)).toMatchObject({ status: 0, stderr: "" });
      expect(readFileSync(join(harness.root, "stdin"), "utf8") === prompt).toBe(true);
    }
    for (const words of harness.calls) expect(words.join(" ").length).toBeLessThan(1000);
  });

  it("is resumed with the session in its place", () => {
    const harness = new ScriptHarness();
    for (const name of NAMES) harness.config(`${name}-session.txt`, "abc");
    for (const name of ["claude", "codex", "kisski", "vibe", "copilot"]) run(harness, name, "p");
    expect(harness.calls).toEqual([
      call("claude", "--resume", "abc", "--output-format", "stream-json", "--verbose", "-p"),
      ["codex", "exec", "resume", "abc", "-"],
      ["kisski", "run", "--session", "abc"],
      ["vibe", "--resume", "abc", "-p"],
      ["copilot"],
    ]);
  });
});

describe("the initial prompt", () => {
  it.each(NAMES)("seed shape per provider (run / -p / bare), once: %s", (name) => {
    const harness = new ScriptHarness();
    harness.config("initial-prompt.txt", "Do it.\nWell.\n");
    harness.run(`${name}; ${name}`);
    const shape = FIRST_MESSAGE[name];
    expect(shape).toBeDefined();
    expect(harness.calls).toEqual([call(name, ...(shape ?? []), "Do it.\nWell.\n"), call(name)]);
    expect(harness.read("initial-prompt.consumed.txt")).toBe("Do it.\nWell.\n");
  });

  it("initial-prompt picked up one-shot, gated on no session file, no arguments, and not headless", () => {
    for (const name of NAMES) {
      const harness = new ScriptHarness();
      harness.config("initial-prompt.txt", "Do it.");
      harness.run(`${name} x; ${name} --terok-timeout 60`);
      if (getProvider(name).session !== null) {
        harness.config(`${name}-session.txt`, "abc");
        harness.run(`${name}; ${name} --terok-new-session`);
      }
      expect(harness.read("initial-prompt.txt")).toBe("Do it.");
    }
  });

  it("that begins with `-` is no option, and one that no argument holds is named by its file", () => {
    const harness = new ScriptHarness();
    harness.config("initial-prompt.txt", "-x");
    harness.run("claude");
    harness.config("initial-prompt.txt", "ä".repeat(70_000));
    expect(harness.run("claude").status).toBe(0);
    expect(harness.calls[0]).toEqual(call("claude", " -x"));
    expect(harness.calls[1]?.at(-1)).toContain(`in the file ${harness.paths.config}/initial-prompt.consumed.txt`);
  });
});

describe("what an agent is given", () => {
  it("claude: agents, instructions, settings and session in their order", () => {
    const harness = new ScriptHarness({ hasAgents: true, taskSettings: true });
    const agents = '{"a":{"prompt":"it\'s $HOME \\"x\\""}}';
    harness.config("agents.json", agents);
    harness.config("claude-settings.json", "{}");
    harness.config("claude-session.txt", "abc");
    harness.config("instructions.md", "x");
    harness.run("claude");
    const { config } = harness.paths;
    expect(harness.calls).toEqual([
      [
        ...call("claude", "--agents", agents, "--settings", `${config}/claude-settings.json`),
        ...["--append-system-prompt-file", `${config}/instructions.md`, "--resume", "abc"],
      ],
    ]);
  });

  it("claude: agents by their file where it prints, which may then be of any length", () => {
    const harness = new ScriptHarness({ hasAgents: true });
    const file = harness.config("agents.json", `{"a":{"prompt":"${"x".repeat(131_072)}"}}`);
    harness.run("claude --terok-timeout 60 --verbose -p; claude --print hi");
    const { status, stderr } = harness.run("claude");
    expect(harness.calls).toEqual([
      call("claude", "--agents", file, "--verbose", "-p"),
      call("claude", "--agents", file, "--print", "hi"),
      call("claude"),
    ]);
    expect([status, stderr]).toEqual([
      0,
      `terok: the sub-agents in ${file} are too long for a command line, and left out\n`,
    ]);
  });

  it("claude: memory path of the project, when there is one", () => {
    const harness = new ScriptHarness();
    harness.run("claude", { env: { PROJECT_ID: "p 1" } });
    expect(harness.agentEnv["CLAUDE_COWORK_MEMORY_PATH_OVERRIDE"]).toBe(
      `${harness.home}/.claude/projects/p 1-workspace/memory`,
    );
    harness.run("claude");
    expect(harness.agentEnv).not.toHaveProperty("CLAUDE_COWORK_MEMORY_PATH_OVERRIDE");
  });

  it.each([
    ["agent-human", "Codex", "Ada"],
    ["human-agent", "Ada", "Codex"],
    ["agent", "Codex", "Codex"],
    ["human", "Ada", "Ada"],
    ["", "Codex", "Ada"],
  ])("git identity of authorship %j", (mode, author, committer) => {
    const harness = new ScriptHarness();
    const env = { TEROK_GIT_AUTHORSHIP: mode, HUMAN_GIT_NAME: "Ada", GIT_AUTHOR_NAME: "Somebody" };
    harness.run('codex x; echo "${GIT_AUTHOR_NAME-}"', { env });
    expect(harness.agentEnv).toMatchObject({ GIT_AUTHOR_NAME: author, GIT_COMMITTER_NAME: committer });
    expect(harness.agentEnv["GIT_AUTHOR_EMAIL"]).toBe(author === "Ada" ? "nobody@localhost" : "noreply@openai.com");
  });

  it("an unknown authorship is refused, in words", () => {
    const harness = new ScriptHarness();
    const { status, stderr } = harness.run("codex x", { env: { TEROK_GIT_AUTHORSHIP: "me" } });
    expect([status, harness.calls]).toEqual([2, []]);
    expect(stderr).toContain("set agent-human, human-agent, agent or human");
  });

  it("the image's own identity helper comes first", () => {
    const harness = new ScriptHarness();
    const helper = '_terok_apply_git_identity() { export GIT_AUTHOR_NAME="image $1"; }';
    writeFileSync(join(harness.paths.share, "terok-env-git-identity.sh"), helper);
    harness.run("codex x");
    expect(harness.agentEnv["GIT_AUTHOR_NAME"]).toBe("image Codex");
  });

  it("the session plugin of OpenCode and of every endpoint behind it", () => {
    const harness = new ScriptHarness();
    writeFileSync(join(harness.paths.share, "opencode-session-plugin.mjs"), "// plugin");
    harness.run("opencode; opencode; kisski");
    for (const folder of [".config/opencode/plugins", ".kisski/opencode/plugins"]) {
      expect(readFileSync(join(harness.home, folder, "terok-session.mjs"), "utf8")).toBe("// plugin");
    }
  });
});

describe("vibe", () => {
  it("bypass-permissions exported unconditionally", () => {
    const harness = new ScriptHarness();
    harness.run("vibe x");
    expect(harness.agentEnv["VIBE_BYPASS_TOOL_PERMISSIONS"]).toBe("true");
  });

  it("lazy model sync (24 h mtime check)", () => {
    const harness = new ScriptHarness();
    harness.stub("vibe-model-sync");
    const file = `${harness.home}/.vibe/mistral-models.txt`;
    harness.run("vibe x");
    harness.run(`mkdir -p "${harness.home}/.vibe"; touch "${file}"; vibe x; touch -t 202001010000 "${file}"; vibe x`);
    expect(harness.calls.map(([name]) => name)).toEqual(["vibe-model-sync", "vibe", "vibe", "vibe-model-sync", "vibe"]);
  });

  it("per-task system prompt copied, id exported, EXIT cleanup", () => {
    const harness = new ScriptHarness();
    harness.config("instructions.md", "Be brief.");
    const copy = 'cat "$HOME/.vibe/prompts/$VIBE_SYSTEM_PROMPT_ID.md"; exit 3';
    const { status, stdout } = harness.run("vibe x", { env: { TASK_ID: "t1", STUB_DO: copy } });
    expect([status, stdout]).toEqual([3, "VENDOR USAGE\nBe brief."]);
    expect(harness.agentEnv["VIBE_SYSTEM_PROMPT_ID"]).toBe("terok-task-t1");
    expect(readdirSync(join(harness.home, ".vibe/prompts"))).toEqual([]);
    harness.run("vibe x", { env: { TASK_ID: "../../x" } });
    expect(harness.agentEnv).not.toHaveProperty("VIBE_SYSTEM_PROMPT_ID");
  });

  const trust = (before: string | undefined) => {
    const harness = new ScriptHarness();
    const file = join(harness.home, ".vibe/trusted_folders.toml");
    mkdirSync(join(harness.home, ".vibe"));
    if (before !== undefined) writeFileSync(file, before);
    const { status, stderr } = harness.run("vibe x; vibe x");
    expect(status).toBe(0);
    return { text: existsSync(file) ? readFileSync(file, "utf8") : "", stderr, workspace: harness.paths.workspace };
  };

  it.for<[string | undefined, (word: string) => string]>([
    [undefined, (word) => `trusted = [${word}]\n`],
    ["trusted = []\n", (word) => `trusted = [${word}, ]\n`],
    [
      '# mine\ntrusted = [\n  "/a", # a\n]\nuntrusted = ["/b"]\n',
      (word) => `# mine\ntrusted = [${word}, \n  "/a", # a\n]\nuntrusted = ["/b"]\n`,
    ],
    ["[other]\ntrusted = []\n", (word) => `trusted = [${word}]\n[other]\ntrusted = []\n`],
  ])("trusts /workspace, once, and keeps the rest of %j", ([before, after], { skip }) => {
    if (noPython !== undefined) skip(noPython);
    const { text, stderr, workspace } = trust(before);
    expect([text, stderr]).toEqual([after(JSON.stringify(workspace)), ""]);
  });

  it("leaves a trust file alone that it does not understand, and says so", ({ skip }) => {
    if (noPython !== undefined) skip(noPython);
    for (const before of ["trusted = [", 'trusted = "all"\n']) {
      const { text, stderr } = trust(before);
      expect(text).toBe(before);
      expect(stderr).toContain("trusted_folders.toml");
    }
  });
});

describe("the id of the conversation from the log of the run", () => {
  /** Writes a log as newer than the run, so that the clock of the file system decides nothing. */
  const log = (path: string, content: string) =>
    `mkdir -p "$HOME/${path.slice(0, path.lastIndexOf("/"))}"; printf '%s' '${content}' >"$HOME/${path}"; touch -t 203001010000 "$HOME/${path}";`;
  const codexLog = (id: string, cwd: string) =>
    log(
      `.codex/sessions/2026/01/rollout-1-${id}.jsonl`,
      `{"type":"session_meta","payload":{"id":"${id}","cwd":"${cwd}"}}\n`,
    );

  it("is kept for the next start, for each that has logs", () => {
    const harness = new ScriptHarness();
    const cwd = harness.paths.workspace;
    harness.run("codex exec x", { env: { STUB_DO: codexLog("c1", cwd), STUB_RC: "1" } });
    const meta = `{\n "session_id": "v1",\n "environment": {"working_directory": "${cwd}"}\n}`;
    harness.run("vibe x", { env: { STUB_DO: log(".vibe/logs/session/session_1/meta.json", meta) } });
    const line = `{"type":"session","id":"p1","cwd":"${cwd}"}`;
    harness.run("pi --terok-timeout 60", { env: { STUB_DO: log(".pi/agent/sessions/x/1.jsonl", line) } });
    expect(["codex", "vibe", "pi"].map((name) => harness.read(`${name}-session.txt`))).toEqual([
      "c1\n",
      "v1\n",
      "p1\n",
    ]);
    expect(readdirSync(join(harness.root, "tmp"))).toEqual([]);
  });

  it("is not taken from another directory's, nor from an older one, nor lost when there is none", () => {
    const harness = new ScriptHarness();
    harness.config("codex-session.txt", "old\n");
    mkdirSync(join(harness.home, ".codex/sessions"), { recursive: true });
    writeFileSync(join(harness.home, ".codex/sessions/rollout-0-x.jsonl"), '{"id":"x"}');
    harness.run(`touch -t 202001010000 "$HOME/.codex/sessions/rollout-0-x.jsonl"; codex exec x`, {
      env: { STUB_DO: codexLog("other", "/elsewhere") },
    });
    expect(harness.read("codex-session.txt")).toBe("old\n");
  });

  it("is not guessed when several were written, and stays when the resumed one is among them", () => {
    const harness = new ScriptHarness();
    const cwd = harness.paths.workspace;
    const { stderr } = harness.run("codex exec x", { env: { STUB_DO: codexLog("a", cwd) + codexLog("b", cwd) } });
    expect(stderr).toContain("2 conversations of codex were written at the same time");
    expect(existsSync(join(harness.paths.config, "codex-session.txt"))).toBe(false);
    harness.config("codex-session.txt", "b\n");
    expect(harness.run("codex", { env: { STUB_DO: codexLog("c", cwd) } }).stderr).toBe("");
    expect(harness.read("codex-session.txt")).toBe("b\n");
  });
});
