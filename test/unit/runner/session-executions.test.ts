import { describe, expect, it } from "vitest";
import { create } from "@bufbuild/protobuf";
import { ExitSchema, FailureReason } from "../../../gen/agentrunner/v1/run_pb.ts";
import { Report_Kind } from "../../../gen/agentrunner/v1/runner_service_pb.ts";
import { SessionExecutions } from "../../../runner/execution/session-executions.ts";
import type { Execution, ExecutorOutcome } from "../../../runner/execution/supervisor.ts";

const COMPLETED: ExecutorOutcome = {
  kind: Report_Kind.COMPLETED,
  failure: FailureReason.UNSPECIFIED,
  message: "",
  exit: create(ExitSchema, { code: 0 }),
  result: undefined,
  executorSessionId: "",
  outputBytes: 0,
  malformedEvents: 0,
  malformedReason: "",
};

/** Executions that end when the test says so; `log` has what happened to them, in order. */
function scene() {
  const executions = new SessionExecutions();
  const log: string[] = [];
  const ends = new Map<string, () => void>();
  const start = (name: string, sessionId = "ses_1"): Execution => {
    const begin = () => {
      log.push(`${name} begins`);
      const done = Promise.withResolvers<ExecutorOutcome>();
      ends.set(name, () => done.resolve(COMPLETED));
      return { pid: 1, done: done.promise, stop: (graceMs: number) => void log.push(`${name} is stopped, ${graceMs}`) };
    };
    return executions.start(sessionId, begin, () => log.push(`${name} waits`));
  };
  return { log, start, end: (name: string) => ends.get(name)!() };
}

describe("the executions of a session", () => {
  it("follow each other: an earlier one is ended first", async () => {
    const { log, start, end } = scene();
    const first = start("first");
    const second = start("second");
    expect(log).toEqual(["first begins", "second waits", "first is stopped, 0"]);
    expect(second.pid).toBeUndefined();
    end("first");
    await first.done;
    await Promise.resolve();
    expect(log.at(-1)).toBe("second begins");
    expect(second.pid).toBe(1);
    second.stop(7);
    expect(log.at(-1)).toBe("second is stopped, 7");
    end("second");
    expect(await second.done).toBe(COMPLETED);
  });

  it("never run two at a time, however many wait for the same one", async () => {
    const { log, start, end } = scene();
    const first = start("first");
    const [second, third] = [start("second"), start("third")];
    end("first");
    await first.done;
    await Promise.resolve();
    expect(log.filter((line) => line.endsWith("begins"))).toEqual(["first begins", "second begins"]);
    expect(log.at(-1)).toBe("second is stopped, 0");
    end("second");
    await second.done;
    end("third");
    expect(await third.done).toBe(COMPLETED);
  });

  it("of other sessions do not wait", () => {
    const { log, start } = scene();
    start("first");
    start("other", "ses_2");
    expect(log).toEqual(["first begins", "other begins"]);
  });

  it.each([
    { reason: "requested", failure: FailureReason.UNSPECIFIED },
    { reason: "runner-shutdown", failure: FailureReason.RUNNER_SHUTDOWN },
  ] as const)(
    "that are stopped while they wait ($reason) never begin, and are STOPPED",
    async ({ reason, failure }) => {
      const { log, start, end } = scene();
      start("first");
      const second = start("second");
      second.stop(5, reason);
      end("first");
      expect(await second.done).toMatchObject({ kind: Report_Kind.STOPPED, failure });
      expect(log).not.toContain("second begins");
    },
  );
});
