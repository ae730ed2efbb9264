import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { AGENT_PROVIDERS } from "../../executors/lib/agent-config/providers.ts";
import { shellQuote } from "../../executors/lib/agent-config/shell-quote.ts";
import { ScriptHarness, call, noPython } from "../support/terok-script.ts";
import { until } from "../support/until.ts";
import { isAlive } from "./executors-support.ts";

/*
 * What `terok-executor.sh` does, with agents that only write down how they are called. Every shell runs with `set -u`.
 */

const NAMES = [...AGENT_PROVIDERS.keys()];

describe("harness", () => {
  it("isolates PATH to tools + stubs", () => {
    const harness = new ScriptHarness();
    harness.config("claude-session.txt", "abc\n");
    expect(harness.run("claude --terok-timeout 60")).toMatchObject({ status: 0, stderr: "" });
    expect(harness.calls).toEqual([call("claude", "--resume", "abc")]);
    expect(harness.run("command -v opencode-provider").status).toBe(1);
  });

  it.each(["-u", "-eu"])("sourcing says nothing and sets no variable, with bash %s", (flags) => {
    const script =
      'before=1 after=1; before=$(compgen -v); source "$SCRIPT"; after=$(compgen -v); [ "$before" = "$after" ]';
    const harness = new ScriptHarness();
    const env = { SCRIPT: join(harness.root, "terok-executor.sh") };
    expect(harness.run(script, { flags, env })).toEqual({ status: 0, stdout: "", stderr: "" });
  });

  it.each(NAMES)("%s runs under set -eu without a variable, and hands on its exit code", (name) => {
    const harness = new ScriptHarness();
    expect(harness.run(`${name} a 'b c'`, { flags: "-eu", env: { STUB_RC: "7" } }).status).toBe(7);
    expect(harness.run(`${name} --terok-timeout 60 x`, { flags: "-eu" })).toMatchObject({ status: 0, stderr: "" });
    expect(harness.run(`unset HOME; ${name} x`).status).toBe(0);
    expect(harness.calls).toEqual([call(name, "a", "b c"), call(name, "x"), call(name, "x")]);
  });
});

describe("help", () => {
  it("claude framed header→vendor→footer, binary saw only `--help`", () => {
    const harness = new ScriptHarness();
    const { status, stdout } = harness.run("claude --help");
    expect(status).toBe(0);
    const places = ["--terok-timeout", "--terok-new-session", "VENDOR USAGE"].map((text) => stdout.indexOf(text));
    expect(places).toEqual([...places].sort((a, b) => a - b));
    expect(stdout.indexOf("terok wrapper")).toBeGreaterThan(stdout.indexOf("VENDOR USAGE"));
    expect(harness.calls).toEqual([["claude", "--help"]]);
  });

  it("`-h` generic, vendor exit code kept", () => {
    const harness = new ScriptHarness();
    const { status, stdout } = harness.run("opencode -h", { env: { STUB_RC: "2" } });
    expect([status, harness.calls]).toEqual([2, [["opencode", "-h"]]]);
    expect(stdout).toContain("terok wraps 'opencode' in this container");
    expect(harness.run("copilot -h").stdout).not.toContain("--terok-new-session");
  });

  it("alias delegates", () => {
    const harness = new ScriptHarness();
    const { status, stdout } = harness.run("blablador --help");
    expect(status).toBe(0);
    expect(stdout).toContain("VENDOR USAGE");
    expect(harness.calls).toEqual([["blablador", "--help"]]);
  });
});

describe("new session", () => {
  it("bare launch resumes recorded session (baseline)", () => {
    const harness = new ScriptHarness();
    harness.config("claude-session.txt", "abc\n");
    expect(harness.run("claude").status).toBe(0);
    expect(harness.calls).toEqual([call("claude", "--resume", "abc")]);
    expect(harness.agentEnv).not.toHaveProperty("TEROK_SESSION_FILE");
    harness.run("kisski");
    expect(harness.agentEnv["TEROK_SESSION_FILE"]).toBe(join(harness.paths.config, "kisski-session.txt"));
  });

  it("flag skips resume, keeps the file", () => {
    const harness = new ScriptHarness();
    harness.config("claude-session.txt", "abc\n");
    expect(harness.run("claude --terok-new-session").status).toBe(0);
    expect([harness.calls, harness.read("claude-session.txt")]).toEqual([[call("claude")], "abc\n"]);
  });

  it("generic wrapper honours it", () => {
    const harness = new ScriptHarness();
    harness.config("opencode-session.txt", "abc");
    harness.run("opencode; opencode --terok-new-session");
    expect(harness.calls).toEqual([["opencode", "--session", "abc"], ["opencode"]]);
  });

  it("resumes behind the subcommand, and only without arguments or without a terminal", () => {
    const harness = new ScriptHarness();
    harness.config("opencode-session.txt", "abc");
    harness.run("opencode --terok-timeout 60 run --model m; opencode run x; opencode --terok-timeout 60 --model m");
    expect(harness.calls).toEqual([
      ["opencode", "run", "--session", "abc", "--model", "m"],
      ["opencode", "run", "x"],
      ["opencode", "--session", "abc", "--model", "m"],
    ]);
  });

  it("what the caller resumes is left alone", () => {
    const harness = new ScriptHarness();
    for (const name of ["claude", "codex", "vibe"]) harness.config(`${name}-session.txt`, "abc");
    harness.run("claude --terok-timeout 60 -p --resume=own; vibe --terok-timeout 60 --continue");
    harness.run("codex --terok-timeout 60 exec resume own -");
    expect(harness.calls).toEqual([
      call("claude", "-p", "--resume=own"),
      ["vibe", "--continue"],
      ["codex", "exec", "resume", "own", "-"],
    ]);
  });
});

describe("resume hint", () => {
  it("failed resume ⇒ exactly one launch, hint on stderr, code kept, file untouched", () => {
    const harness = new ScriptHarness();
    harness.config("claude-session.txt", "abc\n");
    const { status, stderr } = harness.run("claude", { env: { STUB_RC: "7" } });
    expect(status).toBe(7);
    expect(stderr).toContain("resumed session abc");
    expect(stderr).toContain("claude --terok-new-session");
    expect([harness.calls, harness.read("claude-session.txt")]).toEqual([[call("claude", "--resume", "abc")], "abc\n"]);
  });

  it("same on the headless path", () => {
    const harness = new ScriptHarness();
    harness.config("claude-session.txt", "abc\n");
    const { status, stderr } = harness.run("claude --terok-timeout 60", { env: { STUB_RC: "3" } });
    expect([status, harness.calls.length]).toEqual([3, 1]);
    expect(stderr).toContain("resumed session abc");
  });

  it("caller's own bad `--resume` triggers nothing", () => {
    const harness = new ScriptHarness();
    harness.config("claude-session.txt", "abc\n");
    expect(harness.run("claude --resume bogus", { env: { STUB_RC: "1" } })).toMatchObject({ status: 1, stderr: "" });
    expect(harness.calls).toEqual([call("claude", "--resume", "bogus")]);
    expect(harness.read("claude-session.txt")).toBe("abc\n");
  });

  it("124 and 130 do not hint", () => {
    const harness = new ScriptHarness();
    harness.config("claude-session.txt", "abc\n");
    for (const code of [124, 126, 127, 130]) {
      expect(harness.run("claude", { env: { STUB_RC: String(code) } })).toMatchObject({ status: code, stderr: "" });
    }
  });

  it("names its own binary", () => {
    const harness = new ScriptHarness();
    harness.config("opencode-session.txt", "abc");
    const { status, stderr } = harness.run("opencode", { env: { STUB_RC: "2" } });
    expect(status).toBe(2);
    expect(stderr).toContain("opencode exited with status 2");
    expect(stderr).toContain("opencode --terok-new-session");
  });
});

describe("codex", () => {
  it("bare launch ⇒ `resume <id>`", () => {
    const harness = new ScriptHarness();
    harness.config("codex-session.txt", "abc");
    expect(harness.run("codex").status).toBe(0);
    expect(harness.calls).toEqual([["codex", "resume", "abc"]]);
  });

  it("headless ⇒ `exec resume <id> <prompt>`", () => {
    const harness = new ScriptHarness();
    harness.config("codex-session.txt", "abc");
    harness.config("instructions.md", "x");
    expect(harness.run("codex --terok-timeout 60 exec 'do it'", { env: { TEROK_UNRESTRICTED: "1" } }).status).toBe(0);
    const override = `model_instructions_file="${harness.paths.config}/instructions.md"`;
    expect(harness.calls).toEqual([["codex", "--yolo", "-c", override, "exec", "resume", "abc", "do it"]]);
  });

  it("new-session flag and hint apply", () => {
    const harness = new ScriptHarness();
    harness.config("codex-session.txt", "abc");
    harness.run("codex --terok-new-session");
    const { status, stderr } = harness.run("codex", { env: { STUB_RC: "3" } });
    expect([status, harness.calls]).toEqual([3, [["codex"], ["codex", "resume", "abc"]]]);
    expect(stderr).toContain("codex exited with status 3");
  });

  it("says when it cannot tell where the subcommand is", () => {
    const harness = new ScriptHarness();
    harness.config("codex-session.txt", "abc");
    const { status, stderr } = harness.run("codex --terok-timeout 60 --model m exec -", { env: { STUB_RC: "3" } });
    expect([status, harness.calls]).toEqual([3, [["codex", "--model", "m", "exec", "-"]]]);
    expect(stderr).toBe("terok: codex resumes nothing: exec must be the first word\n");
  });

  it.each(["login", "logout", "--terok-timeout 60 login"])("refuses login/logout (with host hint): %s", (words) => {
    const harness = new ScriptHarness();
    const { status, stderr } = harness.run(`codex ${words}`);
    expect([status, harness.calls]).toEqual([1, []]);
    expect(stderr).toContain("terok auth codex");
  });
});

it("claude refuses setup-token (with host hint)", () => {
  const harness = new ScriptHarness();
  const { status, stderr } = harness.run("claude setup-token");
  expect([status, harness.calls]).toEqual([1, []]);
  expect(stderr).toContain("on the host, run: terok auth claude");
  expect(harness.run("vibe setup-token").status).toBe(0);
});

describe("alias", () => {
  it("own session file", () => {
    const harness = new ScriptHarness();
    harness.config("opencode-session.txt", "harness-id");
    harness.config("blablador-session.txt", "alias-id");
    harness.run("blablador; opencode");
    expect(harness.calls).toEqual([
      ["blablador", "--session", "alias-id"],
      ["opencode", "--session", "harness-id"],
    ]);
  });

  it("no leak of harness session", () => {
    const harness = new ScriptHarness();
    harness.config("opencode-session.txt", "harness-id");
    expect(harness.run("kisski").status).toBe(0);
    expect(harness.calls).toEqual([["kisski"]]);
  });

  it("speaks under its own name", () => {
    const harness = new ScriptHarness();
    harness.config("blablador-session.txt", "alias-id");
    const help = harness.run("blablador --help").stdout;
    expect(help).toContain("terok wraps 'blablador' in this container");
    expect(help).toContain("command blablador");
    const { stderr } = harness.run("blablador", { env: { STUB_RC: "2" } });
    for (const text of ["blablador exited with status 2", "session alias-id", "blablador --terok-new-session"]) {
      expect(stderr).toContain(text);
    }
  });

  it("bookkeeping variables not exported, and nothing of them left in the shell", () => {
    const harness = new ScriptHarness();
    harness.config("blablador-session.txt", "alias-id");
    expect(harness.run("blablador; compgen -v | { ! read -r x || case $x in _terok*) exit 1 ;; esac; }").status).toBe(
      0,
    );
    expect(Object.keys(harness.agentEnv).filter((name) => name.startsWith("_terok"))).toEqual([]);
  });
});

describe("--terok-timeout", () => {
  it.each([
    "--terok-timeout",
    "--terok-timeout ten",
    "--terok-timeout ''",
    "--terok-timeout -5",
    "--terok-timeout 1.5",
  ])("without a value or with none that is a number ⇒ exit 2: %s", (words) => {
    const harness = new ScriptHarness();
    for (const name of NAMES) {
      const { status, stderr } = harness.run(`${name} ${words}`);
      expect([name, status]).toEqual([name, 2]);
      expect(stderr).toContain("--terok-timeout needs a whole number of seconds");
    }
    expect(harness.calls).toEqual([]);
  });

  it.each(NAMES)("all wrappers support it, before the agent's own flags alone: %s", (name) => {
    const harness = new ScriptHarness();
    expect(harness.run(`${name} --terok-timeout 60 x --terok-timeout 5`).status).toBe(0);
    expect(harness.calls).toEqual([call(name, "x", "--terok-timeout", "5")]);
  });

  it("ends the agent and what it has started, with 124", async () => {
    const harness = new ScriptHarness();
    const file = join(harness.root, "pids");
    const work = `sleep 600 & echo "$$ $!" >'${file}'; wait`;
    const { status, stderr } = harness.run("claude --terok-timeout 1 -p", { env: { STUB_DO: work } });
    expect(status).toBe(124);
    expect(stderr).toBe("terok: claude was stopped after 1 seconds (--terok-timeout)\n");
    const pids = readFileSync(file, "utf8").trim().split(" ").map(Number);
    await until(() => !pids.some(isAlive), "both are gone");
  });

  it("kills what does not listen", async () => {
    const harness = new ScriptHarness();
    const file = join(harness.root, "pids");
    const work = `trap '' TERM; sleep 600 & echo "$$ $!" >'${file}'; wait`;
    expect(harness.run("pi --terok-timeout 1", { env: { STUB_DO: work } }).status).toBe(124);
    const pids = readFileSync(file, "utf8").trim().split(" ").map(Number);
    await until(() => !pids.some(isAlive), "both are gone");
  });

  it("ends what the agent left behind when it ended by itself", async () => {
    const harness = new ScriptHarness();
    const file = join(harness.root, "pids");
    const work = `sleep 600 >/dev/null 2>&1 & echo "$!" >'${file}'`;
    expect(harness.run("vibe --terok-timeout 0", { env: { STUB_DO: work } })).toMatchObject({ status: 0, stderr: "" });
    await until(() => !isAlive(Number(readFileSync(file, "utf8"))), "it is gone");
  });

  it("gives the agent no terminal, from which it could not read", ({ skip }) => {
    if (noPython !== undefined) skip(noPython);
    const harness = new ScriptHarness();
    const terminal = `python3 -c 'import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))'`;
    const words = ["bash", ...harness.arguments("claude --terok-timeout 30 -p")].map(shellQuote).join(" ");
    const { status } = harness.run(`${terminal} ${words}`, { env: { STUB_STDIN: join(harness.root, "stdin") } });
    expect([status, readFileSync(join(harness.root, "stdin"), "utf8")]).toEqual([0, ""]);
  });

  it("hands on a signal to its own group", async () => {
    const harness = new ScriptHarness();
    const file = join(harness.root, "pid");
    const child = harness.start("codex --terok-timeout 600 exec x", { STUB_DO: `echo "$$" >'${file}'; sleep 600` });
    const ended = once(child, "exit");
    const pid = await until(() => existsSync(file) && Number(readFileSync(file, "utf8")), "the agent runs");
    process.kill(-(child.pid ?? 0), "SIGTERM");
    await ended;
    await until(() => !isAlive(pid), "the agent has ended");
  });
});
