import { readFileSync, writeFileSync } from "node:fs";
import { afterEach, beforeEach, expect, it } from "vitest";
import { readFileIfThere } from "../../lib/read-file.ts";
import { BOOT_VARIABLE } from "../../runner/environment.ts";
import { processesMarked } from "../../runner/processes.ts";
import { until } from "../support/until.ts";
import { Home, executor } from "./programs.ts";

let home: Home;
beforeEach(() => (home = new Home()));
afterEach(() => home.close());

/** `ao` with JSON answers, against a coordinator. */
function client({ url }: { url: string }) {
  const ao = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await home.run("ao", ["-c", url, ...args]);
    if (code !== 0) throw new Error(`ao ${args.join(" ")} ended with ${code}: ${stderr}`);
    return stdout;
  };
  const json = async (...args: string[]) => JSON.parse(await ao("-o", "json", ...args));
  const run = (runId: string) => json("runs", "get", runId);
  return {
    json,
    run,
    /** The run once it has ended, or is in the state named. */
    until: (runId: string, state: string) =>
      until(async () => {
        const found = await run(runId);
        return found.state === `RUN_STATE_${state}` && found;
      }, `${runId} is ${state}`),
    /** Events of a session in the order of their cursors, one by one. */
    events: async (session: string) =>
      (await ao("-o", "jsonl", "sessions", "events", session))
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line)),
  };
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

/** Processes of executors that belong to this test. */
const executors = () =>
  processesMarked([`HOME=${home.dir}`]).filter((pid) =>
    (readFileIfThere(`/proc/${pid}/environ`) ?? "").includes(`${BOOT_VARIABLE}=`),
  );

it("a coordinator that is killed and started again does not disturb an executor, and records its end once", async () => {
  const coordinator = await home.coordinator();
  await home.runner(coordinator, ["--executor-path", executor("ticks")]);
  const before = client(coordinator);
  const { run_id: runId } = await before.json("start", "ticking", "--prompt", "tick");
  await until(() => ticks().length >= 3, "the executor works");
  const [pid] = ticks()[0]!;
  await coordinator.end("SIGKILL");
  const alone = ticks().length;
  await until(() => ticks().length >= alone + 3, "the executor goes on without a coordinator");
  const again = await home.coordinator([], coordinator.port);
  await until(() => client(again).run(runId), "the coordinator knows the run");
  writeFileSync(home.path("project/enough"), "");
  const run = await client(again).until(runId, "COMPLETED");

  expect(run.result.text).toBe(`${ticks().length} ticks`);
  expect(run.attempts).toHaveLength(1);
  expect(run.attempts[0].pid).toBe(pid);
  expect(
    ticks().map(([writer, count]) => [writer, count]),
    "one process counted, and missed nothing",
  ).toEqual(ticks().map((_, i) => [pid, i + 1]));
  const events = await client(again).events("ticking");
  expect(transitions(events, runId)).toEqual(["PENDING", "CLAIMED", "RUNNING", "COMPLETED"]);
  const output = events.flatMap(({ executor }) => executor?.output?.text ?? []).join("");
  expect(output, "every line that it printed, once and in order").toBe(
    ticks()
      .map((_, i) => `tick ${i + 1}\n`)
      .join(""),
  );
  expect(events.at(-1).transition.state).toBe("RUN_STATE_COMPLETED");
  expect(new Set(events.map(({ cursor }) => cursor)).size).toBe(events.length);
});

it.skipIf(process.platform !== "linux")(
  "a runner that is killed leaves no executor behind; its successor settles its runs at once, and repeats those that may be",
  async () => {
    // A lease that outlives the test: only the successor can be the one that settles.
    const coordinator = await home.coordinator(["--lease-ttl", "5m"]);
    const flags = ["--executor-path", executor("ticks")];
    const first = await home.runner(coordinator, flags);
    const { json, until: untilState, events } = client(coordinator);
    const failing = await json("start", "failing", "--prompt", "tick");
    const repeated = await json("start", "repeated", "--prompt", "tick", "--on-lost", "retry", "--max-attempts", "2");
    await until(() => new Set(ticks().map(([pid]) => pid)).size === 2, "both executors work");
    expect(executors().length).toBeGreaterThanOrEqual(2);

    await first.end("SIGKILL");
    await until(() => executors().length === 0, "no executor is left", 5_000);
    const written = readFileSync(home.path("project/ticks"), "utf8");
    const second = await home.runner(coordinator, flags);
    expect(second.runnerId).toBe(first.runnerId);
    const lost = await untilState(failing.run_id, "FAILED");
    expect(lost.failure).toBe("FAILURE_REASON_LOST");
    await until(() => readFileSync(home.path("project/ticks"), "utf8") !== written, "the other run is repeated");
    writeFileSync(home.path("project/enough"), "");
    const done = await untilState(repeated.run_id, "COMPLETED");
    expect(done.attempts.map(({ outcome }: { outcome: string }) => outcome)).toEqual([
      "RUN_STATE_PENDING",
      "RUN_STATE_COMPLETED",
    ]);
    expect(transitions(await events("failing"), failing.run_id)).toEqual(["PENDING", "CLAIMED", "RUNNING", "FAILED"]);
    expect(transitions(await events("repeated"), repeated.run_id)).toEqual([
      ...["PENDING", "CLAIMED", "RUNNING"],
      ...["PENDING", "CLAIMED", "RUNNING", "COMPLETED"],
    ]);
  },
);

it("a session is resumed with the executor's own id after everything was ended and started again", async () => {
  const flags = ["--executor-path", executor("remembers")];
  let coordinator = await home.coordinator();
  let runner = await home.runner(coordinator, flags);
  const { run_id: firstId } = await client(coordinator).json("start", "long", "--prompt", "begin");
  const first = await client(coordinator).until(firstId, "COMPLETED");
  expect(JSON.parse(first.result.text)).toMatchObject({ mode: "start", prompt: "begin", session_name: "long" });
  const { executor_session_id: given } = await client(coordinator).json("sessions", "get", "long");
  expect(given).toMatch(/^conversation-\d+$/);
  expect([await runner.end("SIGTERM"), await coordinator.end("SIGTERM")]).toEqual([0, 0]);

  coordinator = await home.coordinator();
  runner = await home.runner(coordinator, flags);
  const { run_id: secondId } = await client(coordinator).json("resume", "long", "--prompt", "go on");
  const second = await client(coordinator).until(secondId, "COMPLETED");
  expect(JSON.parse(second.result.text)).toMatchObject({
    mode: "resume",
    prompt: "go on",
    session_id: first.session_id,
    executor_session_id: given,
  });
  expect((await client(coordinator).json("sessions", "get", "long")).executor_session_id).toBe(given);
});

it("a run that somebody follows with `ao dev` running is stopped by somebody else, and ends so: exit 5", async () => {
  const dev = home.start(["npx", "ao", "dev", "--listen", "127.0.0.1:0", "--memory"]);
  const [, url = ""] = await dev.says(/coordinator +(http:\S+)[^]*stop +Ctrl/);
  const env = { AGENT_ORCHESTRATOR_API_URL: url };
  const following = home.start(["npx", "ao", "start", "--prompt", "print up; sleep 10m", "--follow"], { env });
  await following.says(/^up$/m);
  const [, runId = ""] = await following.says(/run +(run_\w+)/);
  expect(await home.run("ao", ["runs", "stop", runId, "--reason", "enough"], { env })).toMatchObject({ code: 0 });
  expect(await following.ended).toMatchObject({ code: 5, stderr: expect.stringMatching(/stopped after/) });
  dev.end("SIGTERM");
  expect((await dev.ended).code).toBe(0);
});
