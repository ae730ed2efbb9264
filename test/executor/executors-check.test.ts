import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { POINTS } from "../../conformance/points.ts";
import { processesBelow } from "../../conformance/survivors.ts";
import { ao, startAo } from "../support/ao.ts";
import { inRepository } from "../support/paths.ts";
import { until } from "../support/until.ts";
import { missing } from "./python-support.ts";

let dir: string;
beforeEach(() => (dir = mkdtempSync(join(tmpdir(), "executors-check-"))));
afterEach(() => rmSync(dir, { recursive: true }));

const TINY_AGENT = inRepository("test/fixtures/check/tiny-agent/ao-tiny-agent-exec");

/** The environment of `ao`: executors that are not ours take the node of PATH. */
const env = (more: Record<string, string> = {}) => ({
  PATH: `${dirname(process.execPath)}:${process.env["PATH"]}`,
  HOME: dir,
  ...more,
});

/** Checks, and returns the points by what was seen at them. */
async function checked(operands: readonly string[], more: Record<string, string> = {}) {
  const { exitCode, stdout, stderr } = await ao(["executors", "check", "-o", "json", ...operands], env(more));
  if (stdout === "") throw new Error(stderr);
  const { ok, points } = JSON.parse(stdout) as {
    ok: boolean;
    points: { name: string; status: string; detail: string }[];
  };
  const named = (status: string) => points.filter((point) => point.status === status).map(({ name }) => name);
  const failures = points.filter(({ status }) => status === "fail").map(({ name, detail }) => `${name}: ${detail}`);
  return { exitCode, ok, points, failures, failed: named("fail"), skipped: named("skip") };
}

const OF_A_MODEL = POINTS.filter(({ needs }) => needs === "model").map(({ name }) => name);

describe("ao executors check", () => {
  it("passes our executors that ask no model, and skips what needs one", async () => {
    const test = await checked(["test-executor"]);
    expect(test).toMatchObject({ exitCode: 0, ok: true, failures: [], skipped: OF_A_MODEL });
    expect(test.points.map(({ name }) => name)).toEqual(POINTS.map(({ name }) => name));
    const script = await checked(["script-agent"]);
    expect(script).toMatchObject({ exitCode: 0, ok: true, failures: [] });
    expect(script.skipped).toEqual(expect.arrayContaining(["prompt-dash", ...OF_A_MODEL]));
  });

  it("passes a command as an agent, with the command that its check.json names", async () => {
    expect(await checked(["procedural"])).toMatchObject({ exitCode: 0, ok: true, failures: [] });
  });

  it("passes an agent at every point", async () => {
    expect(await checked([TINY_AGENT])).toMatchObject({ exitCode: 0, ok: true, failures: [], skipped: [] });
  });

  /** By fault, the points that fail, and words of what is seen there. */
  const FAULTS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
    "loses-result": { start: 'the result is "done"' },
    "late-session": { "session-early": "no session event while the model was silent" },
    hangs: { exits: "10 s after its result" },
    forgets: { resume: "another conversation" },
    renames: { resume: "the session was" },
    "bound-to-cwd": { "resume-other-cwd": "another conversation" },
    "takes-anything": { "bad-json": "exit code 0", eof: "exit code 0" },
    speechless: { eof: "nothing on stderr", "model-529": "without a word" },
    trims: { "prompt-exact": "line end at its end is missing" },
    dash: { "prompt-dash": "unknown option -x" },
    small: { "prompt-1mb": "the prompt is too long" },
    "hides-errors": { "model-401": "COMPLETED with", "model-drop": "as if the model had answered" },
    "tries-on-silently": { "model-429": "and says nothing" },
    "ignores-term": { "stop-graceful": "SIGKILL did" },
    "resumes-nothing": { "resume-after-kill": "cannot resume" },
    "no-shell": { "tool-group": "NOT-OFFERED: a shell", "tool-background": "NOT-OFFERED: a shell" },
    "no-headers": { "mcp-child": "x-agent-session-id missing", "mcp-headers": "x-agent-session-id missing" },
    daemon: { "nothing-left": "sleep 60" },
    "writes-home": { "home-untouched": "new .tinyrc" },
  };

  it.each(Object.entries(FAULTS))("finds out an agent that is at fault: %s", async (FAULT, expected) => {
    const points = [...new Set(["start", "prompt-exact", ...Object.keys(expected), "home-untouched"])];
    const flags = ["--pass-env", "FAULT", "--timeout", FAULT === "tries-on-silently" ? "10s" : "60s"];
    const args = [TINY_AGENT, ...flags, ...points.flatMap((name) => ["--point", name])];
    const { exitCode, failed, points: seen } = await checked(args, { FAULT });
    expect({ exitCode, failed: failed.sort() }).toEqual({ exitCode: 1, failed: Object.keys(expected).sort() });
    for (const [name, words] of Object.entries(expected)) {
      expect(seen.find((point) => point.name === name)?.detail).toContain(words);
    }
  });

  it("takes an agent that says that it waits for one that is at work", async () => {
    const args = [TINY_AGENT, "--pass-env", "FAULT", "--timeout", "10s", "--point", "model-429"];
    const { failures, points } = await checked(args, { FAULT: "tries-on" });
    expect(failures).toEqual([]);
    expect(points[0]?.detail).toContain('it says: "the model is busy; trying again"');
  });

  it("looks at what stands on a fresh start when the start fails", async () => {
    const program = join(dir, "ao-broken-exec");
    writeFileSync(program, "#!/bin/sh\ncat >/dev/null\necho it is broken >&2\nexit 1\n", { mode: 0o755 });
    const { failed, skipped, failures } = await checked([program]);
    expect(failed).toEqual(["start"]);
    expect(failures[0]).toContain("it is broken");
    expect(skipped).toHaveLength(POINTS.length - 5);
  });

  it("ends a run that goes on, and leaves nothing, when it is left with Ctrl+C", async () => {
    const marker = join(dir, "reached");
    const program = join(dir, "ao-slow-exec");
    writeFileSync(program, `#!/bin/sh\npwd >"${marker}"\nexec sleep 60\n`, { mode: 0o755 });
    const run = startAo(["executors", "check", program], env());
    await until(() => existsSync(marker) && readFileSync(marker, "utf8") !== "", "it runs");
    run.interrupt();
    expect(await run.exit).toBe(130);
    const root = dirname(readFileSync(marker, "utf8").trim());
    expect(existsSync(root)).toBe(false);
    expect(processesBelow(root)).toEqual([]);
  });

  it.each([
    [[], "name an executor, or a profile"],
    [["test-executer"], "did you mean test-executor?"],
    [["./nothing"], "does not exist"],
    [["test-executor", "--point", "strat"], 'no point is named "strat"; there are start, '],
    [["test-executor", "--config", "[]"], "--config must be a JSON object"],
    [["test-executor", "--timeout", "soon"], "it must be a duration"],
    [["--profile", "none"], 'no executor profile is named "none"'],
  ])("refuses %j with exit code 2", async (operands, message) => {
    const { exitCode, stderr, stdout } = await ao(["executors", "check", ...operands], env());
    expect({ exitCode, stdout }).toEqual({ exitCode: 2, stdout: "" });
    expect(stderr).toContain(message);
  });

  it("checks what a profile names, with its configuration", async () => {
    const profiles = join(dir, ".agent-orchestrator/profiles");
    mkdirSync(profiles, { recursive: true });
    writeFileSync(join(profiles, "quick.json"), JSON.stringify({ type: "test-executor", config: { a: 1 } }));
    const args = ["executors", "check", "--profile", "quick", "--project-dir", dir, "--point", "start"];
    const { exitCode, stdout } = await ao(args, env());
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(/^PASS {2}start +result "Echo: /);
  });

  it("refuses a check.json that it cannot use", async () => {
    const folder = join(dir, "odd");
    cpSync(dirname(TINY_AGENT), folder, { recursive: true });
    writeFileSync(join(folder, "check.json"), '{"promt": "x"}');
    const { exitCode, stderr } = await ao(["executors", "check", join(folder, "ao-tiny-agent-exec")], env());
    expect(exitCode).toBe(2);
    expect(stderr).toContain('check.json: "promt" is not known; known: prompt, slow, hang, config, parameters');
  });
});

describe("ao executors ls", () => {
  it("lists executors by name, with what cannot be used", async () => {
    const folder = join(dir, "more/two");
    mkdirSync(folder, { recursive: true });
    for (const name of ["a", "b"]) writeFileSync(join(folder, `ao-${name}-exec`), "#!/bin/sh\n", { mode: 0o755 });
    cpSync(dirname(TINY_AGENT), join(dir, "more/tiny-agent"), { recursive: true });
    const flags = ["--executors-dir", join(dir, "more")];
    const { stdout, exitCode } = await ao(["executors", "ls", ...flags, "-o", "json"], env());
    expect(exitCode).toBe(0);
    const { executors, problems } = JSON.parse(stdout);
    expect(executors).toEqual(
      expect.arrayContaining([
        expect.objectContaining({
          name: "test-executor",
          kind: "executor",
          source: "package",
          installed: true,
          install: "",
        }),
        expect.objectContaining({ name: "tiny-agent", source: join(dir, "more") }),
      ]),
    );
    expect(problems).toMatchObject([{ name: "two" }]);
    const text = await ao(["executors", ...flags], env());
    expect(text.stdout).toMatch(/^NAME +KIND +INSTALLED/);
    expect(text.stderr).toContain("two executors in one folder");
    expect(text.stderr).toContain("not installed; `ao executors ls -v` says how to");
    expect((await ao(["executors", "ls", "-v"], env())).stderr).toMatch(/^claude: .*npm install --prefix /m);
    expect((await ao(["executors", "ls", "-o", "name"], env())).stdout).toMatch(/^test-executor$/m);
  });
});

describe("ao executors init", () => {
  it.each(["bash", "python", "typescript"])("writes an executor in %s that passes the check", async (language) => {
    const noPython = language === "python" ? missing("python3") : undefined;
    if (noPython !== undefined) return;
    const made = await ao(["executors", "init", "mine", "--language", language, "--dir", join(dir, "x")], env());
    expect(made).toMatchObject({ exitCode: 0 });
    const program = made.stdout.split("\n")[0] ?? "";
    expect(made.stderr).toContain(`ao executors check ${program}`);
    const seen = await checked([program]);
    expect(seen).toMatchObject({ exitCode: 0, failures: [] });
    expect(seen.skipped.filter((name) => !(OF_A_MODEL as string[]).includes(name) && !/stop|kill/.test(name))).toEqual(
      [],
    );
  });

  it("writes over nothing, and takes no name that leads elsewhere", async () => {
    const flags = ["--dir", join(dir, "x")];
    expect((await ao(["executors", "init", "mine", ...flags], env())).exitCode).toBe(0);
    const program = join(dir, "x/mine/ao-mine-exec");
    writeFileSync(program, "changed");
    const again = await ao(["executors", "init", "mine", "-l", "python", ...flags], env());
    expect(again).toMatchObject({ exitCode: 2, stderr: expect.stringContaining("exists already") });
    expect(readFileSync(program, "utf8")).toBe("changed");
    for (const name of ["../up", "Upper", "-x", ""]) {
      expect((await ao(["executors", "init", ...flags, "--", name], env())).exitCode, name).toBe(2);
    }
    const json = await ao(["executors", "init", "other", "-o", "json", ...flags], env());
    expect(JSON.parse(json.stdout)).toEqual({
      name: "other",
      language: "bash",
      path: join(dir, "x/other/ao-other-exec"),
      files: [join(dir, "x/other/ao-other-exec")],
    });
  });

  it("says why it cannot write", async () => {
    const locked = join(dir, "file");
    writeFileSync(locked, "");
    const { exitCode, stderr } = await ao(["executors", "init", "mine", "--dir", locked], env());
    expect(exitCode).toBe(2);
    expect(stderr).toContain(locked);
    chmodSync(locked, 0o600);
  });
});
