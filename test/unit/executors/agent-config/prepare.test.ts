import { createHash } from "node:crypto";
import { chmodSync, existsSync, mkdirSync, readFileSync, readdirSync, statSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { prepareAgentConfigDir } from "../../../../executors/lib/agent-config/prepare.ts";
import { codes, json, put, refusal, specIn, tempFolder } from "../../../support/agent-config.ts";

const AGENT = { name: "reviewer", description: "D", prompt: "P", default: true };
const folderOf = (root: string) => join(root, "tasks/t1/agent-config");
const mode = (path: string) => statSync(path).mode & 0o777;

/** Every file below a folder, with its content. */
function tree(folder: string): Record<string, string> {
  if (!existsSync(folder)) return {};
  const files = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((name) =>
    statSync(join(folder, name)).isFile(),
  );
  return Object.fromEntries(files.sort().map((name) => [name, readFileSync(join(folder, name), "utf8")]));
}

describe("prepareAgentConfigDir", () => {
  it("custom instructions written verbatim", () => {
    const { path } = prepareAgentConfigDir(specIn(tempFolder(), { instructions: "Custom.\n\n" }));
    expect(readFileSync(join(path, "instructions.md"), "utf8")).toBe("Custom.\n\n");
  });

  it('default instructions when None (contains "conventions")', () => {
    for (const instructions of [null, ""]) {
      const { path } = prepareAgentConfigDir(specIn(tempFolder(), { instructions }));
      expect(readFileSync(join(path, "instructions.md"), "utf8")).toContain("conventions");
    }
  });

  it("generated script has --append-system-prompt", () => {
    const { path } = prepareAgentConfigDir(specIn(tempFolder(), { instructions: "Test." }));
    expect(readFileSync(join(path, "terok-executor.sh"), "utf8")).toContain("--append-system-prompt");
  });

  it("returns what it has written: files with their hashes, shared files, warnings", () => {
    const root = tempFolder();
    const manifest = prepareAgentConfigDir(specIn(root, { prompt: "Do it.", subagents: [AGENT] }));
    expect(manifest).toMatchObject({ path: folderOf(root), provider: "claude", removed: [], warnings: [] });
    expect(manifest.files.map(({ name }) => name)).toEqual([
      "agents.json",
      "instructions.md",
      "prompt.txt",
      "terok-executor.sh",
    ]);
    for (const { path, sha256 } of manifest.files) {
      expect(createHash("sha256").update(readFileSync(path)).digest("hex")).toBe(sha256);
    }
    expect(manifest.shared.map(({ path, changed }) => [path.slice(root.length), changed])).toEqual([
      ["/mounts/_blablador-config/opencode/opencode.json", true],
      ["/mounts/_kisski-config/opencode/opencode.json", true],
      ["/mounts/_opencode-config/opencode.json", true],
      ["/mounts/_openrouter-config/opencode/opencode.json", true],
      ["/mounts/_claude-config/settings.json", true],
    ]);
  });

  it("creates parent directories, and makes everything readable by its owner alone: file modes", () => {
    const root = tempFolder();
    const { path, files, shared } = prepareAgentConfigDir(specIn(root, { prompt: "p", subagents: [AGENT] }));
    expect([path, join(root, "tasks"), join(root, "tasks/t1")].map(mode)).toEqual([0o700, 0o700, 0o700]);
    for (const file of [...files, ...shared]) expect(mode(file.path)).toBe(0o600);
    chmodSync(path, 0o755);
    prepareAgentConfigDir(specIn(root));
    expect(mode(path)).toBe(0o700);
  });

  it("done again it changes nothing that is right", () => {
    const root = tempFolder();
    const spec = specIn(root, { prompt: "p", subagents: [AGENT] });
    const first = prepareAgentConfigDir(spec);
    const before = tree(root);
    const second = prepareAgentConfigDir(spec);
    expect(tree(root)).toEqual(before);
    expect(second.files).toEqual(first.files);
    expect(second.shared.every(({ changed }) => !changed)).toBe(true);
  });

  it("stale file cleanup: what does not apply any more is removed, and what is not ours stays", () => {
    const root = tempFolder();
    const first = prepareAgentConfigDir(specIn(root, { prompt: "p", subagents: [AGENT] }));
    put(join(first.path, "claude-session.txt"), "abc\n");
    put(join(first.path, ".prompt.txt.1.00000000.agent-config.tmp"), "of a killed preparation");
    const { removed } = prepareAgentConfigDir(specIn(root));
    expect(removed).toEqual(["agents.json", "prompt.txt"]);
    expect(readdirSync(first.path).sort()).toEqual(["claude-session.txt", "instructions.md", "terok-executor.sh"]);
  });

  it("an empty prompt is an empty file, and none is none", () => {
    const root = tempFolder();
    const { path } = prepareAgentConfigDir(specIn(root, { prompt: "" }));
    expect(readFileSync(join(path, "prompt.txt"), "utf8")).toBe("");
  });

  it("sub-agents are written only where one is taken", () => {
    const { path, warnings } = prepareAgentConfigDir(
      specIn(tempFolder(), { subagents: [{ ...AGENT, default: false }] }),
    );
    expect(existsSync(join(path, "agents.json"))).toBe(false);
    expect(readFileSync(join(path, "terok-executor.sh"), "utf8")).not.toContain("agents.json");
    expect(warnings).toEqual([]);
  });

  it("sub-agents that no argument holds are written, for runs that take their file, and warned of", () => {
    const subagents = [{ ...AGENT, prompt: "x".repeat(131_072) }];
    const { path, warnings } = prepareAgentConfigDir(specIn(tempFolder(), { subagents }));
    expect(existsSync(join(path, "agents.json"))).toBe(true);
    expect(codes(warnings)).toEqual(["agents-too-large"]);
  });

  it("a hook is written for a provider that has one, and for no other", () => {
    const root = tempFolder();
    prepareAgentConfigDir(specIn(root, { provider: "codex" }));
    expect(existsSync(join(root, "mounts/_claude-config"))).toBe(false);
    prepareAgentConfigDir(specIn(root, { provider: "", defaultAgent: null }));
    expect(json(join(root, "mounts/_claude-config/settings.json"))["hooks"]).toBeDefined();
  });

  it("the hook may go into a file of the task, which the script names", () => {
    const root = tempFolder();
    const { path, files } = prepareAgentConfigDir(specIn(root), {
      sessionHook: "task",
      paths: { config: folderOf(root) },
    });
    expect(existsSync(join(root, "mounts/_claude-config"))).toBe(false);
    expect(files.map(({ name }) => name)).toContain("claude-settings.json");
    expect(JSON.stringify(json(join(path, "claude-settings.json")))).toContain(`${path}/claude-session.txt`);
    expect(readFileSync(join(path, "terok-executor.sh"), "utf8")).toContain(`--settings ${path}/claude-settings.json`);
    expect(prepareAgentConfigDir(specIn(root)).removed).toEqual(["claude-settings.json"]);
  });

  it("other container paths stand wherever the paths of the format do", () => {
    const root = tempFolder();
    const paths = { config: "/c o", workspace: "/w", home: "/h", share: "/s" };
    const { path } = prepareAgentConfigDir(specIn(root), { paths });
    const script = readFileSync(join(path, "terok-executor.sh"), "utf8");
    expect(script).not.toMatch(/\/home\/dev|\/workspace|\/usr\/local\/share\/terok/);
    expect(json(join(root, "mounts/_opencode-config/opencode.json"))["instructions"]).toEqual(["/c o/instructions.md"]);
  });
});

describe("sub-agents of other providers", () => {
  it("are warned of, and not written", () => {
    const { path, warnings } = prepareAgentConfigDir(specIn(tempFolder(), { provider: "pi", subagents: [AGENT] }));
    expect(codes(warnings)).toEqual(["agents-unsupported"]);
    expect(existsSync(join(path, "agents.json"))).toBe(false);
  });

  it("may be described in the instructions", () => {
    const spec = specIn(tempFolder(), { provider: "codex", subagents: [AGENT], instructions: "Mine." });
    const { path, warnings } = prepareAgentConfigDir(spec, { foldSubagents: true });
    expect(warnings).toEqual([]);
    expect(readFileSync(join(path, "instructions.md"), "utf8")).toMatch(
      /^Mine\.\n\n# Roles\n[^]*## reviewer\n\nD\n\nP$/,
    );
  });

  it("selected-without-subagents warning: says that the name is not there, and nothing of Claude", () => {
    const claude = prepareAgentConfigDir(specIn(tempFolder(), { selectedAgents: ["x"] })).warnings;
    expect(codes(claude)).toEqual(["selected-unknown"]);
    expect(claude[0]?.message).not.toContain("does not support");
    const vibe = specIn(tempFolder(), { provider: "vibe", selectedAgents: ["x"] });
    expect(codes(prepareAgentConfigDir(vibe).warnings)).toEqual(["agents-unsupported"]);
  });
});

describe("what is wrong is found before anything is written", () => {
  it.each([
    ["unknown provider leaves no files", { provider: "nope" }, "nope"],
    ["mounts_base missing", { mountsBase: null }, "mountsBase"],
    ["path-escaping task_id", { taskId: "../../esc" }, "taskId"],
  ])("%s", (_, change, message) => {
    const root = tempFolder();
    const error = refusal(() => prepareAgentConfigDir(specIn(root, change)));
    expect(error.message).toContain(message);
    expect(readdirSync(root)).toEqual([]);
  });

  it("a path of the container that is none", () => {
    const root = tempFolder();
    expect(refusal(() => prepareAgentConfigDir(specIn(root), { paths: { config: "x" } })).message).toContain(
      "absolute",
    );
    expect(readdirSync(root)).toEqual([]);
  });

  it("strict: every warning is a refusal, all of them at once", () => {
    const root = tempFolder();
    put(join(root, "mounts/_opencode-config/opencode.json"), "broken");
    const before = tree(root);
    const subagents = [
      { ...AGENT, colour: "red" },
      { file: "none.md", default: true },
    ];
    const error = refusal(() =>
      prepareAgentConfigDir(specIn(root, { subagents, selectedAgents: ["y"] }), { strict: true }),
    );
    expect(codes(error.diagnostics).sort()).toEqual([
      "agent-field-unknown",
      "agent-file-missing",
      "selected-unknown",
      "shared-file-replaced",
    ]);
    expect(tree(root)).toEqual(before);
  });

  it("strict: what is right is done", () => {
    expect(prepareAgentConfigDir(specIn(tempFolder(), { subagents: [AGENT] }), { strict: true }).warnings).toEqual([]);
  });

  it("a folder of the task that is a link to somewhere else", () => {
    const root = tempFolder();
    mkdirSync(join(root, "tasks"));
    mkdirSync(join(root, "elsewhere"));
    symlinkSync(join(root, "elsewhere"), join(root, "tasks/t1"));
    expect(codes(refusal(() => prepareAgentConfigDir(specIn(root))).diagnostics)).toEqual(["unsafe-path"]);
    expect(readdirSync(join(root, "elsewhere"))).toEqual([]);
  });

  it("a shared folder that is none", () => {
    const root = tempFolder();
    put(join(root, "mounts/_claude-config"), "a file");
    const error = refusal(() => prepareAgentConfigDir(specIn(root)));
    expect(error.message).toContain("_claude-config: is not a folder");
    expect(existsSync(join(root, "tasks"))).toBe(false);
  });

  it("tasksRoot that is a file, in words", () => {
    const root = tempFolder();
    put(join(root, "tasks"), "a file");
    expect(refusal(() => prepareAgentConfigDir(specIn(root))).message).toContain("ENOTDIR");
  });

  it("a file that cannot be moved into its place leaves nothing beside it", () => {
    const root = tempFolder();
    mkdirSync(join(folderOf(root), "terok-executor.sh"), { recursive: true });
    expect(refusal(() => prepareAgentConfigDir(specIn(root, { prompt: "p" }))).message).toContain("terok-executor.sh");
    expect(readdirSync(folderOf(root)).filter((name) => name.endsWith(".tmp"))).toEqual([]);
  });
});
