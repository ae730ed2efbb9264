import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import type { MessageInitShape } from "@bufbuild/protobuf";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ExecutorInvocationSchema } from "../../../gen/agentrunner/v1/executor_pb.ts";
import { LeaseVerdict_Kind } from "../../../gen/agentrunner/v1/runner_pb.ts";
import { Report_Kind } from "../../../gen/agentrunner/v1/runner_service_pb.ts";
import type { RunOfferSchema } from "../../../gen/agentrunner/v1/runner_service_pb.ts";
import { createLogger } from "../../../lib/log.ts";
import { executorOf } from "../../../runner/execution/execute.ts";
import type { ExecutorDeps } from "../../../runner/execution/execute.ts";
import { startFailure } from "../../../runner/execution/start-failure.ts";
import { notSpawned } from "../../../runner/execution/supervisor.ts";
import { FakeCoordinator } from "../../support/fake-coordinator.ts";
import { atEnd, cleanUp, startTestRunner, tempDir, testSettings } from "../../support/test-runner.ts";
import { until } from "../../support/until.ts";

let fake: FakeCoordinator;

beforeEach(async () => {
  fake = await new FakeCoordinator().start();
  atEnd(() => fake.stop());
});

afterEach(cleanUp);

const noExecutorTools: Pick<ExecutorDeps, "leash" | "mcp"> = {
  leash: { add: () => undefined, remove: () => undefined },
  mcp: {
    open: () => ({ url: "http://127.0.0.1:1/mcp/x", close: () => undefined }),
    close: () => Promise.resolve(),
  },
};

/** A runner that really spawns. */
function spawningRunner(maxRuns = 1_000) {
  const settings = { ...testSettings(fake.url), maxRuns };
  const log = createLogger({ name: "test", level: "error", format: "json", destination: { write: () => undefined } });
  return startTestRunner(fake, {
    ...settings,
    deps: { executor: () => executorOf(settings, { ...noExecutorTools, log }) },
  });
}

function offerFor(projectDir: string): MessageInitShape<typeof RunOfferSchema> {
  const invocation = create(ExecutorInvocationSchema, {
    schemaVersion: "2.0",
    mode: "start",
    projectDir,
    prompt: "hi",
  });
  return { invocation };
}

const refusalOf = (leaseId: string) =>
  until(
    () => fake.reports(Report_Kind.REFUSE).find((report) => report.leaseId === leaseId),
    `the refusal of ${leaseId}`,
  );

describe("an offer whose directory cannot be looked at", () => {
  it.each([
    ["missing", "nowhere", /nowhere is not a directory on the runner's host$/],
    ["a file", "file", /file is not a directory on the runner's host$/],
    ["below a file", "file/x", /file\/x is not a directory on the runner's host$/],
    ["a loop of links", "loop/x", /x leads through a loop of symbolic links \(ELOOP\)$/],
    ["too long a name", "b".repeat(300), /b… has a name that is longer than the file system allows \(ENAMETOOLONG\)$/],
    ["no path at all", "a\0b", /a\\x00b' is no path: it holds a NUL character$/],
  ])("is refused for good when it is %s, and the stream goes on", async (_, name, reason) => {
    const dir = tempDir();
    writeFileSync(join(dir, "file"), "");
    symlinkSync("loop", join(dir, "loop"));
    const { log } = await startTestRunner(fake);
    const { leaseId } = await fake.offer(offerFor(`${dir}/${name}`));
    expect(await refusalOf(leaseId)).toMatchObject({
      permanent: true,
      message: expect.stringMatching(reason) as string,
    });
    const next = await fake.offer(offerFor(dir));
    await until(() => fake.reports(Report_Kind.ACCEPT).some((r) => r.leaseId === next.leaseId), "the next accept");
    expect(fake.streams).toHaveLength(1);
    expect(log.join("")).not.toContain("cannot reach coordinator");
  });

  it.skipIf(process.getuid?.() === 0)("is refused for good when the runner's user may not enter it", async () => {
    const dir = join(tempDir(), "closed");
    mkdirSync(dir, { mode: 0o600 });
    await startTestRunner(fake);
    const { leaseId } = await fake.offer(offerFor(dir));
    expect((await refusalOf(leaseId)).message).toContain("may not be entered by the runner's user (EACCES)");
  });
});

describe("whatever an offer holds", () => {
  it("the runner answers it with accept or refuse, reports how it ended, and its stream lives", async () => {
    await spawningRunner();
    const home = tempDir();
    const text = fc.string({ unit: "binary", maxLength: 40 });
    const json = fc.dictionary(
      text,
      fc.oneof(text, fc.double(), fc.boolean(), fc.constant(null)),
    ) as fc.Arbitrary<never>;
    const dir = fc.oneof(
      fc.constant(""),
      fc.constant(home),
      text,
      text.map((name) => `/${name}`),
      fc.constant("/dev/null/x"),
    );
    const duration = fc.record({ seconds: fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n), nanos: fc.integer() });
    const invocation = fc.record({
      schemaVersion: text,
      mode: text,
      sessionId: text,
      sessionName: text,
      executorSessionId: text,
      prompt: text,
      projectDir: dir,
      parameters: fc.oneof(fc.constant({}), json),
    });
    let n = 0;
    const offer = fc.record({
      runId: text,
      leaseId: text,
      attempt: fc.nat(),
      runToken: text,
      acceptDeadline: duration,
      timeout: fc.option(duration, { nil: undefined }),
      idleTimeout: fc.option(duration, { nil: undefined }),
      invocation: fc.option(invocation, { nil: undefined }),
    });
    const offers = fc.asyncProperty(offer, async (fields) => {
      n += 1;
      const leaseId = `${n} ${fields.leaseId}`;
      await fake.offer({ ...fields, leaseId });
      const ofLease = () => fake.reports().filter((report) => report.leaseId === leaseId);
      const last = await until(
        () => ofLease().findLast(({ kind }) => kind !== Report_Kind.STARTED && kind !== Report_Kind.ACCEPT),
        "the last word",
      );
      const first = ofLease()[0]?.kind;
      expect(first === Report_Kind.ACCEPT || first === last.kind).toBe(true);
      expect(fake.streams).toHaveLength(1);
    });
    await fc.assert(offers, { numRuns: 60 });
  });
});

describe("an order or verdict that cannot be handled", () => {
  it("is logged with its run, and those after it count", async () => {
    const { log, executions } = await startTestRunner(fake);
    const broken = await fake.offer();
    const well = await fake.offer();
    await until(() => executions.length === 2, "both executions");
    const stop = (leaseId: string) => executions.find(({ assignment }) => assignment.offer.leaseId === leaseId)!;
    stop(broken.leaseId).stops.push = () => {
      throw new Error("broken for the test");
    };
    const stream = await fake.stream();
    for (const { runId, leaseId } of [broken, well]) stream.push({ case: "stop", value: { runId, leaseId } });
    await until(() => stop(well.leaseId).stops.length > 0, "the second stop");
    fake.verdictOf = () => LeaseVerdict_Kind.STOP;
    await until(() => stop(well.leaseId).stops.length > 0, "the verdict about the second");
    expect(fake.streams).toHaveLength(1);
    const line = log.find((one) => one.includes("could not be handled")) ?? "";
    expect(JSON.parse(line)).toMatchObject({ run_id: broken.runId, err: { message: "broken for the test" } });
  });
});

describe("a machine that can start nothing", () => {
  it("hands the run back, says why, and offers no slot for a while", async () => {
    const error = Object.assign(new Error("spawn EMFILE"), { code: "EMFILE" });
    const { log, runner } = await startTestRunner(fake, {
      deps: { executor: () => () => notSpawned(startFailure("/bin/true", error)) },
    });
    const { leaseId } = await fake.offer();
    const [handedBack] = await until(() => {
      const reports = fake.reports(Report_Kind.NOT_STARTED);
      return reports.length > 0 && reports;
    }, "the run is handed back");
    expect(handedBack).toMatchObject({ leaseId, message: "executor /bin/true could not be started: spawn EMFILE" });
    expect(fake.reports(Report_Kind.FAILED)).toEqual([]);
    await until(() => fake.of("heartbeat").at(-1)?.request.freeSlots === 0, "a heartbeat without slots");
    const refused = await fake.offer();
    const refusal = await refusalOf(refused.leaseId);
    expect(refusal).toMatchObject({ permanent: false, message: expect.stringContaining("EMFILE") as string });
    await until(() => fake.of("heartbeat").at(-1)?.request.freeSlots === 1, "one slot, after the pause");
    expect(log.join("")).toContain("nothing can be started on this machine");
    expect(runner.activeRuns()).toBe(0);
  });
});
