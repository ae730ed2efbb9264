import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ExecutorResultSchema } from "../../../gen/agentrunner/v1/executor_pb.ts";
import { Report_Kind, ReportVerdict_Kind } from "../../../gen/agentrunner/v1/runner_service_pb.ts";
import type { AppendEventsRequest } from "../../../gen/agentrunner/v1/runner_service_pb.ts";
import { errorInfo } from "../../../lib/rpc/error-info.ts";
import { FakeCoordinator } from "../../support/fake-coordinator.ts";
import { SlowProxy } from "../../support/slow-proxy.ts";
import { atEnd, cleanUp, outputEvent, startTestRunner } from "../../support/test-runner.ts";
import { until } from "../../support/until.ts";

let fake: FakeCoordinator;

beforeEach(async () => {
  fake = await new FakeCoordinator().start();
  atEnd(() => fake.stop());
});

afterEach(cleanUp);

const { COMPLETED } = Report_Kind;
const { OK } = ReportVerdict_Kind;

/** A runner whose way up is narrow: 64 KiB a second for all that it sends. */
async function behindSlowUplink() {
  fake.config.heartbeatInterval = durationFromMs(1_000);
  const proxy = await SlowProxy.start({ url: fake.url, up: 64 * 1024 });
  atEnd(() => proxy.stop());
  return startTestRunner(fake, { coordinatorUrl: proxy.url });
}

const ended = (runId: string) => fake.reports(COMPLETED).some((report) => report.runId === runId);

function outputs({ batches }: AppendEventsRequest): string[] {
  return batches.flatMap(({ events }) =>
    events.flatMap(({ event }) => (event.case === "output" ? [event.value.text] : [])),
  );
}

describe("on a slow uplink", () => {
  it("a large result arrives whole, and the end of another run overtakes it", { timeout: 60_000 }, async () => {
    const { execution } = await behindSlowUplink();
    await fake.offer();
    await fake.offer();
    const [large, small] = [await execution("run_1"), await execution("run_2")];
    large.end({ result: create(ExecutorResultSchema, { text: "x".repeat(250 * 1024) }) });
    small.end({ result: create(ExecutorResultSchema, { text: "small" }) });
    await until(() => ended("run_1") && ended("run_2"), "both ends");
    expect(fake.reports(COMPLETED).map(({ runId, result }) => [runId, result?.text.length])).toEqual([
      ["run_2", 5],
      ["run_1", 250 * 1024],
    ]);
  });

  it(
    "the backlog of one run does not delay the end of another, and all of it arrives",
    { timeout: 60_000 },
    async () => {
      const { execution } = await behindSlowUplink();
      await fake.offer();
      await fake.offer();
      const [noisy, quiet] = [await execution("run_1"), await execution("run_2")];
      for (let i = 0; i < 40; i += 1) noisy.hooks.onEvent(outputEvent("x".repeat(16 * 1024)));
      noisy.end();
      await until(() => fake.of("events").length > 0, "the first batch");
      quiet.hooks.onEvent(outputEvent("quiet"));
      quiet.end();
      await until(() => ended("run_1") && ended("run_2"), "both ends");
      expect(fake.reports(COMPLETED).map(({ runId, eventsMissing }) => [runId, eventsMissing])).toEqual([
        ["run_2", 0n],
        ["run_1", 0n],
      ]);
    },
  );
});

describe("on a slow downlink", () => {
  it("a prompt that needs longer than the longest silence arrives", { timeout: 60_000 }, async () => {
    fake.config.heartbeatInterval = durationFromMs(1_000);
    fake.config.leaseTtl = durationFromMs(60_000);
    fake.keepalive = false;
    const proxy = await SlowProxy.start({ url: fake.url, down: 64 * 1024 });
    atEnd(() => proxy.stop());
    const { executions, log } = await startTestRunner(fake, { coordinatorUrl: proxy.url, pollTimeoutMs: 1_000 });
    const prompt = "x".repeat(200 * 1024);
    await fake.offer({ invocation: { schemaVersion: "2.0", mode: "start", sessionId: "ses_1", prompt } });
    await until(() => executions.length === 1, "the execution");
    expect(executions[0]!.assignment.offer.invocation?.prompt).toBe(prompt);
    expect(log.filter((line) => line.includes("nothing came on the stream"))).toEqual([]);
  });
});

it("no time that a coordinator sets is longer than a timer can be", async () => {
  fake.config.streamKeepalive = durationFromMs(15 * 86_400_000);
  fake.config.leaseTtl = durationFromMs(3_000_000_000);
  const { executions } = await startTestRunner(fake);
  await fake.offer();
  await until(() => executions.length === 1, "the execution");
  const beats = fake.of("heartbeat").length;
  await until(() => fake.of("heartbeat").length > beats + 5, "time passes");
  expect(fake.of("watch")).toHaveLength(1);
});

describe("what is refused for a while", () => {
  const result = () =>
    create(ExecutorResultSchema, {
      text: "x".repeat(100_000),
      data: { kind: { case: "stringValue", value: "d".repeat(100_000) } },
    });

  it.each([
    ["a full store", () => new ConnectError("full", Code.Unavailable, undefined, [errorInfo("STORE_FULL")])],
    ["a limit that nobody names", () => new ConnectError("exhausted", Code.ResourceExhausted)],
    ["a deadline", () => new ConnectError("slow", Code.DeadlineExceeded)],
  ])("by %s is repeated whole: neither a result nor an event is cut", async (_, error) => {
    let refusals = 0;
    const refuse = (): void => {
      refusals += 1;
      if (refusals <= 8) throw error();
    };
    fake.onEvents = () => {
      refuse();
      return Number.MAX_SAFE_INTEGER;
    };
    fake.onReport = ({ kind }) => {
      if (kind === COMPLETED) refuse();
      return OK;
    };
    const { execution, log } = await startTestRunner(fake);
    await fake.offer();
    const one = await execution("run_1");
    one.hooks.onEvent(outputEvent("kept"));
    await until(() => refusals >= 4, "events are refused");
    refusals = 0;
    one.end({ result: result() });
    await until(() => fake.of("answered").some(({ report }) => report.kind === COMPLETED), "the end");
    const report = fake.reports(COMPLETED).at(-1)!;
    expect([report.result, report.eventsMissing]).toEqual([result(), 0n]);
    expect(
      fake
        .of("events")
        .at(-1)!
        .request.batches[0]!.events.map(({ event }) => event.case),
    ).toEqual(["output"]);
    const said = log.filter((line) => line.includes("could not be sent; trying again"));
    expect(said.length, "said above debug, once for what waits").toBeGreaterThan(0);
    expect(said.length).toBeLessThanOrEqual(3);
  });

  it("by a proxy with HTTP 413 goes in smaller batches, and all of it arrives", async () => {
    const arrived: string[] = [];
    fake.onEvents = (request) => {
      const texts = outputs(request);
      if (texts.join("").length > 20_000) throw new ConnectError("HTTP 413", Code.Unknown);
      arrived.push(...texts);
      return Number.MAX_SAFE_INTEGER;
    };
    const { execution } = await startTestRunner(fake);
    await fake.offer();
    const one = await execution("run_1");
    const texts = Array.from({ length: 100 }, (_, i) => `${i} ${"x".repeat(5_000)}`);
    for (const text of texts) one.hooks.onEvent(outputEvent(text));
    one.end();
    await until(() => ended("run_1"), "the end");
    expect(arrived).toEqual(texts);
    expect(fake.reports(COMPLETED)[0]!.eventsMissing).toBe(0n);
  });
});

describe("an answer", () => {
  it("without verdicts is no progress: the report is sent again after a pause", async () => {
    // With such pauses a second call comes only when something asks for it.
    fake.config.reconnectMin = fake.config.reconnectMax = durationFromMs(60_000);
    fake.onVerdicts = (verdicts) => (fake.reports(COMPLETED).length > 0 ? [] : verdicts);
    const { log } = await startTestRunner(fake, { instant: true, deps: { random: () => 0.99 } });
    await fake.offer();
    await until(() => log.some((line) => line.includes("answered 0 of 1 reports")), "the log says so");
    const beats = fake.of("heartbeat").length;
    await until(() => fake.of("heartbeat").length > beats + 5, "time passes");
    expect(fake.reports(COMPLETED)).toHaveLength(1);
  });

  it("for another lease starts nothing", async () => {
    fake.onVerdicts = (verdicts) => verdicts.map((verdict) => ({ ...verdict, leaseId: "lease_other" }));
    const { executions } = await startTestRunner(fake);
    await fake.offer();
    await until(() => fake.of("batch").length >= 2, "the accept, again");
    expect(executions).toEqual([]);
  });
});
