import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { afterEach, beforeEach, expect, it } from "vitest";
import { ExecutionMode, FailureReason, RunState } from "../../../gen/agentrunner/v1/run_pb.ts";
import { SessionStatus } from "../../../gen/agentrunner/v1/session_pb.ts";
import { executor, Home, call, runUntil } from "../../e2e/programs.ts";
import { nameOf, present, startTestCoordinator, stopTestCoordinators } from "../../support/coordinator.ts";
import type { TestCoordinator } from "../../support/coordinator.ts";
import { isAlive } from "../../executor/executors-support.ts";
import { until } from "../../support/until.ts";

/* The cases of acceptance.test.ts that need real runners and real executors. */

let home: Home;
beforeEach(() => (home = new Home()));
afterEach(async () => {
  await home.close();
  await stopTestCoordinators();
});

const TEST_EXECUTOR = ["--executor", "test-executor"];

/** States of the session's runs, oldest first. */
async function statesOf(coordinator: TestCoordinator, sessionId: string): Promise<string[]> {
  const { runs } = await coordinator.runs.listRuns({ sessionId, pageSize: 1000 });
  return runs.map(({ state }) => nameOf(RunState, state)).toReversed();
}

it("1. A hundred resumes of a session, a process for each, all complete, and no run ends before it starts", async () => {
  const coordinator = await startTestCoordinator();
  await home.runner(coordinator, ["--executor-path", "/bin/cat"]);
  const { sessionId } = await coordinator.create();
  for (let turn = 1; turn <= 100; turn += 1) await coordinator.create({ sessionId, prompt: `turn ${turn}` });
  const all = async () => (await statesOf(coordinator, sessionId)).every((state) => state === "COMPLETED");
  await until(all, "every turn has completed");
  const { runs } = await coordinator.runs.listRuns({ sessionId, pageSize: 1000 });
  expect(runs).toHaveLength(101);
  for (const { startedAt, endedAt } of runs) {
    expect(timestampMs(present(startedAt))).toBeLessThanOrEqual(timestampMs(present(endedAt)));
  }
});

it("4. A coordinator that restarts during a run loses neither the agent nor its end, which is stored once", async () => {
  const flags = ["--lease-ttl", "1m", "--restart-grace", "1m"];
  const coordinator = await home.coordinator(flags);
  await home.runner(coordinator, TEST_EXECUTOR);
  const prompt = "wait-for-file enough; result went on";
  const { run } = await call(coordinator.url, "RunService/CreateRun", { prompt });
  await runUntil(coordinator.url, run.run_id, "RUNNING");
  await coordinator.end("SIGKILL");
  writeFileSync(home.path("project/enough"), "");
  const { url } = await home.coordinator(flags, coordinator.port);
  expect(await runUntil(url, run.run_id, "COMPLETED")).toMatchObject({ attempt: 1, result: { text: "went on" } });
  const { session_id } = run;
  const { events } = await call(url, "SessionService/ListSessionEvents", { session_id, page_size: 1000 });
  const states = events.flatMap(({ transition }: any) => (transition === undefined ? [] : [transition.state]));
  expect(states).toEqual(["PENDING", "CLAIMED", "RUNNING", "COMPLETED"].map((state) => `RUN_STATE_${state}`));
});

it("5. A stop in the third turn ends that turn's process, and run and session end as stopped", async () => {
  const coordinator = await startTestCoordinator();
  await home.runner(coordinator, TEST_EXECUTOR);
  const { sessionId } = await coordinator.create({ prompt: "result one" });
  await coordinator.create({ sessionId, prompt: "result two" });
  const third = await coordinator.create({ sessionId, prompt: "sleep 10m" });
  const running = await coordinator.reached(third.runId, "RUNNING");
  const pid = present(running.attempts[0]).pid;
  expect(isAlive(pid)).toBe(true);
  await coordinator.runs.stopRun({ runId: third.runId });
  await coordinator.reached(third.runId, "STOPPED");
  expect(isAlive(pid)).toBe(false);
  expect(await statesOf(coordinator, sessionId)).toEqual(["COMPLETED", "COMPLETED", "STOPPED"]);
  const { session } = await coordinator.sessions.getSession({ sessionId });
  expect(session?.status).toBe(SessionStatus.STOPPED);
});

it("7. A runner that is killed restarts at once: who waits is answered, API and store agree, and the parent is told", async () => {
  // A lease that outlives the test: only the runner's return can settle what it held.
  const coordinator = await startTestCoordinator({ leaseTtlMs: 300_000 });
  const first = await home.runner(coordinator, TEST_EXECUTOR);
  const parent = await coordinator.create({ prompt: "wait-for-file enough" });
  const child = await coordinator.create({
    prompt: "sleep 10m",
    parentSessionId: parent.sessionId,
    executionMode: ExecutionMode.ASYNC_CALLBACK,
  });
  await coordinator.reached(parent.runId, "RUNNING");
  writeFileSync(home.path("project/enough"), "");
  await coordinator.reached(parent.runId, "COMPLETED");
  await coordinator.reached(child.runId, "RUNNING");
  const waiting = coordinator.watched(child.runId);

  await first.end("SIGKILL");
  const second = await home.runner(coordinator, TEST_EXECUTOR);
  expect(second.runnerId).toBe(first.runnerId);
  const last = (await waiting).findLast(({ update }) => update.case === "run");
  const lost = { state: RunState.FAILED, failure: FailureReason.LOST };
  expect(last?.update.value).toMatchObject(lost);
  expect(await coordinator.run(child.runId)).toMatchObject(lost);
  expect((await coordinator.store.getRun(child.runId))?.run).toMatchObject(lost);
  const told = async () => (await statesOf(coordinator, parent.sessionId)).join() === "COMPLETED,COMPLETED";
  await until(told, "the parent was resumed and has completed");
  const { result } = await coordinator.sessions.getSessionResult({ sessionId: parent.sessionId });
  expect(result?.text).toContain(`session="${child.sessionId}"`);
});

it("11. A hook before the run needs no second runner, and no second slot of the one that there is", async () => {
  const coordinator = await startTestCoordinator({ agentsDir: home.path("agents") });
  const hook = home.path("hook");
  writeFileSync(
    hook,
    `#!/bin/sh\ncat > ${home.path("told")}\necho '{"action":"continue","prompt":"result changed"}'\n`,
  );
  chmodSync(hook, 0o755);
  mkdirSync(home.path("agents/hooked"), { recursive: true });
  const agent = {
    hooks: {
      on_run_start: { command: [hook] },
      on_run_finish: { command: ["/bin/sh", "-c", `cat > ${home.path("end")}`] },
    },
  };
  writeFileSync(home.path("agents/hooked/agent.json"), JSON.stringify(agent));
  await home.runner(coordinator, [...TEST_EXECUTOR, "--max-runs", "1"]);
  const { runId } = await coordinator.create({ agentName: "hooked", prompt: "result first" });
  const { result } = await coordinator.reached(runId, "COMPLETED");
  expect(result?.text).toBe("changed");
  const told = (name: string) => JSON.parse(readFileSync(home.path(name), "utf8"));
  expect(told("told")).toMatchObject({ hook: "on_run_start", run_id: runId, prompt: "result first" });
  expect(told("end")).toMatchObject({ hook: "on_run_finish", outcome: "completed", result: { text: "changed" } });
});

it("12. An executor that writes 10 MB to stdout and to stderr finishes", async () => {
  const coordinator = await startTestCoordinator();
  await home.runner(coordinator, TEST_EXECUTOR);
  const prompt = "flood 10MB; flood 10MB stderr; print .; result dry";
  const { runId, sessionId } = await coordinator.create({ prompt });
  const { result } = await coordinator.reached(runId, "COMPLETED");
  expect(result?.text === "dry", "the result is the one that it gave").toBe(true);
  let bytes = 0;
  for (let cursor = "", more = true; more;) {
    const page = await coordinator.sessions.listSessionEvents({ sessionId, cursor, pageSize: 1000 });
    for (const { event } of page.events) {
      if (event.case !== "executor") continue;
      const { event: said } = event.value;
      if (said.case === "output") bytes += Buffer.byteLength(said.value.text);
      // What the coordinator could not take in time is given up and counted, so that the executor need not wait.
      if (said.case === "dropped") bytes += Number(said.value.bytes);
    }
    [cursor, more] = [page.nextCursor, page.more];
  }
  expect(bytes, "kept or counted").toBeGreaterThanOrEqual(20_000_002);
});

it("15. A session goes on after its executor has ended and its runner was killed: mode resume, with the executor's own id", async () => {
  const coordinator = await startTestCoordinator();
  const flags = ["--executor-path", executor("remembers")];
  const first = await home.runner(coordinator, flags);
  const { runId, sessionId } = await coordinator.create({ prompt: "begin" });
  await coordinator.reached(runId, "COMPLETED");
  await first.end("SIGKILL");
  await home.runner(coordinator, flags);
  const again = await coordinator.create({ sessionId, prompt: "go on" });
  const { result } = await coordinator.reached(again.runId, "COMPLETED");
  const { session } = await coordinator.sessions.getSession({ sessionId });
  expect(session?.executorSessionId).toMatch(/^conversation-\d+$/);
  const invocation = { mode: "resume", prompt: "go on", executor_session_id: session?.executorSessionId };
  expect(JSON.parse(result?.text ?? "")).toMatchObject(invocation);
});
