import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { RunState } from "../../../gen/agentrunner/v1/run_pb.ts";
import { here, newRequestId } from "../../../cli/here.ts";
import { ao } from "../../support/ao.ts";
import { FakeCoordinator } from "../../support/fake-run-service.ts";

let fake: FakeCoordinator;
const at = (...args: string[]) => ao(["-c", fake.url, ...args]);

beforeEach(async () => {
  fake = await new FakeCoordinator().start();
});
afterEach(async () => {
  await fake.stop();
});

/** The forms of a reference to the newest run of a session of two. */
function twoRuns(): Readonly<Record<string, string>> {
  const session = { sessionId: "ses_0190aa", sessionName: "hello" };
  fake.addRun({ ...session, runId: "run_0190aa1", state: RunState.COMPLETED });
  fake.addRun({ ...session, runId: "run_0190aa2", requestId: newRequestId(here()), prompt: "the newest" });
  fake.addRun({ runId: "run_0190bb", sessionId: "ses_0190bb", sessionName: "other" });
  return {
    "the name of its session": "hello",
    "its id": "run_0190aa2",
    "the beginning of its session's id": "ses_0190a",
    "@last": "@last",
  };
}

const FORMS = ["the name of its session", "its id", "the beginning of its session's id", "@last"] as const;

describe("a run is meant by", () => {
  it.each(FORMS)("%s, wherever a verb takes one", async (form) => {
    const ref = twoRuns()[form] ?? "";
    const run = fake.runs[1]!;
    fake.print(run, "printed\n");
    for (const verb of [["get"], ["runs", "get"]]) {
      expect((await at(...verb, ref, "-o", "json")).stdout).toContain('"run_id": "run_0190aa2"');
    }
    for (const verb of [["logs"], ["runs", "logs"]]) expect((await at(...verb, ref)).stdout).toBe("printed\n");
    expect((await at("sessions", "events", "hello", "--run", ref)).stdout).toBe("printed\n");
    expect((await at("stop", ref)).stdout).toMatch(/^run_0190aa2 {2}stopped/);
    expect((await at("runs", "logs", "-f", ref)).exitCode).toBe(5);
  });

  it("the beginning of its id, when no other begins so", async () => {
    twoRuns();
    expect((await at("get", "run_0190b", "-o", "json")).stdout).toContain('"run_id": "run_0190bb"');
  });

  it("an id that begins another one", async () => {
    for (let i = 0; i < 12; i += 1) fake.addRun();
    expect((await at("get", "run_1", "-o", "json")).stdout).toContain('"run_id": "run_1"');
  });

  it("the beginning of an id that several have: an error that lists them, exit 2", async () => {
    twoRuns();
    const { exitCode, stdout, stderr } = await at("stop", "run_0190");
    expect({ exitCode, stdout }).toEqual({ exitCode: 2, stdout: "" });
    expect(stderr).toBe(
      "error: run_0190 may mean 3 runs:\n  run_0190bb  other  running\n  run_0190aa2  hello  running\n" +
        "  run_0190aa1  hello  completed\nhint: write more of the id\n",
    );
    expect(fake.runs.some(({ state }) => state === RunState.STOPPED)).toBe(false);
    for (let i = 0; i < 20; i += 1) fake.addRun();
    expect((await at("get", "run_")).stderr).toMatch(
      /^error: run_ may mean more than 10 runs:\n( .*\n){10} {2}…\nhint/,
    );
  });

  it("@last only where something was started from the same directory: else exit 7", async () => {
    fake.addRun({ requestId: newRequestId({ ...here(), directory: "/elsewhere" }) });
    const { exitCode, stderr } = await at("get", "@last");
    expect(exitCode).toBe(7);
    expect(stderr).toContain(`no run that you started from ${process.cwd()}`);
    await at("start", "mine", "--prompt", "x");
    await at("start", "mine too", "--prompt", "x");
    expect((await at("sessions", "get", "@last")).stdout).toMatch(/mine too/);
    expect((await at("stop", "@last")).stdout).toMatch(/^run_3 /);
  });
});

describe("a session is meant by", () => {
  it.each([...FORMS, "the beginning of a run's id"])("%s, wherever a verb takes one", async (form) => {
    const ref = twoRuns()[form] ?? "run_0190aa2";
    expect((await at("sessions", "get", ref)).stdout).toMatch(/^ses_0190aa /);
    expect((await at("sessions", "tree", ref)).stdout).toMatch(/^ses_0190aa /);
    expect((await at("sessions", "result", ref)).stderr).toMatch(/^run_0190aa1 completed/);
    expect((await at("sessions", "events", ref)).exitCode).toBe(0);
    expect((await at("runs", "ls", "--session", ref)).stdout).not.toContain("other");
    expect((await at("ps", "--session", ref)).stdout).toContain("run_0190aa1");
    await at("resume", ref, "--prompt", "on");
    const { sessionId, sessionName } = fake.created[0]!;
    expect(sessionId || sessionName).toBe(form === "the name of its session" ? "hello" : "ses_0190aa");
  });
});

describe("ao stop with a session", () => {
  it("stops every run of it that has not ended, the newest first, so that none begins in between", async () => {
    const session = { sessionId: "ses_1", sessionName: "queue" };
    for (let i = 0; i < 3; i += 1) fake.addRun({ ...session, state: i === 0 ? RunState.RUNNING : RunState.PENDING });
    fake.addRun({ sessionName: "other" });
    const { stdout } = await at("stop", "queue", "--reason", "enough");
    expect(stdout.split("\n").map((line) => line.split(" ")[0])).toEqual(["run_3", "run_2", "run_1", ""]);
    expect(fake.events.map(({ runId }) => runId)).toEqual(["run_3", "run_2", "run_1"]);
    expect(fake.runs.map(({ state }) => state)).toEqual([8, 8, 8, RunState.RUNNING]);
  });

  it.each(["queue", "ses_1", "run_1", "run_"])("prints the same JSON, however it is named: %s", async (ref) => {
    fake.addRun({ sessionId: "ses_1", sessionName: "queue" });
    const json = JSON.parse((await at("stop", ref, "-o", "json")).stdout) as object;
    expect(json).toEqual({ runs: [expect.objectContaining({ run_id: "run_1", state: "RUN_STATE_STOPPED" })] });
    expect((await at("stop", ref, "-o", "name")).stdout).toBe("run_1\n");
  });
});

describe("ao, given a command that does not exist,", () => {
  it.each([
    ["runs sotp x", "runs sotp", "`ao runs stop`"],
    ["runs sotp x --grace 5s", "runs sotp", "`ao runs stop`"],
    ["-o jsonl runs lss", "runs lss", "`ao runs ls`"],
    ["sessions stop q", "sessions stop", "`ao stop`"],
    ["blueprints delete x", "blueprints delete", "`ao blueprints rm`"],
    ["runners show", "runners show", "`ao runners get`"],
    ["runs delete --help", "runs delete", "`ao runs prune`"],
    ["delete --help", "delete", "`ao sessions rm`"],
    ["version", "version", "`ao --version`"],
    ["kill x", "kill", "`ao stop`"],
    ["lgos x", "lgos", "`ao logs`"],
    ["runs nothing-like-it", "runs nothing-like-it", "`ao runs --help`"],
  ])("%s: exits 2 and names the near ones", async (line, typed, near) => {
    const { exitCode, stdout, stderr } = await at(...line.split(" "));
    expect({ exitCode, stdout }).toEqual({ exitCode: 2, stdout: "" });
    expect(stderr).toContain("unknown command");
    for (const part of [typed, near]) expect(stderr).toContain(part);
  });

  it("still prints the help of the groups, and runs their default command", async () => {
    for (const args of [["--help"], ["runs", "--help"], ["help", "runs"], ["runs", "help", "get"]]) {
      expect(await at(...args)).toMatchObject({ exitCode: 0, stdout: expect.stringMatching(/^Usage: ao/) });
    }
    fake.addRun();
    expect((await at("runs", "--limit", "1")).stdout).toContain("run_1");
  });
});
