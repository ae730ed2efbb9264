import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { AgentHook_OnError, AgentHooksSchema } from "../../gen/agentrunner/v1/blueprint_pb.ts";
import type { ExecutorEvent } from "../../gen/agentrunner/v1/executor_pb.ts";
import { FailureReason } from "../../gen/agentrunner/v1/run_pb.ts";
import { Report_Kind } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import { superviseHooked } from "../../runner/execution/hooked.ts";
import type { Changes } from "../../runner/execution/hooked.ts";
import { notSpawned } from "../../runner/execution/supervisor.ts";
import { processesOf, testEnv } from "../support/executors.ts";
import { cleanUp, tempDir } from "../support/test-runner.ts";
import { until } from "../support/until.ts";

const { COMPLETED, FAILED, STOPPED, NOT_STARTED } = Report_Kind;
const BLOCK = AgentHook_OnError.BLOCK;

let dir: string;
let env: Record<string, string>;

beforeEach(() => {
  dir = tempDir();
  env = testEnv();
});
afterEach(async () => {
  await until(() => processesOf(env).length === 0, "no process of the test is left");
  await cleanUp();
});

const sh = (script: string, ...more: string[]) => ["/bin/sh", "-c", script, ...more];

/** Runs a bash script as the executor, with hooks around it. */
function start(hooks: MessageInitShape<typeof AgentHooksSchema>, script = "echo ran; touch ran") {
  const events: ExecutorEvent[] = [];
  const started: number[] = [];
  const changes: Changes[] = [];
  const specOf = (change: Changes) => {
    changes.push(change);
    return { command: "/bin/sh", args: ["-c", script], cwd: dir, stdin: '{"prompt":"p"}', env, stopGraceMs: 300 };
  };
  const failed = (error: unknown) => notSpawned({ message: String(error), shortage: false });
  const execution = superviseHooked(
    { hooks: create(AgentHooksSchema, hooks), specOf, failed },
    { onStarted: (pid) => started.push(pid), onEvent: (event) => events.push(event) },
    {},
  );
  const statuses = () => events.flatMap(({ event }) => (event.case === "status" ? [event.value.text] : []));
  return { execution, done: execution.done, events, started, changes, statuses };
}

const has = (file: string) => existsSync(join(dir, file));

describe("on_run_start", () => {
  it("runs first, in the directory of the run, and reads what the executor reads", async () => {
    const run = start({ onRunStart: { command: sh("cat > told; test ! -e ran && echo seen >&2") } });
    expect(await run.done).toMatchObject({ kind: COMPLETED });
    expect(JSON.parse(readFileSync(join(dir, "told"), "utf8"))).toEqual({ prompt: "p", hook: "on_run_start" });
    expect(run.changes).toEqual([{}, { type: "continue" }]);
    expect(run.started).toHaveLength(1);
    const outputs = run.events.flatMap(({ event }) => (event.case === "output" ? [event.value.text] : []));
    expect(outputs).toEqual(["seen\n", "ran\n"]);
  });

  it("changes prompt and parameters, and its session and result are not the executor's", async () => {
    const answer = '{"action":"continue","prompt":"q","parameters":{"a":1}}';
    const lines = `echo '{"type":"session","executor_session_id":"x"}'; echo '{"type":"status","text":"looking"}'; echo '${answer}'`;
    const run = start({ onRunStart: { command: sh(lines) } });
    expect((await run.done).executorSessionId).toBe("");
    expect(run.changes[1]).toMatchObject({ prompt: "q", parameters: { a: 1 } });
    expect(run.events.map(({ event }) => event.case)).toEqual(["status", "output"]);
  });

  it("blocks the run", async () => {
    const run = start({ onRunStart: { command: sh(`echo '{"action":"block","block_reason":"not today"}'`) } });
    const outcome = await run.done;
    expect(outcome).toMatchObject({ kind: FAILED, failure: FailureReason.HOOK });
    expect(outcome.message).toBe("blocked by on_run_start hook: not today");
    expect(has("ran")).toBe(false);
  });

  it.each([
    ["that fails", sh("echo why >&2; exit 3"), "it exited with code 3; end of stderr: why"],
    ["that prints nonsense", sh("echo nonsense"), "its output is not JSON: "],
    ["that takes too long", sh("sleep 60"), "it ran longer than its timeout of 200 ms; it was ended by SIGTERM"],
    ["that is not there", ["./gone"], "/gone does not exist; check the path"],
    ["that is not on PATH", ["no-such-program-anywhere"], "/no-such-program-anywhere does not exist"],
  ])("%s is a status event, or blocks", async (_, command, problem) => {
    const timeout = durationFromMs(command.includes("sleep 60") ? 200 : 60_000);
    const goesOn = start({ onRunStart: { command, timeout } });
    expect(await goesOn.done).toMatchObject({ kind: COMPLETED });
    expect(goesOn.statuses()).toEqual([expect.stringContaining(problem)]);
    expect(goesOn.statuses()[0]).toMatch(/^on_run_start hook .* failed: .*; the run goes on$/s);
    const blocks = await start({ onRunStart: { command, timeout, onError: BLOCK } }).done;
    expect(blocks).toMatchObject({ kind: FAILED, failure: FailureReason.HOOK });
    expect(blocks.message).toContain(problem);
  });

  it("ends with a stop, and the executor is not started", async () => {
    const run = start({ onRunStart: { command: sh("touch begun; sleep 60") } });
    await until(() => has("begun"), "the hook runs");
    run.execution.stop(300);
    expect(await run.done).toMatchObject({ kind: STOPPED, message: "stopped before the executor was started" });
    expect(has("ran")).toBe(false);
  });

  it("leaves nothing behind", async () => {
    const run = start({ onRunStart: { command: sh("setsid sleep 60 >/dev/null 2>&1 &") } }, "echo done");
    expect(await run.done).toMatchObject({ kind: COMPLETED });
  });
});

describe("on_run_finish", () => {
  const finish = { command: sh("cat > end") };
  const end = () => JSON.parse(readFileSync(join(dir, "end"), "utf8"));

  it("hears what came of the run, also when it failed", async () => {
    const run = start({ onRunFinish: finish }, "echo no >&2; exit 4");
    expect(await run.done).toMatchObject({ kind: FAILED, failure: FailureReason.EXECUTOR_EXIT });
    expect(end()).toMatchObject({ hook: "on_run_finish", outcome: "failed", exit_code: 4 });
    expect(end().message).toContain("end of stderr: no");
  });

  it("hears of a run that was stopped, and the order to stop that comes again does not end it", async () => {
    const run = start({ onRunFinish: { command: sh("touch begun; sleep 0.1; cat > end") } }, "touch begun; sleep 60");
    await until(() => has("begun"), "the executor runs");
    run.execution.stop(300);
    const again = setInterval(() => run.execution.stop(300), 10);
    const outcome = await run.done;
    clearInterval(again);
    expect(outcome.kind).toBe(STOPPED);
    expect(end()).toMatchObject({ outcome: "stopped" });
  });

  it("changes nothing of the outcome when it fails, and has no more than the grace after a stop", async () => {
    const run = start({ onRunFinish: { command: sh("exit 5") } });
    const outcome = await run.done;
    expect(outcome).toMatchObject({ kind: COMPLETED, message: "" });
    expect(run.statuses()).toEqual([
      "on_run_finish hook /bin/sh failed: it exited with code 5; nothing on stderr; the outcome of the run stays",
    ]);
    const slow = start({ onRunFinish: { command: sh("sleep 60") } }, "touch slow; sleep 60");
    await until(() => has("slow"), "the executor runs");
    slow.execution.stop(300);
    expect(await slow.done).toMatchObject({ kind: STOPPED });
    expect(slow.statuses()[0]).toContain("it ran longer than its timeout of 300 ms");
  });

  it("ends with a stop that comes while it runs, and is not run when the runner ends", async () => {
    const run = start({ onRunFinish: { command: sh("touch last; sleep 60") } });
    await until(() => has("last"), "the hook runs");
    run.execution.stop(300);
    expect(await run.done).toMatchObject({ kind: COMPLETED });
    expect(run.statuses()[0]).toContain("stopped on request");
    const ending = start({ onRunFinish: finish }, "touch up; sleep 60");
    await until(() => has("up"), "the executor runs");
    ending.execution.stop(300, "runner-shutdown");
    expect(await ending.done).toMatchObject({ kind: STOPPED, failure: FailureReason.RUNNER_SHUTDOWN });
    expect(ending.statuses()).toEqual(["on_run_finish hook not run: the runner ends"]);
  });
});

it("what cannot be put together is an outcome, and no hook is run", async () => {
  const execution = superviseHooked(
    {
      hooks: create(AgentHooksSchema, { onRunStart: { command: sh("touch begun") } }),
      specOf: () => {
        throw new Error("broken");
      },
      failed: (error) => notSpawned({ message: String(error), shortage: true }),
    },
    { onStarted: () => undefined, onEvent: () => undefined },
    {},
  );
  expect(await execution.done).toMatchObject({ kind: NOT_STARTED, message: "Error: broken" });
  writeFileSync(join(dir, "x"), "");
  expect(has("begun")).toBe(false);
});
