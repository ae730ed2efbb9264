import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { ExecutorEvent } from "../../gen/agentrunner/v1/executor_pb.ts";
import { FailureReason } from "../../gen/agentrunner/v1/run_pb.ts";
import { Report_Kind } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import { hasEnded } from "../../runner/execution/processes.ts";
import { supervise } from "../../runner/execution/supervisor.ts";
import type { ExecutionSpec, SupervisorDeps } from "../../runner/execution/supervisor.ts";
import { fixture, processesOf, testEnv } from "../support/executors.ts";
import { EVENT_CHUNK_MAX_BYTES } from "../../lib/protocol/limits.ts";
import { until } from "../support/until.ts";

const { COMPLETED, FAILED, STOPPED } = Report_Kind;

let dir: string;
let env: Record<string, string>;

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "supervisor-"));
  env = testEnv();
});

afterEach(async () => {
  rmSync(dir, { recursive: true, force: true });
  await until(() => processesOf(env).length === 0, "no process of the test is left");
});

/** Supervises a fixture, with timings that suit a test. */
function start(name: string, options: Partial<ExecutionSpec> = {}, deps: SupervisorDeps = {}) {
  const events: ExecutorEvent[] = [];
  const started: number[] = [];
  const timings = { stopGraceMs: 300, resultGraceMs: 200, orphanGraceMs: 200, pipeDrainMs: 1_000 };
  const execution = supervise(
    { command: fixture(name), cwd: dir, stdin: "", env, ...timings, ...options },
    { onStarted: (pid) => started.push(pid), onEvent: (event) => events.push(event) },
    deps,
  );
  const printed = (stream?: 1 | 2) => {
    const texts = events.map(({ event }) =>
      event.case === "output" && event.value.stream !== stream ? event.value : null,
    );
    return texts.map((value) => value?.text ?? "").join("");
  };
  return { execution, events, started, printed, done: execution.done };
}

/** Runs a bash script as the executor. */
function bash(script: string, options: Partial<ExecutionSpec> = {}, deps: SupervisorDeps = {}) {
  return start("eval-stdin", { ...options, stdin: script }, deps);
}

describe("an executor that ends by itself", () => {
  it("completes with exit 0, and its plain stdout is the result", async () => {
    const run = bash("echo hello");
    const outcome = await run.done;
    expect(outcome).toMatchObject({ kind: COMPLETED, message: "", failure: 0, outputBytes: 6 });
    expect(outcome.exit).toMatchObject({ code: 0, signal: "", forced: false, outputTruncated: false });
    expect(outcome.result?.text).toBe("hello\n");
    expect(run.started).toEqual([run.execution.pid]);
  });

  it("gets its stdin whole, its directory and its environment", async () => {
    const { done } = start("eval-stdin", { stdin: `pwd; echo "$AGENT_RUN_ID"; : ${"x".repeat(200_000)}` });
    expect((await done).result?.text).toBe(`${dir}\nrun_t\n`);
  });

  it("fails with its code, the end of stderr, and a result that is kept", async () => {
    const { done } = bash(`echo '{"type":"result","text":"half of it"}'; echo 'no such model' >&2; exit 3`);
    const outcome = await done;
    expect(outcome).toMatchObject({ kind: FAILED, failure: FailureReason.EXECUTOR_EXIT });
    expect(outcome.message).toBe("executor exited with code 3; end of stderr: no such model");
    expect(outcome.result?.text).toBe("half of it");
  });

  it("fails for its environment with exit 75", async () => {
    expect(await bash("exit 75").done).toMatchObject({ kind: FAILED, failure: FailureReason.ENVIRONMENT });
  });

  it("fails for a signal that the runner did not send", async () => {
    const outcome = await bash("kill -s SEGV $$").done;
    expect(outcome).toMatchObject({ kind: FAILED, failure: FailureReason.SIGNAL, exit: { signal: "SIGSEGV" } });
  });

  it("is heard while it runs: output within a moment, events in their order", async () => {
    const run = bash(`echo one; echo '{"type":"status","text":"busy"}'; echo two; sleep 60`);
    await until(() => run.printed() === "one\ntwo\n", "the output is delivered while the executor runs");
    expect(run.events.map(({ event }) => event.case)).toEqual(["output", "status", "output"]);
    run.execution.stop(0);
    await run.done;
  });
});

describe("stop", () => {
  it("ends the whole group with SIGTERM", async () => {
    const run = bash("sleep 60 & echo ready; wait");
    await until(() => run.printed() !== "", "ready");
    run.execution.stop(5_000);
    const outcome = await run.done;
    expect(outcome).toMatchObject({
      kind: STOPPED,
      failure: 0,
      message: "stopped on request; it was ended by SIGTERM",
    });
  });

  it("is a stop even if the executor then exits with 0", async () => {
    const run = bash("trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done");
    await until(() => run.printed() !== "", "ready");
    run.execution.stop(5_000);
    const outcome = await run.done;
    expect(outcome).toMatchObject({ kind: STOPPED, exit: { code: 0 } });
  });

  it("kills what ignores SIGTERM when the grace is over; a repetition shortens the grace and never lengthens it", async () => {
    const run = start("ignores-term");
    await until(() => run.printed() !== "", "ready");
    const before = performance.now();
    run.execution.stop(60_000);
    run.execution.stop(200);
    run.execution.stop(60_000, "runner-shutdown");
    const outcome = await run.done;
    // Half of the longer grace: it was not waited for.
    expect(performance.now() - before).toBeLessThan(30_000);
    expect(outcome).toMatchObject({ kind: STOPPED, failure: 0, exit: { signal: "SIGKILL" } });
    expect(outcome.message).toMatch(/^stopped on request; it was ended by SIGKILL, \d{3} ms after SIGTERM$/);
    run.execution.stop(0);
  });

  it("says when it was the runner that had to end", async () => {
    const run = bash("echo ready; sleep 60");
    await until(() => run.printed() !== "", "ready");
    run.execution.stop(1_000, "runner-shutdown");
    expect(await run.done).toMatchObject({ kind: STOPPED, failure: FailureReason.RUNNER_SHUTDOWN });
  });

  it("leaves an executor its own outcome that had ended before the signal", async () => {
    const run = start("exits-at-once");
    // Holds the event loop, so that the end is not known from an event.
    const deadline = performance.now() + 5_000;
    while (!hasEnded(run.execution.pid!) && performance.now() < deadline);
    run.execution.stop(1_000);
    expect(await run.done).toMatchObject({ kind: COMPLETED, exit: { code: 0 } });
  });

  it("ends what an executor left behind at once, and leaves it its own outcome", async () => {
    const run = bash("sleep 60 & echo ready; exit 0", { orphanGraceMs: 60_000 });
    await until(() => run.printed() !== "" && hasEnded(run.execution.pid!), "the leader is gone");
    await until(() => processesOf(env).length === 1, "its child is left");
    run.execution.stop(1_000);
    expect(await run.done).toMatchObject({ kind: COMPLETED, exit: { code: 0, outputTruncated: true } });
  });

  it("finds what left the group and holds its pipes", async () => {
    const run = start("leaves-group");
    await until(() => run.printed() !== "", "ready");
    run.execution.stop(500);
    expect(await run.done).toMatchObject({ kind: STOPPED });
    expect(processesOf(env)).toEqual([]);
  });
});

describe("a watchdog", () => {
  it("completes a run that gave its result and does not exit, and says that it was forced", async () => {
    const outcome = await start("hangs-after-result").done;
    expect(outcome).toMatchObject({ kind: COMPLETED, executorSessionId: "conversation-1", exit: { forced: true } });
    expect(outcome.result).toMatchObject({ text: "done", data: { files: 2 } });
    expect(outcome.message).toBe("executor gave its result but did not exit within 200 ms; it was ended by SIGTERM");
  });

  it("fails a run that takes longer than its timeout", async () => {
    const outcome = await bash("while :; do echo alive; sleep 0.05; done", { timeoutMs: 300, idleTimeoutMs: 5_000 })
      .done;
    expect(outcome).toMatchObject({ kind: FAILED, failure: FailureReason.TIMEOUT });
    expect(outcome.message).toContain("ran longer than its timeout of 300 ms; it was ended by SIGTERM");
  });

  it("fails a run that prints nothing for longer than its idle timeout, and output puts that off", async () => {
    const quiet = bash("echo once; sleep 60", { idleTimeoutMs: 200, env: { ...env, AGENT_RUN_ID: "run_quiet" } });
    const busy = bash("for i in 1 2 3 4 5 6 7 8; do echo $i >&2; sleep 0.1; done", { idleTimeoutMs: 500 });
    expect(await quiet.done).toMatchObject({ kind: FAILED, failure: FailureReason.IDLE });
    expect(await busy.done).toMatchObject({ kind: COMPLETED });
  });

  it("does not shorten the grace of a stop", async () => {
    const run = bash("trap 'sleep 0.5; echo saved; exit 0' TERM; echo ready; while :; do sleep 0.05; done", {
      idleTimeoutMs: 300,
      stopGraceMs: 0,
    });
    await until(() => run.printed() !== "", "ready");
    run.execution.stop(5_000);
    expect(await run.done).toMatchObject({ kind: STOPPED, exit: { code: 0 } });
    expect(run.printed()).toContain("saved\n");
  });
});

describe("what outlives the executor", () => {
  it("is ended after a grace when it holds the pipes", async () => {
    const outcome = await bash("sleep 60 & echo hi; exit 3").done;
    expect(outcome).toMatchObject({ kind: FAILED, exit: { code: 3, outputTruncated: true } });
  });

  it("is ended after a grace when only its group tells of it, with SIGKILL if it must", async () => {
    const outcome = await bash("(trap '' TERM; while :; do sleep 0.05; done) >/dev/null 2>&1 & exit 0").done;
    expect(outcome).toMatchObject({ kind: COMPLETED, exit: { code: 0, outputTruncated: true } });
    expect(outcome.message).toBe("executor left processes behind, which were ended");
  });

  it("is no matter when it ends by itself within the grace, and its last words are kept", async () => {
    const outcome = await bash("(sleep 0.3; echo last words) & exit 0", { orphanGraceMs: 5_000 }).done;
    expect(outcome).toMatchObject({ kind: COMPLETED, message: "", exit: { outputTruncated: false } });
    expect(outcome.result?.text).toBe("last words\n");
  });

  it("is ended and named when it left the group of a run that nobody stopped", async () => {
    const run = bash("setsid sleep 60 & echo hi; exit 0");
    const { message, ...outcome } = await run.done;
    expect(outcome).toMatchObject({ kind: COMPLETED, result: { text: "hi\n" }, exit: { outputTruncated: false } });
    expect(message).toMatch(/^executor left processes behind, which were ended: \d+ \((sleep|setsid)\)$/);
    expect(processesOf(env)).toEqual([]);
  });

  it("has SIGTERM and a grace to end in order, and SIGKILL after it", async () => {
    const stubborn = `trap "" TERM; echo ready >&3; sleep 60`;
    const run = bash(`exec 3>&1; setsid bash -c '${stubborn}' & read -t 5 <&0; sleep 0.5; exit 3`);
    const { message, ...outcome } = await run.done;
    expect(outcome).toMatchObject({ kind: FAILED, exit: { code: 3 } });
    expect(message).toContain("executor left processes behind, which were ended: ");
    expect(processesOf(env)).toEqual([]);
  });
});

describe("the executor zoo", () => {
  it.each([
    ["never-reads-stdin", { kind: COMPLETED, result: { text: "never read\n" } }],
    ["exits-at-once", { kind: COMPLETED, result: undefined }],
    ["half-a-line", { kind: COMPLETED, result: { text: '{"type":"result","te' }, malformedEvents: 0 }],
    ["closes-stdout", { kind: FAILED, exit: { code: 4, outputTruncated: false }, result: { text: "before\n" } }],
  ])("%s ends in one defined way, with 4 MB of stdin", async (name, expected) => {
    expect(await start(name, { stdin: "x".repeat(4_000_000) }).done).toMatchObject(expected);
  });

  it("10 MB on each stream at once all arrive", async () => {
    const run = start("floods", { stdin: "10000000" });
    const outcome = await run.done;
    expect(outcome).toMatchObject({ kind: COMPLETED, outputBytes: 20_000_000 });
    expect(run.printed()).toHaveLength(20_000_000);
    expect(outcome.result?.text).toMatch(/of 10000000 bytes shown\]$/);
  });

  it("200 MB on each stream without a newline are cut into events of a bounded size, up to the bound of a run", async () => {
    let largest = 0;
    let chars = 0;
    const execution = supervise(
      { command: fixture("floods"), cwd: dir, stdin: "200000000", env },
      {
        onStarted: () => undefined,
        onEvent: ({ event }) => {
          if (event.case !== "output") return;
          chars += event.value.text.length;
          largest = Math.max(largest, event.value.text.length);
        },
      },
    );
    const outcome = await execution.done;
    expect(outcome).toMatchObject({ kind: COMPLETED, outputBytes: 400_000_000 });
    expect(chars).toBe(64 * 1024 * 1024);
    expect(largest).toBeLessThanOrEqual(EVENT_CHUNK_MAX_BYTES);
  });
});

describe("a receiver without room", () => {
  /** Prints 3 MB on each stream, for a receiver that has no room after the first event until it is let go. */
  function heldUp(
    options: Partial<ExecutionSpec> = {},
    script = "head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2",
  ) {
    const gate = Promise.withResolvers<void>();
    let open = false;
    let bytes = 0;
    const execution = supervise(
      { command: fixture("eval-stdin"), cwd: dir, stdin: script, env, orphanGraceMs: 200, ...options },
      {
        onStarted: () => undefined,
        onEvent: ({ event }) => (bytes += event.case === "output" ? event.value.text.length : 0),
        room: () => (open || bytes === 0 ? undefined : gate.promise),
      },
    );
    const letGo = () => {
      open = true;
      gate.resolve();
    };
    return { execution, bytes: () => bytes, letGo };
  }

  it("holds the executor up, whose output is then whole", async () => {
    const run = heldUp();
    await until(() => run.bytes() > 0, "the first output");
    await delay(300);
    expect(run.bytes()).toBeLessThan(500_000);
    expect(hasEnded(run.execution.pid!)).toBe(false);
    run.letGo();
    const outcome = await run.execution.done;
    expect(outcome).toMatchObject({ kind: COMPLETED, outputBytes: 6_000_000, exit: { outputTruncated: false } });
    expect(run.bytes()).toBe(6_000_000);
  });

  it("counts against nobody: not as silence, nor as time that what is left behind had to end", async () => {
    const run = heldUp({ idleTimeoutMs: 250 }, "(head -c 3000000 /dev/zero) & exit 0");
    await until(() => run.bytes() > 0 && hasEnded(run.execution.pid!), "the leader is gone");
    await delay(600);
    run.letGo();
    const outcome = await run.execution.done;
    expect(outcome).toMatchObject({ kind: COMPLETED, outputBytes: 3_000_000, exit: { outputTruncated: false } });
  });

  it("does not keep a run from being stopped, and what the pipes hold is read", async () => {
    const run = heldUp({}, "trap '' TERM; head -c 3000000 /dev/zero; sleep 60");
    await until(() => run.bytes() > 0, "the first output");
    run.execution.stop(200);
    expect(await run.execution.done).toMatchObject({
      kind: STOPPED,
      exit: { signal: "SIGKILL", outputTruncated: false },
    });
    expect(run.bytes()).toBeGreaterThan(64 * 1024);
  });
});

describe("an executor that cannot be spawned", () => {
  const script = (name: string, text: string, mode = 0o755) => {
    const path = join(dir, name);
    writeFileSync(path, text);
    chmodSync(path, mode);
    return path;
  };

  it.each([
    ["a missing file", () => "/nowhere/ao-x-exec", "executor /nowhere/ao-x-exec does not exist"],
    ["a directory", () => dir, "is not a file"],
    ["a file without the executable bit", () => script("ao-a-exec", "#!/bin/sh\n", 0o644), "run: chmod +x"],
    ["a script without an interpreter", () => script("ao-b-exec", "echo hi\n"), "has no interpreter"],
    [
      "an interpreter that is not there",
      () => script("ao-c-exec", "#!/no/python\n"),
      'needs the interpreter "/no/python"',
    ],
    ["Windows line ends", () => script("ao-d-exec", "#!/bin/sh\r\necho hi\r\n"), "Windows line ends"],
    [
      "an interpreter that the system refuses",
      () => script("ao-e-exec", `#!${script("interpreter", "#!/no/sh\n")}\n`),
      "could not be started: spawn",
    ],
  ])("fails for %s, with the path and the remedy", async (_, command, message) => {
    const run = start("exits-at-once", { command: command() });
    const outcome = await run.done;
    expect(outcome).toMatchObject({ kind: FAILED, failure: FailureReason.SPAWN, result: undefined });
    expect(outcome.message).toContain(message);
    expect([run.execution.pid, run.started, run.events]).toEqual([undefined, [], []]);
    run.execution.stop(0);
  });

  it.each([
    ["missing", () => join(dir, "gone"), /project directory .*gone does not exist/],
    ["a file", () => script("file", ""), /project directory .*file is not a directory/],
  ])("fails for a directory that is %s, and does not blame the executor", async (_, cwd, message) => {
    const outcome = await start("exits-at-once", { cwd: cwd() }).done;
    expect(outcome).toMatchObject({ kind: FAILED, failure: FailureReason.SPAWN });
    expect(outcome.message).toMatch(message);
  });

  it("fails for an environment that is too large", async () => {
    const outcome = await start("exits-at-once", { env: { ...env, BIG: "x".repeat(1_000_000) } }).done;
    expect(outcome.message).toContain("could not be started: spawn E2BIG");
  });
});

describe("the leash", () => {
  it("is told of a group from the spawn to its end", async () => {
    const told: string[] = [];
    const leash = {
      add: (pgid: number) => void told.push(`+${pgid}`),
      remove: (pgid: number) => void told.push(`-${pgid}`),
    };
    const run = bash("sleep 0.2 & exit 0", {}, { leash });
    const { pid } = run.execution;
    expect(told).toEqual([`+${pid}`]);
    await run.done;
    expect(told).toEqual([`+${pid}`, `-${pid}`]);
  });

  it("keeps a group that survives SIGKILL, and the run ends all the same", async () => {
    const told: string[] = [];
    const leash = { add: () => undefined, remove: () => void told.push("removed") };
    const run = bash("echo ready; sleep 60", { pipeDrainMs: 100 }, { leash, kill: () => undefined });
    await until(() => run.printed() !== "", "ready");
    run.execution.stop(50);
    const outcome = await run.done;
    const { pid } = run.execution;
    process.kill(-pid!, "SIGKILL");
    expect(outcome).toMatchObject({ kind: STOPPED, exit: { signal: "", outputTruncated: true } });
    expect(outcome.exit.code).toBeUndefined();
    expect(outcome.message).toBe(`stopped on request; process ${pid} is still there after SIGKILL`);
    expect(told).toEqual([]);
  });
});
