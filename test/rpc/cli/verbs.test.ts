import { create } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { text } from "node:stream/consumers";
import { setTimeout as delay } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { FailureReason, InvocationMode, RunState } from "../../../gen/agentrunner/v1/run_pb.ts";
import { RunnerSchema, Runner_Presence } from "../../../gen/agentrunner/v1/runner_pb.ts";
import { ao, startAo } from "../../support/ao.ts";
import { FakeCoordinator } from "../../support/fake-run-service.ts";
import { until } from "../../support/until.ts";
import { inRepository } from "../../support/paths.ts";

const MAIN = inRepository("cli/main.ts");

let fake: FakeCoordinator;
const at = (...args: string[]) => ao(["-c", fake.url, ...args]);

beforeEach(async () => {
  fake = await new FakeCoordinator().start();
});
afterEach(async () => {
  await fake.stop();
});

describe("ao, when the coordinator", () => {
  it("cannot be reached: exits 3 and names the next command", async () => {
    const { url } = fake;
    await fake.stop();
    for (const args of [["runs", "ls"], ["start", "--prompt", "x"], ["runs", "logs", "-f", "run_1"], ["runners"]]) {
      const { exitCode, stdout, stderr } = await ao(["-c", url, ...args]);
      expect({ exitCode, stdout }).toEqual({ exitCode: 3, stdout: "" });
      expect(stderr).toContain(
        `error: cannot reach coordinator at ${url} (ECONNREFUSED)\nhint: start one with \`ao dev\``,
      );
    }
  });

  it.each([
    ["runs get", ["runs", "get", "run_none"], "`ao ps`"],
    ["runs logs", ["runs", "logs", "run_none"], "`ao ps`"],
    ["runs logs -f", ["runs", "logs", "-f", "run_none"], "`ao ps`"],
    ["runs stop", ["runs", "stop", "run_none"], "`ao ps`"],
    ["get", ["get", "none"], "`ao sessions`"],
    ["sessions get", ["sessions", "get", "none"], "`ao sessions`"],
    ["sessions get", ["sessions", "get", "ses_none"], "`ao sessions`"],
    ["runners get", ["runners", "get", "lnch_none"], "`ao runners`"],
    ["runners rm", ["runners", "rm", "lnch_none"], "`ao runners`"],
  ])("does not know what %s names: exits 7 and says where to look", async (_verb, args, hint) => {
    const { exitCode, stdout, stderr } = await at(...args);
    expect({ exitCode, stdout }).toEqual({ exitCode: 7, stdout: "" });
    expect(stderr).toMatch(/^error: .*\nhint: `/);
    expect(stderr).toContain(`hint: ${hint}`);
  });

  it.each([
    [Code.AlreadyExists, 4],
    [Code.FailedPrecondition, 4],
    [Code.PermissionDenied, 4],
    [Code.ResourceExhausted, 4],
    [Code.InvalidArgument, 2],
    [Code.Internal, 70],
  ])("answers code %i: exits %i with its words", async (code, wanted) => {
    fake.failures.push(new ConnectError("the words of the server", code));
    const { exitCode, stderr } = await at("start", "x", "--prompt", "y");
    expect({ exitCode, stderr }).toEqual({
      exitCode: wanted,
      stderr: expect.stringContaining("the words of the server"),
    });
    expect(fake.created).toHaveLength(1);
  });

  it("finds a field wrong: exits 2 with the rule", async () => {
    const { exitCode, stderr } = await at("start", "x".repeat(200), "--prompt", "y");
    expect({ exitCode, stderr }).toEqual({ exitCode: 2, stderr: expect.stringContaining("session_name") });
  });
});

describe("ao runs logs", () => {
  it("prints what is stored, over several pages, and the rest only with --all", async () => {
    const run = fake.addRun();
    fake.move(run, RunState.RUNNING);
    for (const n of [1, 2, 3]) fake.print(run, `line ${n}\n`);
    fake.say(run, { case: "status", value: { text: "thinking" } });
    fake.say(run, { case: "dropped", value: { bytes: 2048n, reason: "64 MiB of output" } });
    const short = await at("runs", "logs", "run_1");
    expect(short.stdout).toBe("line 1\nline 2\nline 3\n[… 2.0 KiB dropped: 64 MiB of output …]\n");
    const { stdout } = await at("runs", "logs", "run_1", "--all");
    expect(stdout).toMatch(/^07:50:12\.123 running\nline 1\nline 2\nline 3\n07:50:12\.123 status thinking\n/);
  });

  it("neither misses nor repeats an event with -f when the coordinator is cut off and comes back", async () => {
    const run = fake.addRun();
    fake.print(run, "1\n");
    const following = startAo(["-c", fake.url, "runs", "logs", "-f", "run_1"]);
    await until(() => following.stdout() === "1\n", "the first line is shown");
    await fake.stop();
    await until(() => following.stderr().includes("is away"), "the cut is noticed");
    fake.print(run, "2\n");
    await fake.start();
    await until(() => following.stdout() === "1\n2\n", "the missed line is shown");
    fake.print(run, "3\n");
    fake.move(run, RunState.FAILED);
    expect(await following.exit).toBe(1);
    expect(following.stdout()).toBe("1\n2\n3\n");
    expect(following.stderr()).toContain("is back");
    expect(fake.watched.slice(0, 2)).toEqual(["", "c1"]);
  });

  it("ends with what an ended run was, and with 130 at Ctrl+C", async () => {
    const run = fake.addRun();
    fake.move(run, RunState.STOPPED);
    expect((await at("runs", "logs", "-f", "run_1")).exitCode).toBe(5);
    fake.addRun();
    const following = startAo(["-c", fake.url, "runs", "logs", "-f", "run_2"]);
    await until(() => fake.watched.length === 2, "it follows");
    following.interrupt();
    expect(await following.exit).toBe(130);
  });

  it("says at once why a run waits, and that it goes on with -f", async () => {
    const run = fake.addRun({ state: RunState.PENDING, pendingReasons: ["no runner matches: 0 runners"] });
    const why = "pending: no runner matches: 0 runners\n";
    expect(await at("runs", "logs", "run_1")).toEqual({
      exitCode: 0,
      stdout: "",
      stderr: `${why}it has printed nothing yet; \`ao logs -f run_1\` goes on until it ends\n`,
    });
    const following = startAo(["-c", fake.url, "runs", "logs", "-f", "run_1"]);
    await until(
      () => following.stderr() === `${why}this goes on until it has run; Ctrl+C leaves it alone\n`,
      "it is told",
    );
    fake.print(run, "1\n");
    fake.move(run, RunState.COMPLETED);
    expect(await following.exit).toBe(0);
    expect(following.stdout()).toBe("1\n");
    expect((await at("-q", "runs", "logs", "run_1")).stderr).toBe("");
  });

  it("writes one event a line with jsonl", async () => {
    fake.print(fake.addRun(), "x");
    const { stdout } = await at("runs", "logs", "run_1", "-o", "jsonl");
    expect(JSON.parse(stdout)).toMatchObject({ run_id: "run_1", cursor: "c1", executor: { output: { text: "x" } } });
  });
});

describe("ao runs", () => {
  it("lists the newest first, as many as --limit says over several pages, and says that there are more", async () => {
    for (let i = 0; i < 5; i += 1) fake.addRun();
    const { stdout, stderr } = await at("runs", "ls", "--limit", "3", "-o", "jsonl");
    const ids = stdout
      .trimEnd()
      .split("\n")
      .map((line) => (JSON.parse(line) as { run_id: string }).run_id);
    expect(ids).toEqual(["run_5", "run_4", "run_3"]);
    expect(stderr).toContain("there are more");
    expect(JSON.parse((await at("runs", "-o", "json")).stdout)).toMatchObject({
      runs: [{ run_id: "run_5" }, {}, {}, {}, {}],
    });
    expect((await at("runs", "ls")).stdout.split("\n")[0]).toMatch(/^RUN +STATE +SESSION +PROFILE/);
  });

  it("says of a resume that its profile is the session's", async () => {
    fake.addRun({ mode: InvocationMode.RESUME });
    fake.addRun({ mode: InvocationMode.START });
    const [, start, resume] = (await at("runs")).stdout.split("\n");
    expect(start).toMatch(/^run_2 .* any /);
    expect(resume).toMatch(/^run_1 .* session's /);
  });

  it("lists only the states and the session asked for", async () => {
    fake.addRun({ state: RunState.FAILED });
    fake.addRun({ sessionName: "named", state: RunState.RUNNING });
    expect((await at("runs", "ls", "--state", "failed", "stopped")).stdout).toMatch(/run_1/);
    expect((await at("runs", "ls", "--state", "failed", "stopped")).stdout).not.toMatch(/run_2/);
    expect((await at("runs", "ls", "--session", "named")).stdout).not.toMatch(/run_1/);
  });

  it("writes no data but a hint when there is nothing", async () => {
    expect(await at("runs", "ls")).toEqual({ exitCode: 0, stdout: "", stderr: "no runs; `ao start` makes one\n" });
    expect(JSON.parse((await at("runs", "ls", "-o", "json")).stdout)).toEqual({ runs: [] });
  });

  it("says on a pending run why it is pending, in the coordinator's words", async () => {
    const pendingReasons = ["no runner matches: 2 runners", "lnch_a lacks tag docker", "lnch_b is full 2/2"];
    fake.addRun({ state: RunState.PENDING, pendingReasons });
    const { stdout } = await at("runs", "get", "run_1");
    expect(stdout).toMatch(/pending .* — no runner matches: 2 runners: lnch_a lacks tag docker; lnch_b is full 2\/2\n/);
  });

  it("stops a run", async () => {
    fake.addRun();
    const { exitCode, stdout } = await at("runs", "stop", "run_1", "--grace", "5s", "--reason", "enough");
    expect({ exitCode, stdout }).toEqual({
      exitCode: 0,
      stdout: expect.stringMatching(/^run_1 {2}stopped — enough\n$/),
    });
  });

  it("prunes, or counts with --dry-run", async () => {
    expect((await at("runs", "prune", "--older-than", "30d")).stdout).toMatch(/^deleted 2 runs that ended before 2026/);
    expect((await at("runs", "prune", "--older-than", "30d", "--dry-run")).stdout).toMatch(/^would delete 3 runs/);
  });
});

describe("ao backup", () => {
  it("names the file on the coordinator's host, absolute", async () => {
    expect((await at("backup", "/backups/a.db")).stdout).toBe("copied the store to /backups/a.db (4096 bytes)\n");
    expect((await at("backup", "a.db")).stdout).toBe(`copied the store to ${process.cwd()}/a.db (4096 bytes)\n`);
  });
});

describe("ao sessions", () => {
  it("lists, shows, and prints the result as the last run ended", async () => {
    fake.addRun({
      sessionName: "named",
      state: RunState.FAILED,
      failure: FailureReason.EXECUTOR_EXIT,
      result: { text: "so far" },
    });
    expect((await at("sessions")).stdout).toMatch(/^SESSION .*\nses_1 /);
    expect((await at("sessions", "get", "named")).stdout).toMatch(/^ses_1 /);
    const { exitCode, stdout, stderr } = await at("sessions", "result", "named");
    expect({ exitCode, stdout, stderr }).toEqual({
      exitCode: 1,
      stdout: "so far\n",
      stderr: "run_1 failed: executor exit\n",
    });
  });

  it("prints every event", async () => {
    const run = fake.addRun();
    fake.move(run, RunState.RUNNING);
    fake.print(run, "one\n");
    fake.print(run, "two");
    expect((await at("sessions", "events", "ses_1")).stdout).toBe("07:50:12.123 running\none\ntwo\n");
  });

  it("refuses a result before anything has ended: exit 4", async () => {
    fake.addRun();
    expect((await at("sessions", "result", "ses_1")).exitCode).toBe(4);
  });
});

describe("ao runners", () => {
  beforeEach(() => {
    fake.runners.push(
      create(RunnerSchema, {
        runnerId: "lnch_a",
        executorProfile: "p",
        presence: Runner_Presence.ONLINE,
        maxConcurrentRuns: 4,
      }),
    );
  });

  it("lists, shows, drains and removes runners", async () => {
    expect((await at("runners")).stdout).toMatch(/^RUNNER .*\nlnch_a {2}online {2}0\/4/);
    expect((await at("runners", "get", "lnch_a")).stdout).toMatch(/^lnch_a {2}online\n/);
    expect((await at("runners", "drain", "lnch_a")).stdout).toBe("lnch_a  draining, 0 runs left\n");
    expect((await at("runners", "rm", "lnch_a")).stdout).toBe("lnch_a  removed\nrun_held  lost\n");
    expect(JSON.parse((await at("runners", "-o", "json")).stdout)).toMatchObject({
      runners: [{ runner_id: "lnch_a" }],
    });
  });
});

describe("ao doctor", () => {
  it("passes the coordinator's checks, skips the echo run without a runner, and fails for the missing runner", async () => {
    const { exitCode, stdout } = await at("doctor", "--json");
    const { ok, checks } = JSON.parse(stdout) as { ok: boolean; checks: { name: string; status: string }[] };
    const status = Object.fromEntries(checks.map((check) => [check.name, check.status]));
    expect({ exitCode, ok }).toEqual({ exitCode: 1, ok: false });
    expect(status).toMatchObject({ node: "pass", version: "pass", coordinator: "pass", store: "pass", clock: "pass" });
    expect(status).toMatchObject({ runners: "fail", "echo run": "skip" });
  });

  it("sends a run through a test executor and checks its echo", async () => {
    fake.runners.push(
      create(RunnerSchema, { runnerId: "lnch_a", executorProfile: "test-executor", presence: Runner_Presence.ONLINE }),
    );
    const checking = startAo(["-c", fake.url, "doctor"]);
    const run = await until(() => fake.runs[0], "the echo run is made");
    fake.move(run, RunState.COMPLETED, { runnerId: "lnch_a", result: { text: run.prompt } });
    await checking.exit;
    expect(checking.stdout()).toMatch(/PASS {2}echo run +completed in .* by lnch_a\n/);
    expect(fake.deleted, "nothing is left in the history").toEqual([run.sessionId]);
  });

  it("fails what the coordinator refuses, in its words", async () => {
    fake.failures.push(new ConnectError("no list today", Code.Internal));
    expect((await at("doctor")).stdout).toMatch(/FAIL {2}runners +Internal: no list today\n/);
    fake.runners.push(create(RunnerSchema, { executorProfile: "test-executor", presence: Runner_Presence.ONLINE }));
    fake.failures.push(undefined, new ConnectError("no run today", Code.ResourceExhausted));
    expect((await at("doctor")).stdout).toMatch(/FAIL {2}echo run +no run today\n +→ `ao doctor` checks the store/);
  });

  it("says what to do when the store cannot be written, and when nothing answers", async () => {
    fake.ready = false;
    expect((await at("doctor")).stdout).toMatch(
      /FAIL {2}store +\/ready answers 503: disk full\n +→ see the coordinator's log/,
    );
    await fake.stop();
    const { exitCode, stdout } = await at("doctor");
    expect(exitCode).toBe(1);
    expect(stdout).toMatch(/FAIL {2}coordinator +cannot reach .* \(ECONNREFUSED\)\n +→ start one with `ao dev`/);
  });
});

describe("the program ao", () => {
  const env = { PATH: process.env["PATH"] ?? "" };

  it("ends quietly when the reader of its stdout has enough", async () => {
    const run = fake.addRun();
    fake.print(run, "first line\n");
    const logs = spawn(process.execPath, [MAIN, "-c", fake.url, "runs", "logs", "-f", "run_1"], { env });
    let stderr = "";
    logs.stderr.on("data", (chunk) => (stderr += String(chunk)));
    await once(logs.stdout, "data");
    logs.stdout.destroy();
    fake.print(run, "nobody reads this\n");
    const [code] = (await once(logs, "close")) as [number];
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  });

  it("delivers every byte to a reader that is slow, and its exit code", async () => {
    const run = fake.addRun({ sessionId: "ses_1", sessionName: "big" });
    for (let i = 0; i < 50; i += 1) fake.print(run, "x".repeat(60_000));
    fake.move(run, RunState.FAILED, { result: { text: "y".repeat(200_000) } });
    const read = async (...args: string[]) => {
      const child = spawn(process.execPath, [MAIN, "-c", fake.url, ...args], { env });
      const closed = once(child, "close");
      // Nothing is read until the pipe is full; a program that exits without waiting loses what it holds then.
      await once(child.stdout, "readable");
      await Promise.race([once(child, "exit"), delay(500)]);
      const printed = await text(child.stdout);
      return { printed, code: ((await closed) as [number])[0] };
    };
    const logs = await read("runs", "logs", run.runId);
    expect(logs.printed.match(/x/g)).toHaveLength(3_000_000);
    const result = await read("sessions", "result", "ses_1", "-o", "json");
    expect(JSON.parse(result.printed)).toMatchObject({ result: { text: "y".repeat(200_000) } });
    expect([logs.code, result.code]).toEqual([0, 1]);
  });

  it("speaks https, and trusts a coordinator's certificate when it is told to with --tls-ca", async () => {
    const pem = (name: string) => inRepository(`test/fixtures/tls/${name}.pem`);
    const [certPem, keyPem] = [readFileSync(pem("cert"), "utf8"), readFileSync(pem("key"), "utf8")];
    const secure = await new FakeCoordinator({ certPem, keyPem }).start();
    const list = (...args: string[]) =>
      spawn(process.execPath, [MAIN, "-c", secure.url, ...args], { env, stdio: "ignore" });
    const codes = [["runners"], ["runners", "--tls-ca", pem("cert")], ["runners", "--tls-ca", "/none.pem"]].map(
      async (args) => (await once(list(...args), "close"))[0] as number,
    );
    const doctor = spawn(process.execPath, [MAIN, "-c", secure.url, "doctor", "--json", "--tls-ca", pem("cert")], {
      env,
    });
    const [checked, ...exits] = await Promise.all([text(doctor.stdout), ...codes]);
    expect(exits).toEqual([3, 0, 2]);
    expect(checked).toMatch(/"name": "coordinator",\s+"status": "pass"/);
    await secure.stop();
  });

  it("gives an example in the help of every verb", async () => {
    const verbs = ["dev", "start", "resume", "ps", "get", "logs", "stop", "wait", "doctor"].map((verb) => [verb]);
    const groups = {
      runs: ["ls", "get", "stop", "logs", "prune"],
      runners: ["ls", "get", "drain", "rm"],
      sessions: ["ls", "get", "events", "result"],
      blueprints: ["ls", "get", "create", "rm", "enable", "disable"],
    };
    for (const [group, names] of Object.entries(groups)) verbs.push(...names.map((name) => [group, name]));
    for (const verb of verbs) {
      const { exitCode, stdout } = await ao([...verb, "--help"]);
      expect({ verb, exitCode }).toEqual({ verb, exitCode: 0 });
      expect(stdout).toMatch(new RegExp(`\nExamples?:\n  ao ${verb[0]}`));
    }
  });

  it("colours when told to, and never for NO_COLOR", async () => {
    fake.addRun({ state: RunState.FAILED });
    expect((await at("runs", "--color", "always")).stdout).toContain("\u001b[31mfailed");
    expect((await at("runs")).stdout).not.toContain("\u001b[");
  });
});
