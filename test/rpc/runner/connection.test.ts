import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { HeldLease_Phase } from "../../../gen/agentrunner/v1/runner_pb.ts";
import {
  ReportVerdict_Kind,
  Report_Kind,
  StreamClosing_Reason,
} from "../../../gen/agentrunner/v1/runner_service_pb.ts";
import { EXIT } from "../../../lib/exit-codes.ts";
import { runnerId } from "../../../lib/ids.ts";
import { FakeCoordinator } from "../../support/fake-coordinator.ts";
import { atEnd, cleanUp, startTestRunner, testSettings } from "../../support/test-runner.ts";
import { until } from "../../support/until.ts";

let fake: FakeCoordinator;

beforeEach(async () => {
  fake = await new FakeCoordinator().start();
  atEnd(() => fake.stop());
});

afterEach(cleanUp);

function streams(count: number): Promise<true> {
  return until(() => fake.streams.length >= count, `${count} streams`);
}

describe("registration", () => {
  it("says who the runner is and logs the id that both sides derive from it", async () => {
    const settings = testSettings(fake.url);
    const { runner, log } = await startTestRunner(fake, { ...settings, tags: ["gpu"], name: "n", maxRuns: 7 });
    await fake.stream();
    const { request } = fake.of("register")[0]!;
    expect(request).toMatchObject({
      hostname: "host-a",
      projectDir: settings.projectDir,
      executorProfile: "fake",
      tags: ["gpu"],
      name: "n",
      maxConcurrentRuns: 7,
      bootId: runner.bootId,
      previousBootId: "",
    });
    expect(runner.runnerId).toBe(runnerId({ ...settings, name: "n" }));
    expect(log.some((line) => line.includes(`Registered as ${runner.runnerId}`))).toBe(true);
    expect(fake.of("watch")[0]!.authorization).toBe("Bearer rt_1");
  });

  it("registers again, with the leases it holds, when the coordinator does not know it any more", async () => {
    const { execution } = await startTestRunner(fake);
    await fake.offer();
    await execution("run_1");
    let known = false;
    fake.onRegister = () => void (known = true);
    fake.onHeartbeat = () => {
      if (!known) throw new ConnectError("no such runner", Code.NotFound);
    };
    await until(() => fake.of("register").length === 2, "the second Register");
    const { request } = fake.of("register")[1]!;
    expect(request.held).toMatchObject([{ runId: "run_1", leaseId: "lease_1", phase: HeldLease_Phase.RUNNING }]);
    await streams(2);
    expect(fake.of("watch").at(-1)!.authorization).toBe("Bearer rt_2");
  });

  it("ends with 4, and names --name, when another live process keeps the identity for too long", async () => {
    fake.onRegister = () => {
      throw new ConnectError("lnch_x runs on host-a since 10:00; set another --name", Code.AlreadyExists);
    };
    const { runner, log } = await startTestRunner(fake, {
      deps: { twinPatienceMs: 100, random: () => 0.1 },
    });
    expect(await runner.done).toBe(EXIT.refused);
    expect(fake.of("register").length).toBeGreaterThan(1);
    expect(log.at(-2)).toContain("--name");
  });

  it("gets the identity when the other process ends in time", async () => {
    let twins = 2;
    fake.onRegister = () => {
      twins -= 1;
      if (twins >= 0) throw new ConnectError("taken", Code.AlreadyExists);
    };
    await startTestRunner(fake);
    await fake.stream();
    expect(fake.of("register")).toHaveLength(3);
  });

  it.each([Code.FailedPrecondition, Code.Unauthenticated, Code.InvalidArgument])(
    "ends with 4 when Register is answered with code %i",
    async (code) => {
      fake.onRegister = () => {
        throw new ConnectError("no", code);
      };
      const { runner } = await startTestRunner(fake);
      expect(await runner.done).toBe(EXIT.refused);
      expect(fake.of("register")).toHaveLength(1);
    },
  );

  it("says what the runner is now when that changed while a Register was under way", async () => {
    const answer = Promise.withResolvers<void>();
    fake.onRegister = () => answer.promise;
    const settings = testSettings(fake.url);
    const { runner } = await startTestRunner(fake, { ...settings, tags: ["old"] });
    await until(() => fake.of("register").length === 1, "a Register");
    runner.reload({ executor: { ...settings.executor, config: { speed: 2 } }, tags: ["new"] });
    fake.onRegister = () => undefined;
    answer.resolve();
    await fake.stream();
    const [first, second, ...more] = fake.of("register").map(({ request }) => request);
    expect(first).toMatchObject({ tags: ["old"] });
    expect(second).toMatchObject({ tags: ["new"], executor: { config: { speed: 2 } } });
    expect(more).toEqual([]);
    expect(fake.of("watch").map(({ authorization }) => authorization)).toEqual(["Bearer rt_2"]);
  });

  it("ends with 3 when --once cannot reach the coordinator at all, and otherwise goes on trying", async () => {
    const port = await freePort();
    const coordinatorUrl = `http://127.0.0.1:${port}`;
    const once = await startTestRunner(fake, { coordinatorUrl, once: true });
    expect(await once.runner.done).toBe(EXIT.unreachable);
    expect(once.log.join("")).toContain(`cannot reach coordinator at ${coordinatorUrl} (ECONNREFUSED)`);
    const patient = await startTestRunner(fake, { coordinatorUrl, deps: { random: () => 0.01 } });
    await until(() => patient.log.filter((line) => line.includes("ECONNREFUSED")).length >= 3, "three attempts");
    expect(patient.runner.connectionState().type).not.toBe("closed");
  });
});

describe("a proxy that answers in place of the coordinator", () => {
  // 200 is the page of a network that wants to be paid first.
  const STATUSES = [200, 401, 403, 404, 407, 502];

  it.each(STATUSES)("with HTTP %i says nothing about the runner or its runs", async (status) => {
    const { runner, execution } = await startTestRunner(fake);
    await fake.offer();
    const { stops } = await execution("run_1");
    let answers = 0;
    fake.proxyAnswer = () => {
      answers += 1;
      return status;
    };
    fake.streams.at(-1)!.end();
    const closed = () => runner.connectionState().type === "closed";
    await until(() => answers >= 6 || closed(), "six answers of the proxy");
    expect(closed()).toBe(false);
    fake.proxyAnswer = () => undefined;
    await streams(2);
    expect(fake.of("register")).toHaveLength(1);
    expect(stops).toEqual([]);
  });

  it.each(STATUSES)("with HTTP %i to another Register is waited out", async (status) => {
    const { runner } = await startTestRunner(fake);
    await fake.stream();
    let answers = 0;
    fake.proxyAnswer = (path) => {
      if (!path.endsWith("/Register")) return undefined;
      answers += 1;
      return status;
    };
    await fake.close(StreamClosing_Reason.REMOVED);
    const closed = () => runner.connectionState().type === "closed";
    await until(() => answers >= 3 || closed(), "three answers of the proxy");
    expect(closed()).toBe(false);
    fake.proxyAnswer = () => undefined;
    await until(() => fake.of("register").length === 2, "the second Register");
    await streams(2);
  });

  it.each([401, 403])("with HTTP %i to the first Register ends the runner with 4", async (status) => {
    fake.proxyAnswer = () => status;
    const { runner, log } = await startTestRunner(fake);
    expect(await runner.done).toBe(EXIT.refused);
    expect(log.join("")).toContain(`a proxy before ${fake.url} refuses the call (HTTP ${status})`);
  });
});

describe("the stream", () => {
  it("is reopened with full jitter after the coordinator was killed, and runs go on meanwhile", async () => {
    const waits: number[] = [];
    const { runner, execution } = await startTestRunner(fake, {
      deps: {
        random: () => {
          waits.push(0.5);
          return 0.5;
        },
      },
    });
    await fake.offer();
    const { stops } = await execution("run_1");
    await fake.stop();
    await until(() => waits.length >= 3, "three waits");
    expect(runner.connectionState().type).not.toBe("attached");
    await fake.start();
    await streams(2);
    expect(stops).toEqual([]);
    expect(fake.of("watch").at(-1)!.request).toMatchObject({ freeSlots: 3, held: [{ leaseId: "lease_1" }] });
  });

  it("is reopened when nothing comes on it for max(POLL_TIMEOUT, 2 keep-alives)", async () => {
    fake.keepalive = false;
    const { log } = await startTestRunner(fake, { pollTimeoutMs: 100 });
    await streams(2);
    const [first, second] = fake.of("watch");
    expect(second!.atMs - first!.atMs).toBeGreaterThanOrEqual(195);
    expect(log.some((line) => line.includes("nothing came on the stream for 200 ms"))).toBe(true);
  });

  it("is confirmed by a heartbeat as soon as its first message has come, each one anew", async () => {
    fake.config.heartbeatInterval = durationFromMs(60_000);
    await startTestRunner(fake, { heartbeatIntervalMs: 60_000 });
    const named = (streamId: string) => fake.of("heartbeat").some(({ request }) => request.streamId === streamId);
    await until(() => named("stream_0"), "the first is named");
    await fake.close(StreamClosing_Reason.RECYCLE);
    await until(() => named("stream_1"), "the second is named");
    expect(fake.of("watch").map(({ request }) => request.confirmsStream)).toEqual([true, true]);
  });

  it("whose first message does not come is not confirmed, and the log says what may keep it back", async () => {
    fake.opens = false;
    const { log } = await startTestRunner(fake, { pollTimeoutMs: 200 });
    await streams(2);
    await until(() => log.some((line) => line.includes("a proxy on the way may keep it back")), "the log says so");
    expect(fake.of("heartbeat").filter(({ request }) => request.streamId !== "")).toEqual([]);
  });

  it("is reopened at once and without complaint when the coordinator recycles it", async () => {
    const { log } = await startTestRunner(fake, { deps: { random: () => 0.999 } });
    await fake.stream();
    await until(() => fake.of("heartbeat").length > 1, "some time");
    await fake.close(StreamClosing_Reason.RECYCLE);
    await streams(2);
    expect(log.filter((line) => line.includes('"level":"warn"') || line.includes('"level":"error"'))).toEqual([]);
  });

  it("stays closed after SUPERSEDED until a heartbeat finds that no stream is open", async () => {
    const { runner } = await startTestRunner(fake);
    await fake.stream();
    await fake.close(StreamClosing_Reason.SUPERSEDED);
    await until(() => runner.connectionState().type === "superseded", "superseded");
    const beats = fake.of("heartbeat").length;
    await until(() => fake.of("heartbeat").length > beats + 3, "heartbeats");
    expect(fake.streams).toHaveLength(1);
    fake.streamMissing = true;
    await streams(2);
  });

  it("is reopened when a heartbeat says that the coordinator has none", async () => {
    await startTestRunner(fake);
    await fake.stream();
    fake.streamMissing = true;
    await streams(2);
    fake.streamMissing = false;
    await until(() => fake.streams[0]!.closed, "the unresponsive stream is closed");
  });

  it("ends the runner with 4 when another process has taken the identity", async () => {
    const { runner, execution } = await startTestRunner(fake);
    await fake.offer();
    const { stops } = await execution("run_1");
    await fake.close(StreamClosing_Reason.REPLACED);
    expect(await runner.done).toBe(EXIT.refused);
    expect(stops[0]).toMatchObject({ reason: "runner-shutdown" });
  });

  it("ends the runner with 4 when its token is not valid any more", async () => {
    const { runner } = await startTestRunner(fake);
    await fake.stream();
    fake.onHeartbeat = () => {
      throw new ConnectError("token of an earlier process", Code.Unauthenticated);
    };
    expect(await runner.done).toBe(EXIT.refused);
  });

  it("leads to another Register after REMOVED", async () => {
    await startTestRunner(fake);
    await fake.stream();
    await fake.close(StreamClosing_Reason.REMOVED);
    await until(() => fake.of("register").length === 2, "the second Register");
    await streams(2);
  });
});

describe("heartbeats", () => {
  it("list a lease from its accept to the answer of its final report, by phase", async () => {
    let answer: ReportVerdict_Kind | "silence" = "silence";
    fake.onReport = () => answer;
    const { execution } = await startTestRunner(fake);
    await fake.offer();
    const phase = (wanted: HeldLease_Phase | undefined) =>
      until(() => (fake.of("heartbeat").at(-1)?.request.held[0]?.phase ?? 0) === (wanted ?? 0), `phase ${wanted}`);
    await phase(HeldLease_Phase.ACCEPTING);
    answer = ReportVerdict_Kind.OK;
    const one = await execution("run_1");
    await phase(HeldLease_Phase.RUNNING);
    fake.onReport = ({ kind }) => (kind === Report_Kind.COMPLETED ? "silence" : ReportVerdict_Kind.OK);
    one.end();
    await phase(HeldLease_Phase.FINAL);
    fake.onReport = () => ReportVerdict_Kind.OK;
    await phase(undefined);
  });

  it("go on while reports hang and the stream is silent", async () => {
    fake.onReport = () => "silence";
    fake.keepalive = false;
    await startTestRunner(fake);
    await fake.offer();
    await until(() => fake.reports().length > 0, "the accept");
    const before = fake.of("heartbeat").length;
    await until(() => fake.of("heartbeat").length >= before + 5, "five heartbeats");
  });
});

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
