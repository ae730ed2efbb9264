import { readdirSync, statSync, writeFileSync } from "node:fs";
import { afterEach, beforeEach, expect, it } from "vitest";
import { readFileIfThere } from "../../lib/config/read-file.ts";
import { processesMarked } from "../../runner/execution/processes.ts";
import { until } from "../support/until.ts";
import { Home, call, executor, runUntil, skipAloud } from "./programs.ts";

let home: Home;
beforeEach(() => (home = new Home()));
afterEach(() => home.close());

async function createRun(url: string, request: object): Promise<string> {
  const { run } = await call(url, "RunService/CreateRun", request);
  return run.run_id;
}

async function getSession(url: string, name: string): Promise<any> {
  const { session } = await call(url, "SessionService/GetSession", { session_name: name });
  return session;
}

async function eventsOf(url: string, name: string): Promise<any[]> {
  const { session_id } = await getSession(url, name);
  const { events } = await call(url, "SessionService/ListSessionEvents", { session_id, page_size: 1000 });
  return events;
}

/** States that a run went through, by its events. */
function transitions(events: { transition?: { state: string }; run_id: string }[], runId: string): string[] {
  return events.flatMap(({ transition, run_id }) =>
    transition !== undefined && run_id === runId ? [transition.state.replace("RUN_STATE_", "")] : [],
  );
}

const ticks = () =>
  (readFileIfThere(home.path("project/ticks")) ?? "")
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => line.split(" ").map(Number) as [pid: number, count: number]);

/** Processes of the executors of these runs. */
const executors = (...runIds: string[]) => runIds.flatMap((runId) => processesMarked([`AGENT_RUN_ID=${runId}`]));

it("a store, with its prompts and its key, can be read by its owner alone", async () => {
  await home.coordinator();
  const files = readdirSync(home.dir).filter((name) => name.startsWith("store.db"));
  expect(files.length).toBeGreaterThan(0);
  for (const name of files) expect(statSync(home.path(name)).mode & 0o077, name).toBe(0);
});

it("a coordinator that is killed and started again does not disturb an executor, and records its end once", async () => {
  const coordinator = await home.coordinator();
  const { url } = coordinator;
  await home.runner(coordinator, ["--executor-path", executor("ticks")]);
  const runId = await createRun(url, { session_name: "ticking", prompt: "tick" });
  await until(() => ticks().length >= 3, "the executor works");
  await runUntil(url, runId, "RUNNING");
  const [[pid] = []] = ticks();
  await coordinator.end("SIGKILL");
  const alone = ticks().length;
  await until(() => ticks().length >= alone + 3, "the executor goes on without a coordinator");
  await home.coordinator([], coordinator.port);
  writeFileSync(home.path("project/enough"), "");
  const run = await runUntil(url, runId, "COMPLETED");

  const counts = ticks().map((_, i) => i + 1);
  expect(ticks(), "one process counted, from the first to the last").toEqual(counts.map((count) => [pid, count]));
  expect(run.result.text).toBe(`${counts.length} ticks`);
  expect(run.attempts).toMatchObject([{ attempt: 1, pid }]);
  const events = await eventsOf(url, "ticking");
  expect(transitions(events, runId)).toEqual(["PENDING", "CLAIMED", "RUNNING", "COMPLETED"]);
  expect(events.at(-1).transition.state, "nothing comes after the end").toBe("RUN_STATE_COMPLETED");
  const output = events.map((event) => event.executor?.output?.text ?? "").join("");
  expect(output, "what it printed, once and in order").toBe(counts.map((count) => `tick ${count}\n`).join(""));
});

it("a runner that is killed leaves no executor behind; its successor settles its runs at once, and repeats those that may be", async ({
  skip,
}) => {
  if (process.platform !== "linux") skipAloud(skip, "executors are counted in /proc, which is Linux only");
  // A lease that outlives the test: only the successor can be the one that settles.
  const coordinator = await home.coordinator(["--lease-ttl", "5m"]);
  const { url } = coordinator;
  const flags = ["--executor-path", executor("ticks")];
  const first = await home.runner(coordinator, flags);
  const failing = await createRun(url, { session_name: "failing", prompt: "tick" });
  const onLost = { policy: "POLICY_RETRY", max_attempts: 2 };
  const repeated = await createRun(url, { session_name: "repeated", prompt: "tick", on_lost: onLost });
  const workers = () => new Set(ticks().map(([pid]) => pid));
  await until(() => workers().size === 2, "both executors work");
  for (const runId of [failing, repeated]) await runUntil(url, runId, "RUNNING");
  expect(executors(failing, repeated)).toEqual(expect.arrayContaining([...workers()]));

  await first.end("SIGKILL");
  await until(() => executors(failing, repeated).length === 0, "no executor is left");
  const second = await home.runner(coordinator, flags);
  expect(second.runnerId).toBe(first.runnerId);
  const lost = await runUntil(url, failing, "FAILED");
  expect(lost).toMatchObject({ failure: "FAILURE_REASON_LOST" });
  await until(() => workers().size === 3, "the other run is repeated");
  writeFileSync(home.path("project/enough"), "");
  const done = await runUntil(url, repeated, "COMPLETED");
  expect(done.attempts).toMatchObject([{ outcome: "RUN_STATE_PENDING" }, { outcome: "RUN_STATE_COMPLETED" }]);
  const lostLife = transitions(await eventsOf(url, "failing"), failing);
  expect(lostLife).toEqual(["PENDING", "CLAIMED", "RUNNING", "FAILED"]);
  const repeatedLife = transitions(await eventsOf(url, "repeated"), repeated);
  const attempt = ["PENDING", "CLAIMED", "RUNNING"];
  expect(repeatedLife).toEqual([...attempt, ...attempt, "COMPLETED"]);
});

it("a session is resumed with the executor's own id after everything was ended and started again", async () => {
  const startBoth = async () => {
    const coordinator = await home.coordinator();
    return { coordinator, runner: await home.runner(coordinator, ["--executor-path", executor("remembers")]) };
  };
  const { coordinator, runner } = await startBoth();
  const firstId = await createRun(coordinator.url, { session_name: "long", prompt: "begin" });
  const first = await runUntil(coordinator.url, firstId, "COMPLETED");
  expect(JSON.parse(first.result.text)).toMatchObject({ mode: "start", prompt: "begin", session_name: "long" });
  const { session_id, executor_session_id } = await getSession(coordinator.url, "long");
  expect(executor_session_id).toMatch(/^conversation-\d+$/);
  expect([await runner.end("SIGTERM"), await coordinator.end("SIGTERM")]).toEqual([0, 0]);

  const { url } = (await startBoth()).coordinator;
  const secondId = await createRun(url, { session_name: "long", prompt: "go on" });
  const second = await runUntil(url, secondId, "COMPLETED");
  const invocation = { mode: "resume", prompt: "go on", session_id, executor_session_id };
  expect(JSON.parse(second.result.text)).toMatchObject(invocation);
  expect(await getSession(url, "long")).toMatchObject({ executor_session_id, status: "SESSION_STATUS_IDLE" });
});

it("a run that somebody follows with `ao dev` running is stopped by somebody else, and ends so: exit 5", async () => {
  const dev = home.open("ao", ["dev", "--listen", "127.0.0.1:0", "--memory"]);
  const [, url = ""] = await dev.says(/coordinator +(http:\S+)[^]*stop +Ctrl/);
  const env = { AGENT_ORCHESTRATOR_API_URL: url };
  const following = home.open("ao", ["start", "--prompt", "print up; sleep 10m", "--follow"], { env });
  await following.says(/^up$/m);
  const [, runId = ""] = await following.says(/run +(run_\w+)/);
  expect(await home.run("ao", ["runs", "stop", runId, "--reason", "enough"], { env })).toMatchObject({ code: 0 });
  expect(await following.ended).toMatchObject({ code: 5, stderr: expect.stringMatching(/stopped after/) });
  expect(await dev.end("SIGTERM")).toBe(0);
});
