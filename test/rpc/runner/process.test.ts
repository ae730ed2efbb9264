import { execFileSync, spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Report_Kind } from "../../../gen/agentrunner/v1/runner_service_pb.ts";
import { SIGNAL_WINDOW_MS } from "../../../lib/signals.ts";
import { processesMarked } from "../../../runner/execution/processes.ts";
import { FakeCoordinator } from "../../support/fake-coordinator.ts";
import { atEnd, cleanUp, tempDir } from "../../support/test-runner.ts";
import { until } from "../../support/until.ts";
import { inRepository } from "../../support/paths.ts";

const ROOT = inRepository("");
const MAIN = join(ROOT, "runner/main.ts");
const LAUNCHER = join(ROOT, "bin/agent-runner");

let fake: FakeCoordinator;
let dir: string;

beforeEach(async () => {
  fake = await new FakeCoordinator().start();
  atEnd(() => fake.stop());
  dir = tempDir();
});

afterEach(cleanUp);

interface Program {
  readonly child: ChildProcess;
  /** stdout and stderr so far. */
  readonly output: () => string;
  readonly exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
}

/** Starts a program in a process group of its own, which is gone after the test. */
function start(command: string, args: readonly string[], more: NodeJS.ProcessEnv = {}): Program {
  const env = { PATH: process.env["PATH"], HOME: dir, AGENT_RUNNER_STATE_DIR: join(dir, "state"), ...more };
  const child = spawn(command, args, { cwd: dir, env, detached: true, stdio: ["pipe", "pipe", "pipe"] });
  let output = "";
  child.stdout.on("data", (chunk) => (output += chunk));
  child.stderr.on("data", (chunk) => (output += chunk));
  const exited = once(child, "exit").then(([code, signal]) => ({ code, signal }));
  atEnd(async () => {
    try {
      process.kill(-child.pid!, "SIGKILL");
    } catch {
      return; // It had ended.
    }
    await exited;
  });
  return { child, output: () => output, exited };
}

/** An executor that runs until `stop` is there, and then exits with `code`. It ignores nothing. */
function waitingExecutor(code = 0): { path: string; release: () => void } {
  const path = join(dir, "ao-wait-exec");
  const stop = join(dir, "stop");
  writeFileSync(path, `#!/bin/sh\ncat >/dev/null\nwhile [ ! -e ${stop} ]; do sleep 0.02; done\nexit ${code}\n`, {
    mode: 0o755,
  });
  return { path, release: () => writeFileSync(stop, "") };
}

function startMain(...args: (string | { env: NodeJS.ProcessEnv })[]): Program {
  const flags = args.filter((arg) => typeof arg === "string");
  const more = args.find((arg) => typeof arg === "object");
  return start(process.execPath, [MAIN, "-c", fake.url, "--log-format", "json", ...flags], more?.env);
}

function kind(wanted: Report_Kind) {
  return until(() => fake.reports(wanted)[0], `report ${wanted}`);
}

describe("agent-runner", () => {
  it("executes a run from its offer to its result, and says so in its log", async () => {
    const program = startMain("-x", "test-executor");
    await fake.offer();
    const report = await kind(Report_Kind.COMPLETED);
    expect(report.result?.text).toContain("hi");
    expect(report.executorSessionId).toContain("test-ses_1");
    expect(program.output()).toContain(`Connecting to Agent Coordinator at ${fake.url}`);
    expect(program.output()).toMatch(/Registered as lnch_[0-9a-f]{12}/);
    expect(program.output()).toContain("Runner started - waiting for runs");
    expect(program.output()).toMatch(
      /"run_id":"run_1","session_id":"ses_1","attempt":1,.*"msg":"Received a run \(start_session\)"/,
    );
    const events = fake.of("events").flatMap(({ request }) => request.batches.flatMap(({ events }) => events));
    expect(events.map(({ event }) => event.case)).toContain("result");
  });

  it("loses no output of a run below its limit, however fast it comes, and says the true reason for the rest", async () => {
    const printing = (bytes: number) => {
      const path = join(dir, "ao-fast-exec");
      const text = `#!/bin/sh\ncat >/dev/null\nhead -c ${bytes} /dev/zero | tr '\\0' x\n`;
      writeFileSync(path, text, { mode: 0o755 });
      return path;
    };
    const limit = 64 * 1024 * 1024;
    startMain("-e", printing(limit + 20_000_000));
    await fake.offer();
    expect(await kind(Report_Kind.COMPLETED)).toMatchObject({
      eventsMissing: 0n,
      outputBytes: BigInt(limit + 20_000_000),
    });
    const texts = new Map<bigint, number>();
    const reasons = new Set<string>();
    for (const { firstSeq, events } of fake.of("events").flatMap(({ request }) => request.batches)) {
      for (const [i, { event }] of events.entries()) {
        if (event.case === "output") texts.set(firstSeq + BigInt(i), event.value.text.length);
        if (event.case === "dropped") reasons.add(event.value.reason);
      }
    }
    expect([...texts.values()].reduce((sum, length) => sum + length, 0)).toBe(limit);
    const reason = `output limit of ${limit} bytes for one run`;
    expect([...reasons]).toEqual([`${reason}; what follows is not kept`, `${reason}; in total`]);
  });

  it("leaves its executors the user's PATH, and gives them what a network needs", async () => {
    const path = join(dir, "ao-env-exec");
    writeFileSync(path, '#!/bin/sh\ncat >/dev/null\necho "$PATH $HTTPS_PROXY $UV_INDEX"\n', { mode: 0o755 });
    const env = { HTTPS_PROXY: "http://proxy:3128", UV_INDEX: "https://index" };
    startMain({ env }, "-e", path, "--pass-env", "UV_*");
    await fake.offer();
    const { result } = await kind(Report_Kind.COMPLETED);
    expect(result?.text).toBe(`${process.env["PATH"]} http://proxy:3128 https://index\n`);
  });

  it("drains on the first SIGTERM, stops its runs on the second", async () => {
    const program = startMain("-e", waitingExecutor().path);
    await fake.offer();
    await kind(Report_Kind.STARTED);
    program.child.kill("SIGTERM");
    await until(() => program.output().includes("draining, 1 run left"), "the drain");
    const beats = fake.of("heartbeat").length;
    await until(() => fake.of("heartbeat").length > beats + 2, "heartbeats in the drain");
    await delay(SIGNAL_WINDOW_MS);
    program.child.kill("SIGTERM");
    expect(await program.exited).toEqual({ code: 0, signal: null });
    expect(fake.reports(Report_Kind.STOPPED)).toHaveLength(1);
    expect(fake.of("deregister")).toHaveLength(1);
  });

  it("ends at once on the third signal, and leaves no executor behind", async () => {
    const { path } = waitingExecutor();
    writeFileSync(path, "#!/bin/sh\ntrap '' TERM\ncat >/dev/null\nwhile :; do sleep 0.05; done\n");
    fake.config.stopGrace = durationFromMs(60_000);
    const program = startMain("-e", path);
    await fake.offer();
    const { pid } = await kind(Report_Kind.STARTED);
    for (const text of ["draining, 1 run left", "stopping 1 run"]) {
      program.child.kill("SIGINT");
      await until(() => program.output().includes(text), text);
      await delay(SIGNAL_WINDOW_MS);
    }
    program.child.kill("SIGINT");
    expect(await program.exited).toEqual({ code: 130, signal: null });
    await until(() => !isAlive(pid), "the executor is gone");
  });

  it("leaves no executor behind when it is killed", async () => {
    const program = startMain("-e", waitingExecutor().path);
    await fake.offer();
    const { pid } = await kind(Report_Kind.STARTED);
    program.child.kill("SIGKILL");
    await program.exited;
    await until(() => !isAlive(pid), "the executor is gone");
  });

  it("with --once ends with the outcome of its run", async () => {
    const { path, release } = waitingExecutor(3);
    const program = startMain("--once", "-e", path);
    await fake.offer();
    await kind(Report_Kind.STARTED);
    release();
    expect(await program.exited).toEqual({ code: 1, signal: null });
    expect(await kind(Report_Kind.FAILED)).toMatchObject({ exit: { code: 3 } });
  });

  it("ends with 4 when a runner of the same identity runs on this host, and names --name", async () => {
    const { path } = waitingExecutor();
    const first = startMain("-e", path);
    await fake.stream();
    const second = startMain("-e", path);
    expect(await second.exited).toEqual({ code: 4, signal: null });
    expect(second.output()).toMatch(/error: lnch_\w+ already runs on this host.*--name/);
    expect(first.child.exitCode).toBeNull();
  });

  it.each([
    { args: ["-x", "a", "-e", "b"], text: "exclude each other" },
    { args: ["-x", "nobody"], text: 'no executor is named "nobody"; found:' },
    { args: ["-e", "/not/there"], text: "/not/there does not exist" },
    { args: ["-e", "/etc/passwd"], text: "/etc/passwd" },
    { args: ["--profile", "nobody"], text: 'no executor profile is named "nobody"' },
    { args: ["-x", "test-executor", "-p", "/not/there"], text: "--project-dir /not/there does not exist" },
    { args: ["-x", "test-executor", "--tls-ca", "/not/there"], text: "--tls-ca /not/there cannot be read" },
    { args: ["-x", "test-executor", "--pass-env", "AGENT_*"], text: "would hand on AGENT_ORCHESTRATOR_TOKEN" },
    { args: ["--max-runs", "many"], text: '--max-runs is "many"; expected a whole number' },
  ])("ends with 2 on $args and names what is wrong", async ({ args, text }) => {
    const program = startMain(...args);
    expect(await program.exited).toEqual({ code: 2, signal: null });
    expect(program.output()).toContain("error: ");
    expect(program.output()).toContain(text);
  });

  it("lists executors and profiles on stdout", async () => {
    const list = startMain("--executor-list");
    expect(await list.exited).toEqual({ code: 0, signal: null });
    expect(list.output()).toContain("test-executor");
    expect(await startMain("--profile-list").exited).toEqual({ code: 0, signal: null });
    const json = startMain("--executor-list", "--output", "json");
    expect(await json.exited).toEqual({ code: 0, signal: null });
    expect(JSON.parse(json.output())).toMatchObject({
      executors: expect.arrayContaining([expect.objectContaining({ name: "test-executor" })]),
      problems: [],
    });
  });
});

describe("the launcher", () => {
  it.skipIf(process.platform !== "linux")("keeps SIGHUP ignored for a program that nohup started", async () => {
    const program = start("nohup", [LAUNCHER, "-c", fake.url, "--log-format", "json", "-e", waitingExecutor().path]);
    await fake.stream();
    program.child.kill("SIGHUP");
    const beats = fake.of("heartbeat").length;
    await until(() => fake.of("heartbeat").length > beats + 4, "heartbeats");
    program.child.kill("SIGTERM");
    expect(await program.exited).toEqual({ code: 0, signal: null });
    expect(program.output()).toContain('"reason":"SIGTERM"');
  });

  it("lets SIGHUP, which no terminal sends, read the profile again for runs to come", async () => {
    const profiles = join(dir, ".agent-orchestrator/profiles");
    mkdirSync(profiles, { recursive: true });
    const write = (profile: object) => writeFileSync(join(profiles, "mine.json"), JSON.stringify(profile));
    write({ type: "test-executor", tags: ["old"] });
    // What counts from the next start on is not looked at: it may be gone.
    const authorities = join(dir, "ca.pem");
    copyFileSync(inRepository("test/fixtures/tls/cert.pem"), authorities);
    const flags = ["-c", fake.url, "--log-format", "json", "--profile", "mine", "--tls-ca", authorities];
    const program = start(LAUNCHER, flags);
    await fake.stream();
    rmSync(authorities);
    write({ type: "test-executor", tags: ["new"], config: { speed: 2 } });
    program.child.kill("SIGHUP");
    const again = await until(() => fake.of("register")[1]?.request, "another Register");
    expect(again).toMatchObject({ tags: ["new"], executor: { config: { speed: 2 } } });
    expect(again.bootId).toBe(fake.of("register")[0]!.request.bootId);
    await until(() => program.output().includes("the executor profile has changed"), "a line");

    write({ type: "nosuch" });
    program.child.kill("SIGHUP");
    await until(() => /no executor is named .*the runner goes on as before/.test(program.output()), "a refusal");
    program.child.kill("SIGTERM");
    expect(await program.exited).toEqual({ code: 0, signal: null });
    expect(program.output()).toContain('"reason":"SIGTERM"');
  });

  it("becomes the program: SIGKILL to what was started ends the runner, whose stream ends with it", async () => {
    const program = start(LAUNCHER, ["-c", fake.url, "-e", waitingExecutor().path]);
    const stream = await fake.stream();
    program.child.kill("SIGKILL");
    await until(() => stream.closed, "the end of the runner's stream");
    expect(await program.exited).toEqual({ code: null, signal: "SIGKILL" });
  });

  it("exits as the program does", async () => {
    const program = start(LAUNCHER, ["-c", fake.url, "-e", waitingExecutor().path]);
    await fake.stream();
    program.child.kill("SIGTERM");
    expect(await program.exited).toEqual({ code: 0, signal: null });
    expect(program.output()).toContain("draining, 0 runs left");
  });

  it("is started by a link, from another folder, under another name of its folder", async () => {
    const link = join(dir, "linked");
    symlinkSync(LAUNCHER, join(dir, "runner-link"));
    symlinkSync("runner-link", link);
    const program = start(link, ["--version"]);
    expect(await program.exited).toEqual({ code: 0, signal: null });
    expect(program.output()).toMatch(/^agent-runner \d+\.\d+\.\d+/);
  });

  it("turns one SIGTERM to its whole process group into one drain", async () => {
    const { path, release } = waitingExecutor();
    const program = start(LAUNCHER, ["-c", fake.url, "--log-format", "json", "-e", path]);
    await fake.offer();
    await kind(Report_Kind.STARTED);
    process.kill(-program.child.pid!, "SIGTERM");
    await until(() => program.output().includes("draining, 1 run left"), "the drain");
    // A supervisor, a wrapper and a terminal may each pass the same one on.
    program.child.kill("SIGTERM");
    program.child.kill("SIGINT");
    const beats = fake.of("heartbeat").length;
    await until(() => fake.of("heartbeat").length > beats + 4, "heartbeats in the drain");
    expect(program.output()).not.toContain("second SIGTERM");
    release();
    expect(await program.exited).toEqual({ code: 0, signal: null });
    expect(fake.reports(Report_Kind.COMPLETED)).toHaveLength(1);
  });

  it("passes a usage error on as exit code 2", async () => {
    const program = start(LAUNCHER, ["--nonsense"]);
    expect(await program.exited).toEqual({ code: 2, signal: null });
  });

  const hasScript = ["/usr/bin/script", "/bin/script"].some((path) => existsSync(path));
  if (!hasScript) process.stderr.write("skipped: `script` (util-linux) is not installed, no pty for the ^C test\n");

  it.skipIf(!hasScript)("under a terminal turns one ^C into one drain", async () => {
    const { path, release } = waitingExecutor();
    const command = [LAUNCHER, "-c", fake.url, "--log-format", "json", "-e", path].join(" ");
    const program = start("script", ["-qefc", `exec ${command}`, "/dev/null"]);
    await fake.offer();
    await kind(Report_Kind.STARTED);
    program.child.stdin!.write("\u0003");
    await until(() => program.output().includes("draining, 1 run left"), "the drain");
    const beats = fake.of("heartbeat").length;
    await until(() => fake.of("heartbeat").length > beats + 4, "heartbeats in the drain");
    expect(program.output()).not.toContain("stopping");
    release();
    expect(await program.exited).toEqual({ code: 0, signal: null });
    expect(fake.reports(Report_Kind.COMPLETED)).toHaveLength(1);
  });

  it.skipIf(!hasScript)("drains when its terminal hangs up", async () => {
    const command = [LAUNCHER, "-c", fake.url, "--log-format", "json", "-e", waitingExecutor().path].join(" ");
    const program = start("script", ["-qefc", `exec ${command} 2>${join(dir, "log")}`, "/dev/null"]);
    await fake.stream();
    const [pid] = processesMarked([`HOME=${dir}`]).filter((pid) => pid !== program.child.pid);
    process.kill(pid!, "SIGHUP");
    expect((await program.exited).code).toBe(0);
    expect(readFileSync(join(dir, "log"), "utf8")).toContain('"reason":"SIGHUP"');
  });

  /** Runs a copy of bin/ that has no node_modules, with a `node` on PATH that says it is of this version. */
  function launchedBy(version: string): string {
    const bare = join(dir, "bin");
    execFileSync("cp", ["-r", join(ROOT, "bin"), bare]);
    writeFileSync(
      join(dir, "node"),
      `#!/bin/sh\n[ "$1" = --version ] && echo ${version} || echo "host node runs $*"\n`,
      { mode: 0o755 },
    );
    const env = { ...process.env, PATH: `${dir}:/usr/bin:/bin` };
    return execFileSync(join(bare, "agent-runner"), ["--version"], { env, stdio: "pipe", encoding: "utf8" });
  }

  it("takes the host's Node when there is no pinned one and the host's is new enough", () => {
    expect(launchedBy("v26.0.0")).toContain(`host node runs ${join(dir, "dist/runner/main.js")} --version`);
  });

  it("says what is missing, where it looked, and what to do, when there is no Node that would do", () => {
    expect(() => launchedBy("v20.20.2")).toThrow(
      /needs Node 26 or newer: no node_modules from .* upwards[^]*host's is v20.20.2[^]*--omit=optional/,
    );
  });
});

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
