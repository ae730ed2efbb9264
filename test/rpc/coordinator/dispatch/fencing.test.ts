import { inspect } from "node:util";
import { create } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { afterEach, describe, expect, it } from "vitest";
import { ExecutorEventSchema } from "../../../../gen/agentrunner/v1/executor_pb.ts";
import type { ReportSchema, RunOffer } from "../../../../gen/agentrunner/v1/runner_service_pb.ts";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { startTestCoordinator, stopTestCoordinators } from "../../../support/coordinator.ts";
import type { TestCoordinator } from "../../../support/coordinator.ts";
import { output, RawRunner } from "../../../support/raw-runner.ts";

afterEach(stopTestCoordinators);

const RETRY = { onLost: { policy: 2 } } as const;
const REPORTS = ["ACCEPT", "REFUSE", "NOT_STARTED", "STARTED", "PROGRESS", "COMPLETED", "FAILED", "STOPPED"] as const;

/** What an observer saw of one report: how it was answered, and all that GetRun shows before and after. */
interface Observed {
  readonly kind: string;
  readonly verdict: string;
  readonly before: string;
  readonly after: string;
}

/** What a history of reports under a lease that is over has against it; empty when the lease was fenced. */
function breaches(history: readonly Observed[]): string[] {
  return history.flatMap(({ kind, verdict, before, after }) => [
    ...(verdict === "STALE" ? [] : [`${kind} was answered ${verdict}`]),
    ...(before === after ? [] : [`${kind} changed the run`]),
  ]);
}

/** A runner that lost its lease reports under it while another one runs the run. */
async function reportsOfLostLease(c: TestCoordinator, plantFault = (): void => undefined): Promise<Observed[]> {
  const first = await RawRunner.online(c);
  const { runId } = await c.create(RETRY);
  const old = await first.take();
  const successor = await first.again({ bootId: "boot_2", previousBootId: first.identity.bootId });
  const second = await RawRunner.online(c);
  await second.take();
  plantFault();
  const seen = async (): Promise<string> => {
    const { attempts, ...run } = await c.run(runId);
    // A late final report is kept as evidence on its attempt, and only there.
    for (const attempt of attempts) delete attempt.lateReport;
    return inspect([run, attempts], { depth: null });
  };
  const history: Observed[] = [];
  for (const kind of REPORTS) {
    const before = await seen();
    const verdict = await successor.report(old, kind, { seq: BigInt(10 + history.length), message: "late" });
    history.push({ kind, verdict, before, after: await seen() });
  }
  return history;
}

describe("a lease that is over", () => {
  it("changes nothing, whatever is reported under it, and every report is STALE", async () => {
    expect(breaches(await reportsOfLostLease(await startTestCoordinator()))).toEqual([]);
  });

  it("is seen to be open when a store ignores lease ids", async () => {
    const c = await startTestCoordinator();
    const { store } = c;
    const report = store.report.bind(store);
    const ignoreLeaseIds: typeof report = async (runnerId, reports, ...rest) => {
      const found = await store.getRun(reports[0]?.runId ?? "");
      const current = found?.run.attempts.at(-1);
      if (current === undefined) return report(runnerId, reports, ...rest);
      const { leaseId, attempt } = current;
      return report(
        current.runnerId,
        reports.map((one) => ({ ...one, leaseId, attempt })),
        ...rest,
      );
    };
    const found = breaches(await reportsOfLostLease(c, () => (store.report = ignoreLeaseIds)));
    expect(found).toContain("COMPLETED changed the run");
    expect(found).toContain("PROGRESS was answered OK");
  });

  it("takes no events either", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    const { runId, sessionId } = await c.create();
    const offer = await runner.offer();
    expect((await runner.append(offer, 1, [output("early")])).kind).toBe(4);
    await runner.ok(offer, "ACCEPT");
    await runner.append(offer, 1, [output("in time")]);
    await runner.ok(offer, "COMPLETED");
    const late = await runner.append(offer, 2, [output("late")]);
    expect([late.kind, late.committedSeq]).toEqual([2, 1n]);
    const { events } = await c.sessions.listSessionEvents({ sessionId, runId });
    expect(events.filter(({ event }) => event.case === "executor")).toHaveLength(1);
  });
});

describe("a runner whose counter starts again", () => {
  it("is told the number to send, and its final report is not lost", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    const { runId } = await c.create();
    const offer = await runner.offer();
    await runner.ok(offer, "ACCEPT", { seq: 5n });
    await runner.ok(offer, "STARTED", { seq: 6n });
    for (const kind of ["COMPLETED", "FAILED", "STOPPED"] as const) {
      for (const seq of [1n, 2n, 5n, 6n]) {
        const { verdicts } = await runner.reports([runner.said(offer, kind, { seq })]);
        expect(verdicts[0]).toMatchObject({
          kind: 4,
          message: `seq ${seq} is not above 6, and no report of this kind was applied under it; send 7`,
          nextSeq: 7n,
        });
      }
    }
    expect(await runner.report(offer, "ACCEPT", { seq: 5n })).toBe("OK");
    expect(await runner.report(offer, "STARTED", { seq: 6n })).toBe("OK");
    expect(await runner.report(offer, "STARTED", { seq: 5n })).toBe("INVALID");
    await runner.ok(offer, "COMPLETED", { seq: 7n });
    expect(await c.run(runId)).toMatchObject({ state: 6 });
  });
});

describe("an event of a kind that the coordinator does not know", () => {
  it("is kept as it came, among the others", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    const { runId, sessionId } = await c.create();
    const offer = await runner.take();
    const future = { no: 99, wireType: 2, data: new Uint8Array([2, 104, 105]) };
    const unknown = create(ExecutorEventSchema);
    unknown.$unknown = [future];
    const verdict = await runner.append(offer, 1, [output("before"), unknown, output("after")]);
    expect([verdict.kind, verdict.committedSeq]).toEqual([1, 3n]);
    const { events } = await c.sessions.listSessionEvents({ sessionId, runId });
    const said = events.flatMap(({ event }) => (event.case === "executor" ? [event.value] : []));
    expect(said.map(({ event }) => event.case)).toEqual(["output", undefined, "output"]);
    expect(said[1]?.$unknown).toEqual([future]);
  });
});

describe("a report", () => {
  it("is applied once: a repeat of its number is answered OK and changes nothing", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    const { runId } = await c.create();
    const offer = await runner.take();
    await runner.ok(offer, "COMPLETED", { seq: 7n, result: { text: "first" } });
    expect(await runner.report(offer, "COMPLETED", { seq: 7n, result: { text: "second" } })).toBe("OK");
    expect(await runner.report(offer, "FAILED", { seq: 7n })).toBe("STALE");
    expect(await runner.report(offer, "FAILED", { seq: 3n })).toBe("STALE");
    expect(await runner.report(offer, "FAILED", { seq: 8n })).toBe("STALE");
    const run = await c.run(runId);
    expect([run.state, run.result?.text]).toEqual([6, "first"]);
    expect(await c.history(runId)).toEqual(["PENDING", "CLAIMED", "RUNNING", "COMPLETED"]);
  });

  it("of another attempt than the offer's is INVALID; without a number of the attempt it is taken", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    await c.create();
    const offer = await runner.offer();
    expect(await runner.report(offer, "ACCEPT", { attempt: 2 })).toBe("INVALID");
    expect(await runner.report(offer, "ACCEPT", { attempt: 0 })).toBe("OK");
    expect(await runner.report(offer, "STARTED", { attempt: 9 })).toBe("INVALID");
    expect(await runner.report(offer, "STARTED")).toBe("OK");
  });

  it("of another runner's lease is INVALID", async () => {
    const c = await startTestCoordinator();
    const owner = await RawRunner.online(c);
    const { runId } = await c.create();
    const thief = await RawRunner.online(c);
    const offer = await owner.offer();
    expect(await thief.report(offer, "ACCEPT")).toBe("INVALID");
    await owner.accepted(offer);
    for (const kind of REPORTS) expect(await thief.report(offer, kind)).toBe("INVALID");
    expect((await thief.append(offer, 1, [output("x")])).kind).toBe(4);
    expect(await thief.beat({ runId, leaseId: offer.leaseId })).toEqual(["UNKNOWN"]);
    expect(await c.state(runId)).toBe("CLAIMED");
  });

  it("of a run that does not exist is UNKNOWN, and of a kind that nobody knows INVALID", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    await c.create();
    const offer = await runner.take();
    expect(await runner.report({ ...offer, runId: "run_gone" }, "STARTED")).toBe("UNKNOWN");
    expect((await runner.append({ ...offer, runId: "run_gone" }, 1, [])).kind).toBe(3);
    expect(await runner.beat({ runId: "run_gone", leaseId: offer.leaseId })).toEqual(["UNKNOWN"]);
    for (const kind of [0, 99]) {
      const report = { ...runner.said(offer, "STARTED"), kind } as MessageInitShape<typeof ReportSchema>;
      expect((await runner.reports([report])).verdicts[0]?.kind).toBe(4);
    }
  });

  it("may carry any number that fits: a number beyond the exact ones is INVALID and harms nothing", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    const { runId } = await c.create();
    const offer = await runner.take();
    expect(await runner.report(offer, "PROGRESS", { seq: 2n ** 64n - 1n })).toBe("INVALID");
    expect(await runner.report(offer, "PROGRESS", { seq: 2n ** 60n })).toBe("INVALID");
    const huge = 2n ** 64n - 1n;
    await runner.ok(offer, "COMPLETED", { seq: 9n, eventsMissing: huge, outputBytes: huge, pid: 2 ** 32 - 1 });
    expect(await c.state(runId)).toBe("COMPLETED");
  });
});

describe("a batch", () => {
  const batch = async (kinds: (runner: RawRunner, offers: RunOffer[]) => Parameters<RawRunner["reports"]>[0]) => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    await c.create();
    await c.create();
    const offers = [await runner.offer(), await runner.offer()];
    return { c, offers, answer: runner.reports(kinds(runner, offers)) };
  };

  it("is decided report by report, in order", async () => {
    const { answer } = await batch((runner, [a, b]) => [
      runner.said(a as RunOffer, "ACCEPT"),
      runner.said(b as RunOffer, "STARTED"),
      runner.said(b as RunOffer, "ACCEPT"),
    ]);
    expect((await answer).verdicts.map(({ kind, runState }) => [kind, runState])).toEqual([
      [1, 3],
      [4, 2],
      [1, 3],
    ]);
  });

  it("that holds an accept and a later report of its lease has only that report refused", async () => {
    const { c, offers, answer } = await batch((runner, [a, b]) => [
      runner.said(b as RunOffer, "ACCEPT"),
      runner.said(a as RunOffer, "ACCEPT"),
      runner.said(a as RunOffer, "STARTED"),
    ]);
    const { verdicts } = await answer;
    expect(verdicts.map(({ kind }) => kind)).toEqual([1, 1, 4]);
    expect(verdicts[2]?.message).toContain("wait for the answer to the accept");
    for (const { runId } of offers) expect(await c.state(runId)).toBe("CLAIMED");
  });

  it("of no reports is refused", async () => {
    const { answer } = await batch(() => []);
    await expect(answer).rejects.toMatchObject({ code: Code.InvalidArgument });
  });
});
