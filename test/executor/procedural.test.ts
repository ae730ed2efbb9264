import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { until } from "../support/until.ts";
import { inRepository } from "../support/paths.ts";
import type { Started } from "./executors-support.ts";
import { invocationOf, isAlive, killStarted, start } from "./executors-support.ts";

const PROCEDURAL = inRepository("executors/procedural/ao-procedural-exec");

let dir: string;

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "procedural-"));
});

afterEach(() => {
  killStarted();
  rmSync(dir, { recursive: true, force: true });
});

/** A bash script that is the command. */
function script(body: string): string {
  const path = join(dir, "command");
  writeFileSync(path, `#!/usr/bin/env bash\n${body}\n`);
  chmodSync(path, 0o755);
  return path;
}

function run(change: object, prompt = ""): Started {
  return start([PROCEDURAL], invocationOf(prompt, { project_dir: dir, ...change }), { cwd: dir });
}

async function ended(body: string, config: object = {}, change: object = {}, prompt = "") {
  const command = script(body);
  const end = await run({ executor_config: { command, ...config }, ...change }, prompt).ended;
  const events = end.stdout.split("\n").flatMap((line) => (line === "" ? [] : [JSON.parse(line)]));
  return { ...end, events, data: events.find(({ type }) => type === "result")?.data };
}

describe("procedural", () => {
  it("hands parameters on as flags, and the prompt on stdin", async () => {
    const parameters = {
      depth: 2,
      all: true,
      off: false,
      names: ["a", "b"],
      where: { x: 1 },
      minus: "-rf",
      n: -1,
      text: "a b",
    };
    const { code, data } = await ended(
      `printf '%s\\n' "$@"; cat`,
      { args: ["first"] },
      { parameters },
      "the prompt\nof two lines",
    );
    expect(code).toBe(0);
    expect(data.return_code).toBe(0);
    expect(data.stdout.split("\n")).toEqual([
      ...[
        "first",
        "--all",
        "--depth",
        "2",
        "--minus=-rf",
        "--n=-1",
        "--names",
        "a,b",
        "--text",
        "a b",
        "--where",
        '{"x":1}',
      ],
      ...["the prompt", "of two lines"],
    ]);
  });

  it("takes a JSON object on stdout for the data of the result", async () => {
    const { code, data } = await ended(`echo '{"answer": 42,'; echo ' "list": [1]}'`);
    expect({ code, data }).toEqual({ code: 0, data: { answer: 42, list: [1] } });
  });

  it.each([
    ["a list", "echo '[1]'", "[1]\n"],
    ["text that begins like an object", "echo '{nope'", "{nope\n"],
    ["nothing", "true", ""],
  ])("takes %s for text", async (_, body, stdout) => {
    expect((await ended(body)).data).toEqual({ return_code: 0, stdout, stderr: "" });
  });

  it("says how much there was of an output that is cut", async () => {
    const { data } = await ended("head -c 1000000 /dev/zero | tr '\\0' x; head -c 50000 /dev/zero | tr '\\0' y >&2");
    expect(data).toMatchObject({ stdout_bytes: 1_000_000, stderr_bytes: 50_000 });
    expect(data.stdout.length).toBeGreaterThan(100_000);
    expect(JSON.stringify(data).length).toBeLessThan(256 * 1024);
  });

  it("fails with the command's exit code and the end of its stderr, and keeps its result", async () => {
    const { code, data, stderr } = await ended("echo half; echo 'disk is full' >&2; exit 75");
    expect({ code, data }).toEqual({ code: 75, data: { return_code: 75, stdout: "half\n", stderr: "disk is full\n" } });
    expect(stderr.trim().split("\n").at(-1)).toContain("disk is full");
    expect(stderr).toContain("procedural: AGENT_FAILED: ");
  });

  it("ends all that a command started when its time is over, by force when it does not want to", async () => {
    const body = `trap '' TERM; (trap '' TERM; echo $BASHPID > ${dir}/child; while :; do sleep 0.1; done) & while :; do sleep 0.1; done`;
    const { code, stderr } = await ended(body, { timeout_ms: 300 });
    expect(code).toBe(124);
    expect(stderr).toContain("LIMIT_REACHED");
    expect(stderr).toContain("timeout_ms 300");
    const child = Number(readFileSync(join(dir, "child"), "utf8"));
    await until(() => !isAlive(child), "the child has ended");
  });

  it("hands a stop on to the command", async () => {
    const command = script(`trap 'echo bye >&2; exit 7' TERM; touch ${dir}/ready; while :; do sleep 0.05; done`);
    const started = start([PROCEDURAL], invocationOf("", { executor_config: { command } }), { cwd: dir });
    await until(() => existsSync(join(dir, "ready")), "the command runs");
    started.kill("SIGTERM");
    const { code, stderr } = await started.ended;
    expect(code).toBe(1);
    expect(stderr).toContain("stopped before its end");
    expect(stderr).toContain("bye");
  });

  it("does not wait for what a command leaves behind with its output open", async () => {
    const { code, data } = await ended(`sleep 1000 & echo $! > ${dir}/child; echo '{"done":true}'`);
    expect({ code, data }).toEqual({ code: 0, data: { done: true } });
  });

  it("refuses a resumed run, which has no conversation, unless its config says that it may be repeated", async () => {
    const refused = await ended("echo '{}'", {}, { mode: "resume" });
    expect(refused).toMatchObject({ code: 1, data: undefined });
    expect(refused.stderr).toContain("UNKNOWN_SESSION: a procedural agent has no conversation");
    expect(await ended("echo '{}'", { resumable: true }, { mode: "resume" })).toMatchObject({ code: 0, data: {} });
  });

  it.each([
    ["no command", {}, {}, 2, 'BAD_CONFIG: config has no "command"'],
    ["an unknown key", { command: "true", nope: 1 }, {}, 2, 'BAD_CONFIG: "nope" of config is not known'],
    [
      "a wrong type",
      { command: "true", timeout_ms: "5" },
      {},
      2,
      '"timeout_ms" of config must be a whole number from 0, not "5"',
    ],
    [
      "a program that is not there",
      { command: "no-such-program-here" },
      {},
      75,
      "AGENT_NOT_INSTALLED: the command no-such-program-here",
    ],
    ["a file that is no program", { command: "./plain" }, {}, 1, "is not executable"],
    ["a directory that is not there", { command: "true", cwd: "gone" }, {}, 75, "PROJECT_DIR_GONE: the directory"],
    [
      "a name that is no flag",
      { command: "true" },
      { parameters: { "-x": 1 } },
      2,
      'parameters: "-x" cannot be a flag',
    ],
    ["a NUL", { command: "true" }, { parameters: { x: "a\0b" } }, 2, "parameters.x: holds a character NUL"],
    ["a huge value", { command: "true" }, { parameters: { x: "a".repeat(200_000) } }, 2, "parameters.x: 200000 bytes"],
  ])("says what is wrong with %s", async (_, config, change, exitCode, message) => {
    writeFileSync(join(dir, "plain"), "x", { mode: 0o644 });
    const { code, stderr } = await run({ executor_config: config, ...change }).ended;
    expect(stderr).toContain(message);
    expect(code).toBe(exitCode);
  });

  it("runs in the directory and with the variables of its config", async () => {
    mkdirSync(join(dir, "sub"));
    const { data } = await ended('echo "$(basename "$PWD") $COLOR"', { cwd: "sub", env: { COLOR: "blue" } });
    expect(data.stdout).toBe("sub blue\n");
  });

  it("repeats the flag of a list where its config wants that", async () => {
    const { data } = await ended('echo "$@"', { lists: "repeated" }, { parameters: { n: [1, 2], none: [] } });
    expect(data.stdout).toBe("--n 1 --n 2\n");
  });
});
