import { afterEach, describe, expect, it } from "vitest";
import { LeaseVerdict_Kind } from "../../../../gen/agentrunner/v1/runner_pb.ts";
import { ReportVerdict_Kind } from "../../../../gen/agentrunner/v1/runner_service_pb.ts";
import { startTestCoordinator, stopTestCoordinators } from "../../../support/coordinator.ts";
import { held, output, RawRunner } from "../../../support/raw-runner.ts";

afterEach(stopTestCoordinators);

const { OK, INVALID } = ReportVerdict_Kind;

async function twoRuns() {
  const c = await startTestCoordinator();
  const runner = await RawRunner.online(c);
  await c.create();
  const well = await runner.take();
  await c.create();
  const other = await runner.take();
  return { c, runner, well, other };
}

describe("a report that breaks a rule of its message", () => {
  it("is INVALID and named, and the others of its batch are decided, in their order", async () => {
    const { c, runner, well, other } = await twoRuns();
    const { verdicts } = await runner.reports([
      runner.said(other, "FAILED", { message: "x".repeat(70_000) }),
      runner.said(well, "COMPLETED"),
      { ...runner.said(other, "PROGRESS"), executorSessionId: "s".repeat(2_000) },
      { ...runner.said(other, "PROGRESS"), seq: 0n },
    ]);
    expect(verdicts.map(({ kind, leaseId }) => [kind, leaseId])).toEqual([
      [INVALID, other.leaseId],
      [OK, well.leaseId],
      [INVALID, other.leaseId],
      [INVALID, other.leaseId],
    ]);
    expect(verdicts.map(({ message }) => message)).toEqual([
      expect.stringMatching(/^message: /),
      "",
      expect.stringMatching(/^executor_session_id: /),
      expect.stringMatching(/^seq: /),
    ]);
    expect(await c.state(well.runId)).toBe("COMPLETED");
    expect(await c.state(other.runId)).toBe("RUNNING");
  });

  it("is answered although nothing else is in its batch", async () => {
    const { runner, other } = await twoRuns();
    const { verdicts } = await runner.reports([{ ...runner.said(other, "PROGRESS"), leaseId: "l".repeat(65) }]);
    expect(verdicts.map(({ kind }) => kind)).toEqual([INVALID]);
  });
});

describe("an event that breaks a rule of its message", () => {
  it("is INVALID by its number; those before it and those of other runs are stored, and those after it can follow", async () => {
    const { c, runner, well, other } = await twoRuns();
    const long = { event: { case: "session", value: { executorSessionId: "s".repeat(2_000) } } } as const;
    const { verdicts } = await c.runners.appendEvents(
      {
        runnerId: runner.runnerId,
        batches: [
          { runId: other.runId, leaseId: other.leaseId, firstSeq: 1n, events: [output("a"), long, output("b")] },
          { runId: well.runId, leaseId: well.leaseId, firstSeq: 1n, events: [output("c")] },
          { runId: "", leaseId: "x", firstSeq: 1n, events: [output("d")] },
        ],
      },
      runner.options,
    );
    expect(verdicts.map(({ kind, committedSeq, invalidSeq }) => [kind, committedSeq, invalidSeq])).toEqual([
      [INVALID, 1n, 2n],
      [OK, 1n, 0n],
      [INVALID, 0n, 0n],
    ]);
    expect(verdicts[0]?.message).toMatch(/^event 2: session\.executor_session_id: /);
    expect(await runner.append(other, 2, [output("b")])).toMatchObject({ kind: OK, committedSeq: 2n });
    // What is committed already is not judged again.
    expect(await runner.append(other, 1, [output("a"), long])).toMatchObject({ kind: OK, committedSeq: 2n });
    const { sessionId } = await c.run(other.runId);
    const { events } = await c.sessions.listSessionEvents({ sessionId });
    const texts = events.flatMap(({ event }) =>
      event.case === "executor" && event.value.event.case === "output" ? event.value.event.value.text : [],
    );
    expect(texts).toEqual(["a", "b"]);
  });
});

describe("a held lease that breaks a rule of its message", () => {
  it("is UNKNOWN, and the others are renewed", async () => {
    const { runner, well } = await twoRuns();
    const { UNKNOWN, RENEWED } = LeaseVerdict_Kind;
    const { verdicts } = await runner.heartbeat({ held: [{ runId: "", leaseId: "l".repeat(65) }, held(well)] });
    expect(verdicts.map(({ kind }) => kind)).toEqual([UNKNOWN, RENEWED]);
  });
});
