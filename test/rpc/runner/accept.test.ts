import { join } from "node:path";
import { createClient } from "@connectrpc/connect";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { LeaseVerdict_Kind } from "../../../gen/agentrunner/v1/runner_pb.ts";
import { ReportVerdict_Kind, Report_Kind, RunnerService } from "../../../gen/agentrunner/v1/runner_service_pb.ts";
import { connectTransport } from "../../../lib/rpc/transport.ts";
import { assertAcceptBeforeSpawn, FakeCoordinator } from "../../support/fake-coordinator.ts";
import { atEnd, cleanUp, startTestRunner } from "../../support/test-runner.ts";
import { until } from "../../support/until.ts";

let fake: FakeCoordinator;

beforeEach(async () => {
  fake = await new FakeCoordinator().start();
  atEnd(() => fake.stop());
});

afterEach(cleanUp);

const { OK, STALE } = ReportVerdict_Kind;

describe("accept before spawn", () => {
  it("spawns nothing before the accept is answered OK", async () => {
    let answer: ReportVerdict_Kind | "silence" = "silence";
    fake.onReport = () => answer;
    const { executions } = await startTestRunner(fake);
    await fake.offer({ acceptDeadline: durationFromMs(60_000) });
    await until(() => fake.reports(Report_Kind.ACCEPT).length >= 1, "the accept");
    expect(executions).toHaveLength(0);
    answer = OK;
    await until(() => executions.length === 1, "the spawn");
    assertAcceptBeforeSpawn(fake.history);
  });

  it("has a check that a runner which spawns on the offer does not pass", async () => {
    const link = connectTransport(fake.url);
    atEnd(() => link.abort());
    const client = createClient(RunnerService, link.transport);
    const { runnerId } = await client.register({ hostname: "h", projectDir: "/", executorProfile: "p", bootId: "b" });
    const watching = (async () => {
      for await (const { event } of client.watchRuns({ runnerId, bootId: "b" })) {
        if (event.case !== "offer") continue;
        const { runId, leaseId } = event.value;
        fake.note({ type: "spawn", leaseId });
        await client.reportStatus({ runnerId, reports: [{ runId, leaseId, seq: 1n, kind: Report_Kind.ACCEPT }] });
        return;
      }
    })();
    await fake.offer();
    await watching;
    expect(() => assertAcceptBeforeSpawn(fake.history)).toThrow(/before its accept/);
  });

  it("repeats the accept with the same seq until it is answered", async () => {
    // A third of it passes before an accept is repeated, and the runner gives up when it is over.
    fake.config.leaseTtl = durationFromMs(3_000);
    let left = 1;
    fake.onReport = ({ kind }) => {
      if (kind !== Report_Kind.ACCEPT || left === 0) return OK;
      left -= 1;
      return "silence";
    };
    const { executions } = await startTestRunner(fake);
    await fake.offer();
    await until(() => executions.length === 1, "the spawn");
    const accepts = fake.reports(Report_Kind.ACCEPT);
    expect(accepts.map(({ seq }) => seq)).toEqual([1n, 1n]);
    assertAcceptBeforeSpawn(fake.history);
  });

  it("executes an offer once, however often it is sent", async () => {
    const { executions } = await startTestRunner(fake);
    const offer = await fake.offer();
    await until(() => executions.length === 1, "the spawn");
    await fake.offer({ ...offer });
    await fake.offer({ ...offer });
    const other = await fake.offer();
    await until(() => executions.length === 2, "the second run");
    expect(executions.map(({ assignment }) => assignment.offer.runId)).toEqual([offer.runId, other.runId]);
    // One that is answered late is sent again, as the same report.
    expect(new Set(fake.reports(Report_Kind.ACCEPT).map(({ leaseId, seq }) => `${leaseId} ${seq}`)).size).toBe(2);
  });

  it("forgets a lease whose accept is answered STALE", async () => {
    fake.onReport = () => STALE;
    const { runner, executions } = await startTestRunner(fake);
    await fake.offer();
    await until(() => fake.reports(Report_Kind.ACCEPT).length === 1 && runner.activeRuns() === 0, "the lease is over");
    expect(executions).toHaveLength(0);
    const { request } = fake.of("heartbeat").at(-1)!;
    await until(() => fake.of("heartbeat").at(-1)!.request !== request, "the next heartbeat");
    expect(fake.of("heartbeat").at(-1)!.request.held).toEqual([]);
  });

  it("reports NOT_STARTED when the accept stays unanswered for lease_ttl, and spawns nothing even if it is answered then", async () => {
    fake.onReport = ({ kind }) => (kind === Report_Kind.ACCEPT ? "silence" : OK);
    const { runner, executions } = await startTestRunner(fake);
    await fake.offer();
    const [report] = await until(() => {
      const found = fake.reports(Report_Kind.NOT_STARTED);
      return found.length > 0 && found;
    }, "NOT_STARTED");
    expect(report).toMatchObject({ leaseId: "lease_1", seq: 2n, attempt: 1 });
    await until(() => runner.activeRuns() === 0, "the slot is free");
    const accepts = fake.of("batch").filter(({ reports }) => reports.some(({ kind }) => kind === Report_Kind.ACCEPT));
    expect(accepts.every(({ reports }) => reports.length === 1)).toBe(true);
    expect(executions).toHaveLength(0);
    const held = fake.of("heartbeat").flatMap(({ request }) => request.held);
    expect(held[0]).toMatchObject({ leaseId: "lease_1", attempt: 1 });
  });

  it("does not spawn and reports STOPPED when a stop is heard before the accept is answered", async () => {
    let answer: ReportVerdict_Kind | "silence" = "silence";
    fake.onReport = ({ kind }) => (kind === Report_Kind.ACCEPT ? answer : OK);
    const { executions } = await startTestRunner(fake);
    await fake.offer();
    await until(() => fake.reports(Report_Kind.ACCEPT).length >= 1, "the accept");
    const stream = await fake.stream();
    stream.push({ case: "stop", value: { runId: "run_1", leaseId: "lease_1", reason: "asked for" } });
    const beats = fake.of("heartbeat").length;
    await until(() => fake.of("heartbeat").length > beats + 1, "the stop is heard");
    answer = OK;
    await until(() => fake.reports(Report_Kind.STOPPED).length === 1, "STOPPED");
    expect(executions).toHaveLength(0);
    expect(fake.reports(Report_Kind.STARTED)).toHaveLength(0);
  });

  it("stops the executor with the grace of the directive, and reports what the executor came to", async () => {
    const { execution } = await startTestRunner(fake);
    await fake.offer();
    const { stops } = await execution("run_1");
    const stream = await fake.stream();
    stream.push({ case: "stop", value: { runId: "run_1", leaseId: "lease_1", grace: durationFromMs(70) } });
    await until(() => fake.reports(Report_Kind.STOPPED).length === 1, "STOPPED");
    expect(stops[0]).toEqual({ graceMs: 70, reason: "requested" });
  });

  it("ends the executor of a lease that is answered STALE, and reports nothing more", async () => {
    fake.onReport = ({ kind }) => (kind === Report_Kind.STARTED ? STALE : OK);
    const { execution, runner } = await startTestRunner(fake);
    await fake.offer();
    const { stops } = await execution("run_1");
    await until(() => stops.length === 1 && runner.activeRuns() === 0, "the executor is ended");
    expect(fake.reports().map(({ kind }) => kind)).toEqual([Report_Kind.ACCEPT, Report_Kind.STARTED]);
  });

  it("ends the executor of a lease that the coordinator does not know", async () => {
    const { execution, runner } = await startTestRunner(fake);
    await fake.offer();
    const { stops } = await execution("run_1");
    fake.verdictOf = () => LeaseVerdict_Kind.UNKNOWN;
    await until(() => stops.length === 1 && runner.activeRuns() === 0, "the executor is ended");
    expect(fake.reports(Report_Kind.STOPPED)).toHaveLength(0);
  });
});

describe("offers that are refused", () => {
  it("says that the runner is full", async () => {
    const { executions } = await startTestRunner(fake, { maxRuns: 1 });
    await fake.offer();
    await until(() => executions.length === 1, "the first run");
    await fake.offer();
    const [refusal] = await until(
      () => fake.reports(Report_Kind.REFUSE).length > 0 && fake.reports(Report_Kind.REFUSE),
      "REFUSE",
    );
    expect(refusal).toMatchObject({ leaseId: "lease_2", seq: 1n, message: "the runner is full, 1/1" });
    expect(executions).toHaveLength(1);
  });

  it("names a project_dir that is missing here", async () => {
    const { executions, runner } = await startTestRunner(fake);
    const projectDir = join("/", "not", "there");
    await fake.offer({ invocation: { schemaVersion: "2.0", mode: "start", sessionId: "s", projectDir } });
    await until(() => fake.reports(Report_Kind.REFUSE).length === 1, "REFUSE");
    expect(fake.reports(Report_Kind.REFUSE)[0]!.message).toContain(projectDir);
    expect(executions).toHaveLength(0);
    expect(runner.activeRuns()).toBe(0);
  });
});

describe("sessions", () => {
  it("ends an earlier executor of the session before it spawns another one", async () => {
    fake.onReport = ({ kind }) => (kind === Report_Kind.STARTED ? STALE : OK);
    const { execution, executions } = await startTestRunner(fake, { stubborn: true });
    const invocation = { schemaVersion: "2.0", mode: "start", sessionId: "ses_same" };
    await fake.offer({ invocation });
    const first = await execution("run_1");
    await until(() => first.stops.length === 1, "the first lease is over");
    fake.onReport = () => OK;
    await fake.offer({ invocation });
    await until(() => first.stops.length === 2, "the first executor is killed");
    expect(first.stops[1]).toMatchObject({ graceMs: 0 });
    expect(executions).toHaveLength(1);
    first.end();
    await until(() => executions.length === 2, "the second run");
  });
});
