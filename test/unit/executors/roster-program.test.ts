import { execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { AgentError } from "../../../executors/lib/agent/agent-error.ts";
import { installedVersion, pinned, versionProblem } from "../../../executors/lib/roster/agent-version.ts";
import {
  findProgram,
  installCommand,
  installedProgram,
  installFolder,
} from "../../../executors/lib/roster/find-program.ts";
import { loadEntry } from "../../../executors/lib/roster/load-roster.ts";
import type { RosterEntry } from "../../../executors/lib/roster/roster-entry.ts";
import { inRepository } from "../../support/paths.ts";
import { thrown } from "../../support/thrown.ts";

const dirs = { bundledDir: inRepository("executors/roster"), userDir: "/nowhere" };
const entry = (name: string): RosterEntry => loadEntry(name, dirs);
const gemini = entry("gemini");
const copilot = entry("copilot");
const platform = `${process.platform}-${process.arch}`;

let dir: string;
let env: Record<string, string>;

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "roster-program-"));
  mkdirSync(join(dir, "bin"));
  env = { PATH: join(dir, "bin"), HOME: join(dir, "home") };
});

afterEach(() => rmSync(dir, { recursive: true, force: true }));

function file(path: string, text = "#!/bin/sh\n", mode = 0o755): string {
  const full = join(dir, path);
  mkdirSync(dirname(full), { recursive: true });
  writeFileSync(full, text);
  chmodSync(full, mode);
  return full;
}

const INSTALLED = "home/.local/share/agent-runner/agents";

describe("the program of an agent", () => {
  it("is the one of executor_config, then the one in our folder, then the one on PATH", () => {
    const onPath = file("bin/copilot");
    expect(findProgram(copilot, {}, env)).toEqual({ program: onPath, args: [], path: onPath, from: "path" });
    const inner = file(`${INSTALLED}/copilot/node_modules/@github/copilot-${platform}/copilot`);
    expect(findProgram(copilot, {}, env)).toEqual({ program: inner, args: [], path: inner, from: "folder" });
    const own = file("own/copilot");
    expect(findProgram(copilot, { program: own }, env)).toEqual({ program: own, args: [], path: own, from: "config" });
    expect(findProgram(copilot, { program: "copilot" }, env)).toMatchObject({ program: onPath, from: "config" });
  });

  it("is run by our Node when it is JavaScript", () => {
    const path = file(`${INSTALLED}/gemini/node_modules/@google/gemini-cli/bundle/gemini.js`, "", 0o644);
    expect(findProgram(gemini, {}, env)).toEqual({ program: process.execPath, args: [path], path, from: "folder" });
  });

  it("is the inner one where PATH has a link to npm's wrapper, in a global install and in a project", () => {
    const wrapper = file("lib/node_modules/@github/copilot/npm-loader.js");
    symlinkSync(wrapper, join(dir, "bin/copilot"));
    expect(findProgram(copilot, {}, env).program).toBe(join(dir, "bin/copilot"));
    const nested = file(`lib/node_modules/@github/copilot/node_modules/@github/copilot-${platform}/copilot`);
    expect(findProgram(copilot, {}, env)).toMatchObject({ program: nested, from: "path" });
    rmSync(nested);
    const beside = file(`lib/node_modules/@github/copilot-${platform}/copilot`);
    expect(findProgram(copilot, {}, env)).toMatchObject({ program: beside, from: "path" });
  });

  it("is not what may not be executed, a folder, or something relative on PATH", () => {
    file("a/copilot", "", 0o644);
    mkdirSync(join(dir, "b/copilot"), { recursive: true });
    writeFileSync(join(dir, "file"), "");
    const PATH = ["a", "b", "file", "gone"].map((name) => join(dir, name)).join(":");
    expect(installedProgram(copilot, { ...env, PATH: `${PATH}:.:` })).toBeUndefined();
    expect(installedProgram(copilot, { HOME: join(dir, "home") })).toBeUndefined();
  });

  it("may be another one for the Agent Client Protocol", () => {
    const vibe = entry("vibe");
    file(`${INSTALLED}/vibe/bin/vibe`);
    expect(findProgram(vibe, {}, env).path).toMatch(/bin\/vibe$/);
    expect(() => findProgram(vibe, {}, env, "acp")).toThrow("no vibe-acp is on PATH");
    expect(installedProgram(vibe, env)).toBeUndefined();
    file(`${INSTALLED}/vibe/bin/vibe-acp`);
    expect(findProgram(vibe, {}, env, "acp").path).toMatch(/bin\/vibe-acp$/);
    expect(findProgram(copilot, { program: file("x") }, env, "acp").path).toBe(join(dir, "x"));
  });

  it("is looked for where AGENT_RUNNER_AGENTS_DIR or XDG_DATA_HOME says", () => {
    expect(installFolder(copilot, env)).toBe(join(dir, INSTALLED, "copilot"));
    expect(installFolder(copilot, { ...env, XDG_DATA_HOME: "/data" })).toBe("/data/agent-runner/agents/copilot");
    expect(installFolder(copilot, { XDG_DATA_HOME: "/data", AGENT_RUNNER_AGENTS_DIR: "/a" })).toBe("/a/copilot");
    expect(installFolder(entry("openrouter"), { AGENT_RUNNER_AGENTS_DIR: "/a" })).toBe("/a/opencode");
  });

  it("that is missing is AGENT_NOT_INSTALLED with the command that installs the pinned version", () => {
    const error = thrown(() => findProgram(copilot, {}, env)) as AgentError;
    expect(error).toBeInstanceOf(AgentError);
    expect(error.reason).toBe("AGENT_NOT_INSTALLED");
    const inner = join(dir, INSTALLED, `copilot/node_modules/@github/copilot-${platform}/copilot`);
    expect(error.message).toBe(
      `Copilot CLI is not installed: ${inner} does not exist, and no copilot is on PATH; install it: ${installCommand(copilot, env)}`,
    );
  });

  it.each([[5], [""], ["bin/copilot"], ["./copilot"], [null]])("cannot be %j by executor_config", (program) => {
    const error = thrown(() => findProgram(copilot, { program }, env)) as AgentError;
    expect(error.reason).toBe("BAD_CONFIG");
    expect(error.message).toBe(`program must be an absolute path, or a name on PATH, not ${JSON.stringify(program)}`);
  });

  it.each([["/not/there"], ["not-there"]])("that executor_config names must be there: %s", (program) => {
    const error = thrown(() => findProgram(copilot, { program }, env)) as AgentError;
    expect(error.reason).toBe("AGENT_NOT_INSTALLED");
    expect(error.message).toContain(`program ${program} of executor_config is not `);
  });
});

describe("the command that installs an agent", () => {
  it("has the pinned version, no scripts, and our Node unless npm has it anyhow", () => {
    const npm = `npm install --prefix ${dir}/${INSTALLED}/copilot --ignore-scripts --no-audit --no-fund @github/copilot@${copilot.install.version}`;
    expect(installCommand(copilot, env)).toBe(`PATH=${dirname(process.execPath)}:"$PATH" ${npm}`);
    symlinkSync(process.execPath, join(dir, "bin/node"));
    expect(installCommand(copilot, env)).toBe(npm);
  });

  it("names the package of this platform", () => {
    expect(installCommand(entry("opencode"), env)).toContain(` opencode-${platform}@`);
  });

  it("makes an environment of Python's for a package of its registry", () => {
    const vibe = entry("vibe");
    const folder = join(dir, INSTALLED, "vibe");
    const { version } = vibe.install;
    expect(installCommand(vibe, env)).toBe(
      `python3 -m venv ${folder} && ${folder}/bin/pip install mistral-vibe==${version}`,
    );
  });

  it("can be pasted into a shell, whatever the folder is called", () => {
    const command = installCommand(copilot, { ...env, AGENT_RUNNER_AGENTS_DIR: "/it's here" });
    const words = execFileSync("sh", ["-c", command.replace("npm install", "printf '%s\\n'")], { encoding: "utf8" });
    expect(words.split("\n").slice(0, 2)).toEqual(["--prefix", "/it's here/copilot"]);
  });
});

describe("the version of an agent", () => {
  const said = (text: string) => file("program", `#!/bin/sh\n${text}\n`);
  const ask = (path: string, timeoutMs?: number) =>
    installedVersion(copilot, { program: path, args: [] }, { PATH: process.env["PATH"] }, timeoutMs);

  it.each([
    ["echo 'GitHub Copilot CLI 1.0.102.'; echo 'Run update'", "1.0.102"],
    ["echo codex-cli 0.169.0", "0.169.0"],
    ["echo '2.1.331 (Claude Code)'", "2.1.331"],
    ["echo v1.18.33 >&2", "1.18.33"],
  ])("is read from what it says: %s", async (text, version) => {
    expect(await ask(said(text))).toBe(version);
  });

  it("is asked for with the entry's arguments and variables", async () => {
    const path = said('echo "1.2 $* $COPILOT_AUTO_UPDATE" >"$0.said"; echo 1.2.3');
    await ask(path);
    expect(execFileSync("cat", [`${path}.said`], { encoding: "utf8" })).toBe("1.2 --version false\n");
  });

  it.each([
    ["echo nothing", "does not say its version: exit code 0, nothing; see `"],
    ["echo 1.2.3; exit 3", "does not say its version: exit code 3, 1.2.3; see `"],
    ["kill -9 $$", "does not say its version: signal SIGKILL, nothing; see `"],
  ])("that is not said is AGENT_FAILED: %s", async (text, message) => {
    await expect(ask(said(text))).rejects.toMatchObject({
      reason: "AGENT_FAILED",
      message: expect.stringContaining(message),
    });
  });

  it("is not waited for without end, and neither is a program that is not there", async () => {
    await expect(ask(said("sleep 600 & wait"), 200)).rejects.toThrow("did not say its version in 0.2 s; see `");
    await expect(ask("/not/there")).rejects.toThrow("Copilot CLI cannot be started: spawn /not/there ENOENT; see `");
  });

  it("is a problem when it is older than can be driven", () => {
    const old = { ...copilot, install: { ...copilot.install, atLeast: "1.0.50" } };
    expect(versionProblem(old, "1.0.50", "COMMAND")).toBeUndefined();
    expect(versionProblem(copilot, "0.0.1", "COMMAND")).toBeUndefined();
    const error = versionProblem(old, "1.0.9", "COMMAND");
    expect(error?.reason).toBe("AGENT_VERSION");
    expect(error?.message).toBe(
      `Copilot CLI 1.0.9 is too old: at least 1.0.50 can be driven; install ${copilot.install.version}: COMMAND`,
    );
  });

  it("is pinned as the program says it", () => {
    expect(pinned(copilot)).toBe(copilot.install.version);
    const claude = entry("claude");
    expect(pinned(claude)).toBe(claude.program.version);
    expect(pinned(claude)).not.toBe(claude.install.version);
  });
});
