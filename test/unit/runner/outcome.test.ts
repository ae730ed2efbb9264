import { describe, expect, it } from "vitest";
import { FailureReason } from "../../../gen/agentrunner/v1/run_pb.ts";
import { Report_Kind } from "../../../gen/agentrunner/v1/runner_service_pb.ts";
import { outcomeOf } from "../../../runner/execution/outcome.ts";
import type { EndedBy, ExecutionFacts, ProcessEnd } from "../../../runner/execution/outcome.ts";

const { COMPLETED, FAILED, STOPPED, NOT_STARTED } = Report_Kind;
const { UNSPECIFIED, EXECUTOR_EXIT, ENVIRONMENT, SIGNAL, TIMEOUT, IDLE, SPAWN, RUNNER_SHUTDOWN } = FailureReason;

const code = (code: number): ProcessEnd => ({ type: "code", code });
const signal = (signal: NodeJS.Signals): ProcessEnd => ({ type: "signal", signal });
const stuck: ProcessEnd = { type: "stuck", pid: 7 };
const stop: EndedBy = { type: "stop" };
const shutdown: EndedBy = { type: "shutdown" };
const timeout: EndedBy = { type: "timeout", afterMs: 90_500 };
const idle: EndedBy = { type: "idle", afterMs: 30_000, limit: "its limit" };
const result: EndedBy = { type: "result", afterMs: 10_000 };

function facts(end: ProcessEnd, endedBy?: EndedBy, more: Partial<ExecutionFacts> = {}): ExecutionFacts {
  return { end, endedBy, outputTruncated: false, stderrTail: "", ...more };
}

describe("the outcome", () => {
  it.each<[string, ExecutionFacts, number, number, string]>([
    ["exit 0", facts(code(0)), COMPLETED, UNSPECIFIED, ""],
    [
      "exit 75",
      facts(code(75)),
      FAILED,
      ENVIRONMENT,
      "executor exited with code 75: its environment failed, not its work; nothing on stderr",
    ],
    [
      "another exit",
      facts(code(3), undefined, { stderrTail: "no key\n" }),
      FAILED,
      EXECUTOR_EXIT,
      "executor exited with code 3; end of stderr: no key",
    ],
    [
      "a stop that ends it",
      facts(signal("SIGTERM"), stop),
      STOPPED,
      UNSPECIFIED,
      "stopped on request; it was ended by SIGTERM",
    ],
    [
      "a stop that it obeys with exit 0",
      facts(code(0), stop),
      STOPPED,
      UNSPECIFIED,
      "stopped on request; it exited with code 0 on SIGTERM",
    ],
    [
      "a stop that it ignores",
      facts(signal("SIGKILL"), stop, { killedAfterMs: 10_000.4 }),
      STOPPED,
      UNSPECIFIED,
      "stopped on request; it was ended by SIGKILL, 10 s after SIGTERM",
    ],
    [
      "a stop that nothing obeys",
      facts(stuck, stop),
      STOPPED,
      UNSPECIFIED,
      "stopped on request; process 7 is still there after SIGKILL",
    ],
    [
      "a runner that ends",
      facts(signal("SIGTERM"), shutdown),
      STOPPED,
      RUNNER_SHUTDOWN,
      "stopped because the runner was told to end; it was ended by SIGTERM",
    ],
    [
      "a result and no exit",
      facts(signal("SIGTERM"), result),
      COMPLETED,
      UNSPECIFIED,
      "executor gave its result but did not exit within 10 s; it was ended by SIGTERM",
    ],
    [
      "a result, and an exit with a code when it is ended",
      facts(code(3), result),
      COMPLETED,
      UNSPECIFIED,
      "executor gave its result but did not exit within 10 s; it exited with code 3 on SIGTERM",
    ],
    [
      "a signal that is not ours",
      facts(signal("SIGSEGV")),
      FAILED,
      SIGNAL,
      "executor was ended by SIGSEGV, which the runner did not send; nothing on stderr",
    ],
    [
      "a SIGKILL that is not ours",
      facts(signal("SIGKILL")),
      FAILED,
      SIGNAL,
      "executor was ended by SIGKILL, which the runner did not send (the system may have run out of memory); nothing on stderr",
    ],
    [
      "a timeout",
      facts(signal("SIGKILL"), timeout, { killedAfterMs: 200 }),
      FAILED,
      TIMEOUT,
      "executor ran longer than its timeout of 90.5 s; it was ended by SIGKILL, 200 ms after SIGTERM; nothing on stderr",
    ],
    [
      "a timeout that it obeys with exit 0",
      facts(code(0), timeout, { stderrTail: "late" }),
      FAILED,
      TIMEOUT,
      "executor ran longer than its timeout of 90.5 s; it exited with code 0 on SIGTERM; end of stderr: late",
    ],
    [
      "silence",
      facts(signal("SIGTERM"), idle),
      FAILED,
      IDLE,
      "executor printed nothing for 30 s, its limit; it was ended by SIGTERM; nothing on stderr",
    ],
    [
      "a group that outlives an exit with 0",
      facts(code(0), undefined, { outputTruncated: true }),
      COMPLETED,
      UNSPECIFIED,
      "executor left processes behind, which were ended",
    ],
    [
      "a group that outlives another exit",
      facts(code(4), undefined, { outputTruncated: true }),
      FAILED,
      EXECUTOR_EXIT,
      "executor exited with code 4; nothing on stderr",
    ],
    [
      "no process at all",
      facts({ type: "not-spawned", message: "executor /x does not exist", shortage: false }),
      FAILED,
      SPAWN,
      "executor /x does not exist",
    ],
    [
      "no process, because the machine is short of something",
      facts({ type: "not-spawned", message: "executor /x could not be started: EMFILE", shortage: true }),
      NOT_STARTED,
      UNSPECIFIED,
      "executor /x could not be started: EMFILE",
    ],
    [
      "a process that nobody can end",
      facts(stuck),
      FAILED,
      SIGNAL,
      "executor process 7 is still there after SIGKILL; nothing on stderr",
    ],
  ])("of %s", (_, facts, kind, failure, message) => {
    expect(outcomeOf(facts)).toMatchObject({ kind, failure, message });
  });

  it("says how the process ended, whether that was forced after its result, and whether output was lost", () => {
    expect(outcomeOf(facts(code(0))).exit).toMatchObject({
      code: 0,
      signal: "",
      forced: false,
      outputTruncated: false,
    });
    expect(outcomeOf(facts(signal("SIGKILL"), result)).exit).toMatchObject({ signal: "SIGKILL", forced: true });
    expect(outcomeOf(facts(signal("SIGKILL"), timeout)).exit).toMatchObject({ forced: false });
    expect(outcomeOf(facts(code(1), undefined, { outputTruncated: true })).exit).toMatchObject({
      outputTruncated: true,
    });
    expect(outcomeOf(facts(signal("SIGTERM"), stop)).exit.code).toBeUndefined();
  });
});
