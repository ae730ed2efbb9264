import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { until } from "../support/until.ts";
import { call, Home, runUntil } from "./programs.ts";

/* The README of the runner that this project comes from, from its first line to its last: what it promises is so here. */

let home: Home;
beforeEach(() => (home = new Home()));
afterEach(() => home.close());

const messages = (text: string): string[] =>
  text.split("\n").flatMap((line) => (line.startsWith("{") ? [String(JSON.parse(line).msg)] : []));

const profileOf = async (url: string, runnerId: string): Promise<string> => {
  const { runners } = await call(url, "FleetService/ListRunners", {});
  return runners.find((runner: { runner_id: string }) => runner.runner_id === runnerId)?.executor_profile;
};

describe("Start the Runner", () => {
  it("registers, waits for runs, executes one by the configured executor and reports its end", async () => {
    const coordinator = await home.coordinator();
    const { url } = coordinator;
    const runner = await home.runner(coordinator, ["-x", "test-executor", "-v"]);
    const blueprint = { name: "researcher", description: "Looks things up.", system_prompt: "You look things up." };
    await call(url, "BlueprintService/CreateBlueprint", { blueprint });
    const request = { session_name: "my-agent", agent_name: "researcher", prompt: "look" };
    const { run } = await call(url, "RunService/CreateRun", request);
    await runUntil(url, run.run_id, "COMPLETED");
    const said = await until(() => {
      const all = messages(runner.stdout() + runner.stderr());
      return all.some((one) => /ended/.test(one)) && all;
    }, "the end is logged");
    const inOrder = [
      `Connecting to Agent Coordinator at ${url}`,
      `Registered as ${runner.runnerId}`,
      "Runner started - waiting for runs",
      "Received a run (start_session)",
      "Starting session my-agent with agent researcher",
    ];
    expect(said.filter((one) => inOrder.some((line) => one.startsWith(line)))).toEqual(
      inOrder.map((line) => expect.stringContaining(line)),
    );
  });

  it("ends at Ctrl+C in order", async () => {
    const runner = await home.runner(await home.coordinator(), ["-x", "test-executor"]);
    expect(await runner.end("SIGINT")).toBe(0);
  });
});

describe("Configuration", () => {
  it("has claude-code as the default executor", async () => {
    const coordinator = await home.coordinator();
    const { runnerId } = await home.runner(coordinator, []);
    expect(await profileOf(coordinator.url, runnerId)).toBe("claude-code");
  });

  it("takes its coordinator, project directory and executor from the environment", async () => {
    const { url } = await home.coordinator();
    const env = {
      AGENT_ORCHESTRATOR_API_URL: url,
      AGENT_EXECUTOR_PATH: "executors/test-executor/ao-test-exec",
      PROJECT_DIR: home.dir,
    };
    const runner = home.open("agent-runner", [], { env });
    const [, runnerId = ""] = await runner.says(/Registered as (lnch_\w+)/);
    const { runners } = await call(url, "FleetService/ListRunners", {});
    expect(runners).toMatchObject([{ runner_id: runnerId, executor_profile: "test", project_dir: home.dir }]);
  });

  it("switches between executors by name, and lists them", async () => {
    const { code, stdout } = await home.run("agent-runner", ["--executor-list"]);
    expect(code).toBe(0);
    for (const name of ["claude-code", "test-executor"]) expect(stdout).toMatch(new RegExp(`^${name} `, "m"));
    const { code: both, stderr } = await home.run("agent-runner", ["-x", "test-executor", "-e", "/bin/true"]);
    expect([both, stderr]).toEqual([2, expect.stringMatching(/--executor .*--executor-path|exclude/s)]);
  });
});

describe("Callback Flow", () => {
  it("goes through its six steps", async () => {
    const coordinator = await home.coordinator();
    const { url } = coordinator;
    await home.runner(coordinator, ["-x", "script-agent"]);
    // 1. A run is created, and the coordinator queues it.
    const prompt = JSON.stringify({
      say: "I ask one other.",
      start: [{ name: "child", prompt: { result: "child is done" } }],
      afterwards: { result: "told" },
    });
    const { run } = await call(url, "RunService/CreateRun", { session_name: "orchestrator", prompt });
    // 2. The runner spawns the executor with mode=start, and the session's name in AGENT_SESSION_NAME.
    await runUntil(url, run.run_id, "COMPLETED");
    // 3. to 6. The child completes, the coordinator creates a run that resumes the parent, and the parent goes on.
    const runs = await until(async () => {
      const list = await call(url, "RunService/ListRuns", { session_id: run.session_id });
      return (
        list.runs.length === 2 && list.runs.every(({ state }: any) => state === "RUN_STATE_COMPLETED") && list.runs
      );
    }, "the parent was resumed and has ended");
    const [resumed] = runs;
    const { run: whole } = await call(url, "RunService/GetRun", { run_id: resumed.run_id });
    expect(whole).toMatchObject({ mode: "INVOCATION_MODE_RESUME", result: { text: "told" } });
    const { session: child } = await call(url, "SessionService/GetSession", { session_name: "child" });
    expect(child.parent_session_id).toBe(run.session_id);
  });
});
