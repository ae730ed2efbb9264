import { Code } from "@connectrpc/connect";
import { afterEach, describe, expect, it } from "vitest";
import { SessionStatus } from "../../../../gen/agentrunner/v1/session_pb.ts";
import { nameOf, startTestCoordinator, stopTestCoordinators } from "../../../support/coordinator.ts";
import type { TestCoordinator } from "../../../support/coordinator.ts";
import { output, RawRunner } from "../../../support/raw-runner.ts";

afterEach(stopTestCoordinators);

async function statusOf(c: TestCoordinator, sessionId: string): Promise<string> {
  return nameOf(SessionStatus, (await c.sessions.getSession({ sessionId })).session?.status ?? 0);
}

describe("a session", () => {
  it("has one active run: the next waits, says for whom, and starts when the first ends", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    const first = await c.create({ sessionName: "talk" });
    const second = await c.create({ sessionName: "talk", prompt: "and then?" });
    const third = await c.create({ sessionId: first.sessionId, prompt: "at last" });
    expect([second.sessionId, third.sessionId]).toEqual([first.sessionId, first.sessionId]);
    const offer = await runner.take();
    expect(offer.invocation).toMatchObject({ mode: "start", sessionName: "talk" });
    expect((await c.run(second.runId)).pendingReasons).toEqual([`waits for ${first.runId} of its session`]);
    expect((await c.run(third.runId)).pendingReasons).toEqual([`waits for ${first.runId} of its session`]);
    expect(runner.stream.offers).toHaveLength(1);
    await runner.ok(offer, "FAILED");
    const next = await runner.take();
    expect([next.runId, next.invocation?.mode, next.invocation?.prompt]).toEqual([second.runId, "resume", "and then?"]);
    expect((await c.run(third.runId)).pendingReasons).toEqual([`waits for ${second.runId} of its session`]);
    await runner.ok(next, "COMPLETED");
    expect((await runner.take()).runId).toBe(third.runId);
  });

  it("gives the place of its first run, on a runner that is full, to the run that waited longest", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c, { maxConcurrentRuns: 1 });
    const first = await c.create();
    const second = await c.create({ sessionId: first.sessionId });
    const other = await c.create();
    await runner.ok(await runner.take(), "COMPLETED");
    const next = await runner.take();
    expect(next.runId).toBe(second.runId);
    await runner.ok(next, "COMPLETED");
    expect((await runner.take()).runId).toBe(other.runId);
  });

  it("keeps its turn while its first run is tried again: the one behind it does not overtake", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    const first = await c.create({ onLost: { policy: 2 } });
    const second = await c.create({ sessionId: first.sessionId });
    await runner.ok(await runner.take(), "FAILED", { failure: 2 });
    expect((await runner.take()).runId).toBe(first.runId);
    expect(await c.state(second.runId)).toBe("PENDING");
  });

  it("has a status that follows from its runs", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    const { sessionId, runId } = await c.create();
    const offer = await runner.offer();
    const seen = [await statusOf(c, sessionId)];
    const note = async () => seen.push(await statusOf(c, sessionId));
    await runner.accepted(offer);
    await note();
    await c.runs.stopRun({ runId });
    await note();
    await runner.ok(offer, "STOPPED");
    await note();
    for (const kind of ["FAILED", "COMPLETED"] as const) {
      await c.create({ sessionId });
      await runner.ok(await runner.take(), kind);
      await note();
    }
    expect(seen).toEqual(["PENDING", "RUNNING", "STOPPING", "STOPPED", "FAILED", "IDLE"]);
    const { session } = await c.sessions.getSession({ sessionId });
    expect(session?.activeRunId).toBe("");
  });

  it("has a result for each run, and by default that of the last one that ended", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    const { sessionId, runId } = await c.create();
    const result = (id = "") => c.sessions.getSessionResult({ sessionId, runId: id });
    await expect(result()).rejects.toMatchObject({ code: Code.FailedPrecondition });
    await expect(result(runId)).rejects.toMatchObject({ code: Code.FailedPrecondition });
    await runner.ok(await runner.take(), "COMPLETED", { result: { text: "one", data: { n: 1 } } });
    const second = await c.create({ sessionId });
    expect(await result()).toMatchObject({ runId, state: 6, result: { text: "one", data: { n: 1 } } });
    await runner.ok(await runner.take(), "FAILED", { message: "exit 3", result: { text: "half" } });
    expect(await result()).toMatchObject({
      runId: second.runId,
      state: 7,
      message: "exit 3",
      result: { text: "half" },
    });
    expect((await result(runId)).result?.text).toBe("one");
    await expect(result("run_none")).rejects.toMatchObject({ code: Code.NotFound });
    const other = await c.create();
    await expect(result(other.runId)).rejects.toMatchObject({ code: Code.NotFound });
  });

  it("is started or continued as `mode` says", async () => {
    const c = await startTestCoordinator();
    const { sessionId } = await c.create({ sessionName: "talk", mode: 1 });
    expect((await c.create({ sessionName: "talk", mode: 2 })).sessionId).toBe(sessionId);
    await expect(c.create({ sessionName: "talk", mode: 1 })).rejects.toMatchObject({ code: Code.AlreadyExists });
    await expect(c.create({ sessionId, mode: 1 })).rejects.toMatchObject({ code: Code.AlreadyExists });
    await expect(c.create({ sessionName: "none", mode: 2 })).rejects.toMatchObject({ code: Code.NotFound });
    await expect(c.create({ mode: 2 })).rejects.toMatchObject({ code: Code.NotFound });
    await expect(c.create({ sessionId: "ses_none" })).rejects.toMatchObject({ code: Code.NotFound });
    await expect(c.create({ parentSessionId: "ses_none" })).rejects.toMatchObject({ code: Code.NotFound });
    expect((await c.runs.listRuns({})).runs).toHaveLength(2);
  });

  it("is found by id and by name, and listed in pages, by parent and by status", async () => {
    const c = await startTestCoordinator();
    const parent = await c.create({ sessionName: "parent", metadata: { owner: "ada" } });
    const made: string[] = [];
    for (let n = 0; n < 5; n++) made.push((await c.create({ parentSessionId: parent.sessionId })).sessionId);
    const { session } = await c.sessions.getSession({ sessionName: "parent" });
    expect(session).toMatchObject({ sessionId: parent.sessionId, metadata: { owner: "ada" }, lastRunId: parent.runId });
    const seen: string[] = [];
    for (let pageToken = ""; ;) {
      const page = await c.sessions.listSessions({ parentSessionId: parent.sessionId, pageSize: 2, pageToken });
      seen.push(...page.sessions.map(({ sessionId }) => sessionId));
      pageToken = page.nextPageToken;
      if (pageToken === "") break;
    }
    expect(seen).toEqual(made.toReversed());
    await c.runs.stopRun({ runId: parent.runId });
    const stopped = await c.sessions.listSessions({ statuses: [SessionStatus.STOPPED] });
    expect(stopped.sessions.map(({ sessionId }) => sessionId)).toEqual([parent.sessionId]);
    await expect(c.sessions.getSession({ sessionId: "ses_none" })).rejects.toMatchObject({ code: Code.NotFound });
    const notOurs = c.sessions.listSessions({ pageToken: "page 2" });
    await expect(notOurs).rejects.toMatchObject({ code: Code.InvalidArgument });
  });
});

describe("events", () => {
  const texts = async (c: TestCoordinator, sessionId: string): Promise<string[]> => {
    const { events } = await c.sessions.listSessionEvents({ sessionId, pageSize: 1000 });
    return events.flatMap(({ event }) =>
      event.case === "executor" && event.value.event.case === "output" ? [event.value.event.value.text] : [],
    );
  };

  it("are stored once each, however often their batch is sent and wherever it begins", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    const { sessionId } = await c.create();
    const offer = await runner.take();
    const batch = (from: number, to: number) =>
      Array.from({ length: to - from + 1 }, (_, n) => output(`line ${from + n}`));
    const committed = async (from: number, to: number) =>
      (await runner.append(offer, from, batch(from, to))).committedSeq;
    expect(await committed(1, 3)).toBe(3n);
    expect(await committed(1, 3)).toBe(3n);
    expect(await committed(2, 5)).toBe(5n);
    expect(await committed(1, 2)).toBe(5n);
    expect(await committed(7, 8)).toBe(5n);
    expect(await committed(6, 6)).toBe(6n);
    expect((await runner.append(offer, 2 ** 53, [output("far")])).committedSeq).toBe(6n);
    expect(await texts(c, sessionId)).toEqual(batch(1, 6).map((_, n) => `line ${n + 1}`));
  });

  it("begin again at 1 under the next lease, and say which attempt they are of", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    const { sessionId } = await c.create({ onLost: { policy: 2 } });
    const first = await runner.take();
    await runner.append(first, 1, [output("a")]);
    await runner.ok(first, "FAILED", { failure: 2 });
    const second = await runner.take();
    expect((await runner.append(second, 1, [output("b")])).committedSeq).toBe(1n);
    expect(await texts(c, sessionId)).toEqual(["a", "b"]);
    const { events } = await c.sessions.listSessionEvents({ sessionId });
    const of = events.filter(({ event }) => event.case === "executor").map(({ attempt }) => attempt);
    expect(of).toEqual([1, 2]);
  });

  it("are all readable, ten thousand of them, in pages and by WatchRun", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    const { sessionId, runId } = await c.create();
    const offer = await runner.take();
    for (let from = 1; from <= 10_000; from += 2000) {
      await runner.append(
        offer,
        from,
        Array.from({ length: 2000 }, (_, n) => output(String(from + n))),
      );
    }
    await runner.ok(offer, "COMPLETED");
    const paged: string[] = [];
    for (let cursor = "", more = true; more;) {
      const page = await c.sessions.listSessionEvents({ sessionId, cursor, pageSize: 1000 });
      for (const { event } of page.events) {
        if (event.case === "executor") paged.push((event.value.event.value as { text: string }).text);
      }
      ({ nextCursor: cursor, more } = page);
    }
    const all = Array.from({ length: 10_000 }, (_, n) => String(n + 1));
    expect(paged).toEqual(all);
    const watched = (await c.watched(runId)).flatMap(({ update }) =>
      update.case === "event" && update.value.event.case === "executor"
        ? [(update.value.event.value.event.value as { text: string }).text]
        : [],
    );
    expect(watched).toEqual(all);
  });

  it("of another session are not readable through this one", async () => {
    const c = await startTestCoordinator();
    const [a, b] = [await c.create(), await c.create()];
    const foreign = c.sessions.listSessionEvents({ sessionId: a.sessionId, runId: b.runId });
    await expect(foreign).rejects.toMatchObject({ code: Code.NotFound });
    const none = c.sessions.listSessionEvents({ sessionId: "ses_none" });
    await expect(none).rejects.toMatchObject({ code: Code.NotFound });
  });

  it("come in as many bytes as fit in a message", async () => {
    const c = await startTestCoordinator();
    const runner = await RawRunner.online(c);
    const { sessionId } = await c.create();
    const offer = await runner.take();
    const chunk = "x".repeat(64 * 1024);
    for (let from = 1; from <= 90; from += 30) {
      await runner.append(
        offer,
        from,
        Array.from({ length: 30 }, () => output(chunk)),
      );
    }
    const first = await c.sessions.listSessionEvents({ sessionId, pageSize: 1000 });
    expect(first.more).toBe(true);
    expect(first.events.length).toBeLessThan(40);
    const rest = await c.sessions.listSessionEvents({ sessionId, pageSize: 1000, cursor: first.nextCursor });
    expect(rest.events.length).toBeGreaterThan(20);
  });
});
