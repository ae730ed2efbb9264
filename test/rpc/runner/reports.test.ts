import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ExecutorResultSchema } from "../../../gen/agentrunner/v1/executor_pb.ts";
import { FailureReason } from "../../../gen/agentrunner/v1/run_pb.ts";
import { HeldLease_Phase, LeaseVerdict_Kind } from "../../../gen/agentrunner/v1/runner_pb.ts";
import { ReportVerdict_Kind, Report_Kind } from "../../../gen/agentrunner/v1/runner_service_pb.ts";
import { EXIT } from "../../../lib/exit-codes.ts";
import { runnerId } from "../../../lib/ids.ts";
import { openStateDir, StateRefusedError } from "../../../runner/leases/state-dir.ts";
import type { StateDir } from "../../../runner/leases/state-dir.ts";
import { FakeCoordinator } from "../../support/fake-coordinator.ts";
import { atEnd, cleanUp, outputEvent, sessionEvent, startTestRunner, testSettings } from "../../support/test-runner.ts";
import { until } from "../../support/until.ts";

let fake: FakeCoordinator;

beforeEach(async () => {
  fake = await new FakeCoordinator().start();
  atEnd(() => fake.stop());
});

afterEach(cleanUp);

const { OK, UNKNOWN, INVALID } = ReportVerdict_Kind;
const { ACCEPT, STARTED, PROGRESS, COMPLETED, STOPPED, FAILED, NOT_STARTED } = Report_Kind;

function report(kind: Report_Kind) {
  return until(() => fake.reports(kind)[0], `report ${kind}`);
}

describe("reports", () => {
  it("of a run are ACCEPT, STARTED and the final one, with rising seq and the attempt of the offer", async () => {
    await startTestRunner(fake, { instant: true });
    await fake.offer({ attempt: 3 });
    await report(COMPLETED);
    expect(fake.reports().map(({ kind, seq, attempt }) => [kind, seq, attempt])).toEqual([
      [ACCEPT, 1n, 3],
      [STARTED, 2n, 3],
      [COMPLETED, 3n, 3],
    ]);
  });

  it("of many runs travel together, and never an ACCEPT with a later report of its lease", async () => {
    await startTestRunner(fake, { instant: true, maxRuns: 100 });
    for (let i = 0; i < 100; i += 1) await fake.offer();
    await until(() => fake.reports(COMPLETED).length === 100, "100 final reports");
    const batches = fake.of("batch").map(({ reports }) => reports);
    expect(batches.length).toBeLessThan(60);
    for (const batch of batches) {
      const accepted = new Set(batch.filter(({ kind }) => kind === ACCEPT).map(({ leaseId }) => leaseId));
      const later = batch.filter(({ kind, leaseId }) => kind !== ACCEPT && accepted.has(leaseId));
      expect(later).toEqual([]);
    }
  });

  it("of large results are split into messages that the coordinator takes", async () => {
    const { executions } = await startTestRunner(fake, { maxRuns: 40 });
    for (let i = 0; i < 40; i += 1) await fake.offer();
    await until(() => executions.length === 40, "40 executions");
    const result = create(ExecutorResultSchema, { text: "x".repeat(256 * 1024) });
    for (const execution of executions) execution.end({ result });
    await until(() => fake.reports(COMPLETED).length === 40, "40 final reports");
    expect(fake.reports(COMPLETED).every(({ result }) => result?.text.length === 256 * 1024)).toBe(true);
  });

  it("that are too large even alone are cut and marked", async () => {
    const { executions } = await startTestRunner(fake, { maxRuns: 2 });
    await fake.offer();
    await fake.offer();
    await until(() => executions.length === 2, "two executions");
    executions[0]!.end({ result: create(ExecutorResultSchema, { text: "x".repeat(5 * 1024 * 1024) }) });
    executions[1]!.end({ result: create(ExecutorResultSchema, { text: "small" }) });
    await until(() => fake.reports(COMPLETED).length === 2, "both final reports");
    const texts = Object.fromEntries(fake.reports(COMPLETED).map(({ runId, result }) => [runId, result?.text]));
    expect(texts["run_1"]).toMatch(/x…\[cut: \d+ of 5242880 bytes shown\]$/);
    expect(texts["run_2"]).toBe("small");
  });

  it("that the coordinator refuses one by one do not hold up the others", async () => {
    const refused = "run_1";
    fake.onReport = ({ runId, kind }) => {
      if (runId === refused && kind === STARTED) throw new ConnectError("makes no sense", Code.InvalidArgument);
      return OK;
    };
    const { executions, log } = await startTestRunner(fake);
    await fake.offer();
    await fake.offer();
    await until(() => executions.length === 2, "two executions");
    for (const execution of executions) execution.end();
    await until(
      () =>
        new Set(
          fake
            .of("answered")
            .filter(({ report }) => report.kind === COMPLETED)
            .map(({ report }) => report.runId),
        ).size === 2,
      "both ends",
    );
    expect(log.some((line) => line.includes("makes no sense"))).toBe(true);
  });
});

describe("a report whose number was used by another one", () => {
  const behind = (free: bigint) => {
    fake.onVerdicts = (verdicts) =>
      verdicts.map((verdict) =>
        verdict.seq > 1n && verdict.seq < free ? { ...verdict, kind: INVALID, nextSeq: free } : verdict,
      );
  };

  it("is sent again with the number that the coordinator names, and those after it follow", async () => {
    behind(9n);
    const { runner, execution, log } = await startTestRunner(fake);
    const { runId } = await fake.offer();
    const { end } = await execution(runId);
    await until(() => fake.reports(STARTED).some(({ seq }) => seq === 9n), "STARTED again");
    end();
    await until(() => fake.reports(COMPLETED).some(({ seq }) => seq > 9n), "the final report");
    await until(() => runner.activeRuns() === 0, "the end");
    expect(fake.reports(STARTED).map(({ seq }) => seq)).toEqual([2n, 9n]);
    expect(log.join("")).not.toContain("the final report did not count");
  });

  it("is given up when no number will do", async () => {
    fake.onVerdicts = (verdicts) =>
      verdicts.map((verdict) =>
        verdict.seq === 1n ? verdict : { ...verdict, kind: INVALID, nextSeq: verdict.seq + 5n },
      );
    const { execution, log } = await startTestRunner(fake);
    const { runId } = await fake.offer();
    (await execution(runId)).end();
    await until(() => log.some((line) => line.includes("the final report did not count")), "the end");
    expect(fake.reports().length).toBeLessThan(20);
  });
});

describe("events", () => {
  it("are numbered from 1 and sent on from what is committed", async () => {
    let committed = 1;
    fake.onEvents = () => {
      const now = committed;
      committed = Number.MAX_SAFE_INTEGER;
      return now;
    };
    const { execution } = await startTestRunner(fake);
    await fake.offer();
    const { hooks } = await execution("run_1");
    for (const text of ["a", "b", "c"]) hooks.onEvent(outputEvent(text));
    await until(() => fake.of("events").length >= 2, "the second batch");
    const [first, second] = fake.of("events").map(({ request }) => request.batches[0]!);
    expect([first!.firstSeq, first!.events.length]).toEqual([1n, 3]);
    expect([second!.firstSeq, second!.events.length]).toEqual([2n, 2]);
  });

  it("are all committed before the final report is sent", async () => {
    fake.onEvents = () => "silence";
    const { execution } = await startTestRunner(fake);
    await fake.offer();
    const one = await execution("run_1");
    one.hooks.onEvent(outputEvent("a"));
    one.end();
    await until(() => fake.of("events").length >= 2, "a repeated batch");
    expect(fake.reports(COMPLETED)).toEqual([]);
    fake.onEvents = () => Number.MAX_SAFE_INTEGER;
    expect((await report(COMPLETED)).eventsMissing).toBe(0n);
  });

  it("beyond 8 MiB are dropped while the coordinator is away, and a marker counts them where they are missing", async () => {
    fake.onEvents = () => "silence";
    const { execution } = await startTestRunner(fake);
    await fake.offer();
    const { hooks, end } = await execution("run_1");
    for (let i = 0; i < 200; i += 1) hooks.onEvent(outputEvent("x".repeat(64 * 1024)));
    await until(() => fake.of("events").length >= 1, "the first batch");
    fake.onEvents = () => Number.MAX_SAFE_INTEGER;
    end();
    await report(COMPLETED);
    const sent = fake.of("events").flatMap(({ request }) => request.batches.flatMap(({ events }) => events));
    const dropped = sent.flatMap(({ event }) => (event.case === "dropped" ? [event.value] : []));
    const delivered = new Map<bigint, string | undefined>();
    for (const { request } of fake.of("events")) {
      for (const { firstSeq, events } of request.batches) {
        for (const [i, { event }] of events.entries()) delivered.set(firstSeq + BigInt(i), event.case);
      }
    }
    const kept = [...delivered.values()].filter((kind) => kind === "output").length;
    expect(dropped.at(-1)).toMatchObject({ events: BigInt(200 - kept) });
    expect(dropped.at(-1)!.reason).toMatch(
      /^the coordinator took none of the run's events for \d+ s, and the runner keeps 8388608 bytes of them$/,
    );
    expect(kept).toBeGreaterThan(100);
    expect([...delivered.keys()].sort((a, b) => Number(a - b)).at(-1)).toBe(BigInt(kept + 1));
  });

  it("that the coordinator refuses are replaced by a marker, and the rest is delivered", async () => {
    fake.onEvents = ({ batches }) => {
      const bad = batches.some(({ events }) =>
        events.some(({ event }) => event.case === "output" && event.value.text === "bad"),
      );
      if (bad) throw new ConnectError("bad event", Code.InvalidArgument);
      return Number.MAX_SAFE_INTEGER;
    };
    const { execution } = await startTestRunner(fake);
    await fake.offer();
    const { hooks, end } = await execution("run_1");
    for (const text of ["a", "bad", "c"]) hooks.onEvent(outputEvent(text));
    end();
    expect((await report(COMPLETED)).eventsMissing).toBe(0n);
    const last = fake.of("events").at(-1)!.request.batches[0]!;
    expect(last.events.at(-1)!.event.value).toMatchObject({ text: "c" });
    const markers = fake.of("events").flatMap(({ request }) => request.batches.flatMap(({ events }) => events));
    expect(markers.some(({ event }) => event.case === "dropped" && event.value.events === 1n)).toBe(true);
  });
});

describe("the outbox", () => {
  it("replays a final report after the runner was killed, until it is answered", async () => {
    fake.onReport = ({ kind }) => (kind === COMPLETED ? "silence" : OK);
    const settings = testSettings(fake.url);
    const first = await startTestRunner(fake, settings);
    await fake.offer();
    (await first.execution("run_1")).end({ message: "done" });
    await report(COMPLETED);
    first.runner.kill();
    await first.runner.done;
    const before = fake.reports(COMPLETED).length;
    fake.onReport = () => OK;
    const second = await startTestRunner(fake, settings);
    await until(() => fake.reports(COMPLETED).length > before, "the replay");
    const { request } = fake.of("register").at(-1)!;
    expect(request.previousBootId).toBe(first.runner.bootId);
    expect(request.held).toMatchObject([{ leaseId: "lease_1", phase: HeldLease_Phase.FINAL }]);
    expect(fake.reports(COMPLETED).at(-1)).toMatchObject({ leaseId: "lease_1", seq: 3n, message: "done" });
    second.runner.drain("test");
    await second.runner.done;
    const answered = fake.reports(COMPLETED).length;
    await startTestRunner(fake, settings);
    await until(() => fake.of("register").length === 3 && fake.of("heartbeat").length > 0, "the third process");
    expect(fake.of("register").at(-1)!.request.held).toEqual([]);
    expect(fake.reports(COMPLETED)).toHaveLength(answered);
  });

  it("answers NOT_STARTED for what was accepted and not spawned, and leaves out what was spawned", async () => {
    let accept: ReportVerdict_Kind | "silence" = OK;
    fake.onReport = ({ kind }) => (kind === ACCEPT ? accept : OK);
    const settings = testSettings(fake.url);
    const reaped: string[] = [];
    const first = await startTestRunner(fake, settings);
    await fake.offer();
    await first.execution("run_1");
    accept = "silence";
    await fake.offer();
    await until(() => fake.reports(ACCEPT).length >= 2, "the second accept");
    first.runner.kill();
    await first.runner.done;
    await startTestRunner(fake, { ...settings, deps: { reap: async (bootId) => reaped.push(bootId) } });
    expect(await report(NOT_STARTED)).toMatchObject({ leaseId: "lease_2", runId: "run_2" });
    expect(reaped).toEqual([first.runner.bootId]);
    const { held } = fake.of("register").at(-1)!.request;
    expect(held.map(({ leaseId }) => leaseId)).toEqual(["lease_2"]);
  });

  it("keeps reports for another store, and never sends them to this one", async () => {
    fake.onReport = ({ kind }) => (kind === COMPLETED ? "silence" : OK);
    const settings = testSettings(fake.url);
    const first = await startTestRunner(fake, settings);
    await fake.offer();
    (await first.execution("run_1")).end();
    await report(COMPLETED);
    first.runner.kill();
    await first.runner.done;
    const before = fake.reports().length;
    fake.storeId = "store_b";
    // Of its own runs it knows: a heartbeat may come between the accept and the end of one.
    fake.verdictOf = (leaseId) => (leaseId === "lease_1" ? LeaseVerdict_Kind.UNKNOWN : LeaseVerdict_Kind.RENEWED);
    fake.onReport = () => OK;
    const second = await startTestRunner(fake, { ...settings, instant: true });
    await fake.offer();
    await until(() => fake.reports(COMPLETED).some(({ runId }) => runId === "run_2"), "a run of the other store");
    expect(
      fake
        .reports()
        .slice(before)
        .filter(({ runId }) => runId === "run_1"),
    ).toEqual([]);
    expect(
      fake
        .of("heartbeat")
        .at(-1)!
        .request.held.filter(({ runId }) => runId === "run_1"),
    ).toEqual([]);
    second.runner.kill();
    await second.runner.done;
    fake.storeId = "store_a";
    fake.verdictOf = () => LeaseVerdict_Kind.RENEWED;
    await startTestRunner(fake, settings);
    await until(
      () =>
        fake
          .reports()
          .slice(before)
          .some(({ runId }) => runId === "run_1"),
      "the report, home again",
    );
  });

  it("ends the runs of a store that is gone", async () => {
    const { execution, runner } = await startTestRunner(fake);
    await fake.offer();
    const { stops } = await execution("run_1");
    fake.storeId = "store_b";
    let known = false;
    fake.onRegister = () => void (known = true);
    fake.onHeartbeat = () => {
      if (!known) throw new ConnectError("no such runner", Code.NotFound);
    };
    await until(() => stops.length === 1 && runner.activeRuns() === 0, "the run is ended");
    expect(fake.reports(STOPPED)).toEqual([]);
  });

  it("ends an entry that is answered UNKNOWN, and logs it", async () => {
    fake.onReport = ({ kind }) => (kind === COMPLETED ? UNKNOWN : OK);
    const { log } = await startTestRunner(fake, { instant: true });
    await fake.offer();
    await until(() => log.some((line) => line.includes('"verdict":"UNKNOWN"')), "the log line");
    const count = fake.reports(COMPLETED).length;
    await until(() => fake.of("heartbeat").at(-1)!.request.held.length === 0, "nothing held");
    expect(fake.reports(COMPLETED)).toHaveLength(count);
  });

  it("sends a final report at once that the coordinator asks for, and not at the end of the pause after a failure", async () => {
    // With such pauses only RESEND_FINAL brings the report again before the test gives up.
    fake.config.reconnectMin = fake.config.reconnectMax = durationFromMs(60_000);
    let lost = false;
    fake.onReport = ({ kind }) => {
      if (kind !== COMPLETED || lost) return OK;
      lost = true;
      throw new ConnectError("the disk is full", Code.Unavailable);
    };
    fake.verdictOf = () => LeaseVerdict_Kind.RESEND_FINAL;
    await startTestRunner(fake, { instant: true, deps: { random: () => 0.99 } });
    await fake.offer();
    await until(() => fake.reports(COMPLETED).length === 2, "the report, again");
    await until(() => fake.of("heartbeat").at(-1)!.request.held.length === 0, "nothing held");
    expect(fake.reports(COMPLETED)).toHaveLength(2);
  });

  it("does not repeat a final report that is in flight when the coordinator asks for it", async () => {
    fake.config.leaseTtl = durationFromMs(30_000);
    fake.verdictOf = () => LeaseVerdict_Kind.RESEND_FINAL;
    fake.onReport = ({ kind }) => (kind === COMPLETED ? "silence" : OK);
    await startTestRunner(fake, { instant: true });
    await fake.offer();
    await report(COMPLETED);
    const heartbeats = fake.of("heartbeat").length;
    await until(() => fake.of("heartbeat").length >= heartbeats + 3, "three more heartbeats");
    expect(fake.reports(COMPLETED)).toHaveLength(1);
    expect(fake.of("heartbeat").at(-1)!.request.held).toMatchObject([{ phase: HeldLease_Phase.FINAL }]);
  });

  it("sends the executor's session id as soon as it is known, and again with the final report", async () => {
    const { execution } = await startTestRunner(fake);
    await fake.offer();
    const { hooks, end } = await execution("run_1");
    hooks.onEvent(sessionEvent("conv-1"));
    hooks.onEvent(sessionEvent("conv-1"));
    expect(await report(PROGRESS)).toMatchObject({ executorSessionId: "conv-1", seq: 3n });
    end();
    expect(await report(COMPLETED)).toMatchObject({ executorSessionId: "conv-1" });
    expect(fake.reports(PROGRESS)).toHaveLength(1);
  });

  it("that cannot be written lets the report go from memory, and no offer is accepted until it can be", async () => {
    let state: StateDir | undefined;
    const openState = (...open: Parameters<typeof openStateDir>) => (state = openStateDir(...open));
    const { execution, log } = await startTestRunner(fake, { deps: { openState } });
    await fake.offer();
    const { end } = await execution("run_1");
    state!.sql("PRAGMA query_only = ON").run();
    end();
    await report(COMPLETED);
    expect(log.some((line) => line.includes("sent from memory"))).toBe(true);
    await fake.offer();
    const refusal = await report(Report_Kind.REFUSE);
    expect(refusal.message).toContain("state directory");
    state!.sql("PRAGMA query_only = OFF").run();
    await until(async () => {
      await fake.offer();
      return fake.reports(ACCEPT).length >= 2;
    }, "an accept");
  });
});

describe("the state directory", () => {
  it("belongs to one live process: a second runner of the same identity is told to take a --name", async () => {
    const settings = testSettings(fake.url);
    await startTestRunner(fake, settings);
    await fake.stream();
    const second = startTestRunner(fake, settings);
    await expect(second).rejects.toThrow(StateRefusedError);
    await expect(second).rejects.toThrow(/already runs on this host.*--name/);
    await startTestRunner(fake, { ...settings, name: "other" });
  });

  it("that cannot be made is refused with its path", async () => {
    const settings = testSettings(fake.url);
    const stateDir = join(settings.stateDir, "file");
    writeFileSync(stateDir, "");
    await expect(startTestRunner(fake, { ...settings, stateDir })).rejects.toThrow(
      `runner state ${join(stateDir, runnerId(settings))}: a part of the path is a file, not a directory (ENOTDIR)`,
    );
  });
});

describe("the end", () => {
  it("of a drain comes when the runs have ended and are answered, and is told to the coordinator", async () => {
    const { runner, execution, log } = await startTestRunner(fake);
    await fake.offer();
    await fake.offer();
    const [one, two] = [await execution("run_1"), await execution("run_2")];
    runner.drain("test");
    expect(log.at(-1)).toContain("draining, 2 runs left: waiting for at most ");
    expect(log.at(-1)).toContain("a second signal (Ctrl+C, SIGTERM) stops them at once");
    expect(log.at(-1)).toContain('"run_ids":["run_1","run_2"]');
    await until(() => fake.of("heartbeat").at(-1)!.request.draining, "draining is told");
    await fake.offer();
    expect((await report(Report_Kind.REFUSE)).message).toBe("the runner is draining");
    expect(fake.of("deregister")).toEqual([]);
    one.end();
    await until(() => log.find((line) => line.includes('"run_ids":["run_2"],"msg":"draining, 1 run left"')), "a line");
    two.end();
    expect(await runner.done).toBe(EXIT.ok);
    expect(fake.reports(COMPLETED)).toHaveLength(2);
    expect(fake.of("deregister")).toHaveLength(1);
    expect(fake.of("register")).toHaveLength(1);
    expect(log.some((line) => line.includes("registering again"))).toBe(false);
  });

  it("comes on the coordinator's order to drain too", async () => {
    const { runner } = await startTestRunner(fake);
    const stream = await fake.stream();
    stream.push({ case: "drain", value: { reason: "replaced" } });
    expect(await runner.done).toBe(EXIT.ok);
  });

  it("after a drain that takes too long stops the runs", async () => {
    const { runner, execution } = await startTestRunner(fake, { drainTimeoutMs: 50 });
    await fake.offer();
    const { stops } = await execution("run_1");
    runner.drain("test");
    expect(await runner.done).toBe(EXIT.ok);
    expect(stops[0]).toEqual({ graceMs: 200, reason: "runner-shutdown" });
    expect(fake.reports(STOPPED)).toHaveLength(1);
  });

  it.each([
    { kind: COMPLETED, exitCode: EXIT.ok },
    { kind: FAILED, failure: FailureReason.EXECUTOR_EXIT, exitCode: EXIT.failed },
    { kind: FAILED, failure: FailureReason.TIMEOUT, exitCode: EXIT.timedOut },
    { kind: FAILED, failure: FailureReason.IDLE, exitCode: EXIT.timedOut },
    { kind: STOPPED, exitCode: EXIT.stopped },
  ])("of --once is the outcome of its one run: $exitCode", async (end) => {
    const { exitCode, ...outcome } = end;
    const { kind } = outcome;
    const { runner, execution } = await startTestRunner(fake, { once: true });
    await fake.offer();
    (await execution("run_1")).end(outcome);
    expect(await runner.done).toBe(exitCode);
    expect(fake.of("register")[0]!.request.maxConcurrentRuns).toBe(1);
    expect(fake.reports(kind)).toHaveLength(1);
  });
});
