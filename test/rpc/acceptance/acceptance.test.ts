import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createClient } from "@connectrpc/connect";
import { afterEach, expect, it } from "vitest";
import { BlueprintService } from "../../../gen/agentrunner/v1/blueprint_service_pb.ts";
import { ExecutionMode, FailureReason, RunState } from "../../../gen/agentrunner/v1/run_pb.ts";
import type { Run } from "../../../gen/agentrunner/v1/run_pb.ts";
import { Notification_State, SessionStatus } from "../../../gen/agentrunner/v1/session_pb.ts";
import { present, startTestCoordinator, stopTestCoordinators, tempDir } from "../../support/coordinator.ts";
import type { TestCoordinator } from "../../support/coordinator.ts";
import { held, output, RawRunner } from "../../support/raw-runner.ts";
import { until } from "../../support/until.ts";

/*
 * What a system of this kind must not get wrong, each in short: the numbers are those of the failures that were measured
 * in an earlier one. Those that need real executors, 11 about hooks among them, are in processes.test.ts.
 */

afterEach(stopTestCoordinators);

async function statusOf(coordinator: TestCoordinator, { sessionId }: Pick<Run, "sessionId">): Promise<SessionStatus> {
  return present((await coordinator.sessions.getSession({ sessionId })).session).status;
}

/** A child of the parent that is to call it back. */
function child(coordinator: TestCoordinator, parent: Pick<Run, "sessionId">, more = {}): Promise<Run> {
  const { sessionId: parentSessionId } = parent;
  return coordinator.create({ parentSessionId, executionMode: ExecutionMode.ASYNC_CALLBACK, ...more });
}

it("2. A run that is created when a runner has just gone is never delivered to it, and a fresh runner gets it", async () => {
  const coordinator = await startTestCoordinator();
  const gone = await RawRunner.online(coordinator);
  const left = await RawRunner.online(coordinator);
  await gone.stream.leave();
  await left.deregister();
  const run = await coordinator.create();
  const fresh = await RawRunner.online(coordinator);
  expect((await fresh.offer()).runId).toBe(run.runId);
  expect([...gone.stream.offers, ...left.stream.offers]).toEqual([]);
});

it("3. A run whose offer never arrived is queued again at once, and goes to another runner", async () => {
  const coordinator = await startTestCoordinator();
  const first = await RawRunner.online(coordinator);
  const run = await coordinator.create();
  const lost = await first.offer();
  const other = await RawRunner.online(coordinator);
  await first.stream.leave();
  const offer = await other.offer();
  expect(offer).toMatchObject({ runId: run.runId, attempt: 1 });
  expect(offer.leaseId).not.toBe(lost.leaseId);
  expect(await first.report(lost, "ACCEPT"), "the offer that was cut off").toBe("STALE");
});

it("6. A second resume of a busy session waits for its turn, and the first is not disturbed", async () => {
  const coordinator = await startTestCoordinator();
  const runner = await RawRunner.online(coordinator);
  const { sessionId } = await coordinator.create();
  await runner.ok(await runner.take(), "COMPLETED");
  const [busy, second] = [await coordinator.create({ sessionId }), await coordinator.create({ sessionId })];
  const offer = await runner.take();
  expect(offer.runId).toBe(busy.runId);
  expect((await coordinator.run(second.runId)).pendingReasons).toEqual([`waits for ${busy.runId} of its session`]);
  expect(await statusOf(coordinator, { sessionId })).toBe(SessionStatus.RUNNING);
  await runner.ok(offer, "COMPLETED");
  const next = await runner.take();
  expect(next.runId).toBe(second.runId);
  await runner.ok(next, "COMPLETED");
  expect(await statusOf(coordinator, { sessionId })).toBe(SessionStatus.IDLE);
});

it("8. A runner that somebody removes leaves no run and no session behind that does not end", async () => {
  const coordinator = await startTestCoordinator();
  const runner = await RawRunner.online(coordinator);
  const runs = [await coordinator.create(), await coordinator.create()];
  await runner.take("CLAIMED");
  await runner.take();
  await coordinator.fleet.removeRunner({ runnerId: runner.runnerId });
  for (const run of runs) {
    expect(await coordinator.run(run.runId)).toMatchObject({ state: RunState.FAILED, failure: FailureReason.LOST });
    expect(await statusOf(coordinator, run)).toBe(SessionStatus.FAILED);
  }
});

it("9. A run that no runner can take fails in time, with its session, and its parent is told", async () => {
  const coordinator = await startTestCoordinator({ noMatchTimeoutMs: 200 });
  const runner = await RawRunner.online(coordinator);
  const parent = await coordinator.create();
  const turn = await runner.take();
  const nowhere = await child(coordinator, parent, { demands: { tags: ["gpu"] } });
  await runner.ok(turn, "COMPLETED");
  const failed = await coordinator.reached(nowhere.runId, "FAILED");
  expect(failed).toMatchObject({ failure: FailureReason.NO_MATCH, message: expect.stringContaining("lacks tag gpu") });
  expect(await statusOf(coordinator, nowhere)).toBe(SessionStatus.FAILED);
  const { invocation } = await runner.offer();
  expect(invocation).toMatchObject({ mode: "resume", callback: { childSessionIds: [nowhere.sessionId] } });
  expect(invocation?.prompt).toContain('failure="no_match"');
});

it("10. A parent's resume that fails swallows no later callback, and callbacks survive a restart of the coordinator", async () => {
  const coordinator = await startTestCoordinator({ memory: false });
  const runner = await RawRunner.online(coordinator);
  const parent = await coordinator.create();
  const turn = await runner.take();
  const children = [
    await child(coordinator, parent),
    await child(coordinator, parent),
    await child(coordinator, parent),
  ];
  const [one, two, three] = [await runner.take(), await runner.take(), await runner.take()];
  await runner.ok(turn, "COMPLETED");
  await runner.ok(one, "COMPLETED");
  const resume = await runner.take();
  await runner.ok(two, "COMPLETED");
  await runner.ok(three, "COMPLETED");

  await coordinator.restart();
  await runner.open({ held: [held(resume)] });
  await runner.ok(resume, "FAILED", { message: "exit 1" });
  const { invocation, ...later } = await runner.take();
  const [first, ...rest] = children.map(({ sessionId }) => sessionId);
  expect(resume.invocation?.callback?.childSessionIds).toEqual([first]);
  expect(invocation?.callback?.childSessionIds).toEqual(rest);
  await runner.ok(later, "COMPLETED");
  const { session } = await coordinator.sessions.getSession({ sessionId: parent.sessionId });
  const { CONSUMED } = Notification_State;
  expect(session?.notifications.map(({ state }) => state)).toEqual([CONSUMED, CONSUMED, CONSUMED]);
});

it("13. All of 10,000 events of a session can be read in pages, and a watch that is cut off misses none and repeats none", async () => {
  const coordinator = await startTestCoordinator();
  const runner = await RawRunner.online(coordinator);
  const { sessionId } = await coordinator.create();
  const offer = await runner.take();
  const texts = Array.from({ length: 10_000 }, (_, i) => `line ${i}`);
  for (let first = 0; first < texts.length; first += 500) {
    await runner.append(offer, first + 1, texts.slice(first, first + 500).map(output));
  }
  const textsOf = (events: { event: { case?: string | undefined; value?: unknown } }[]) =>
    events.flatMap(({ event }) =>
      event.case === "executor" ? [(event.value as { event: { value: { text: string } } }).event.value.text] : [],
    );

  const paged: string[] = [];
  for (let cursor = "", more = true; more;) {
    const page = await coordinator.sessions.listSessionEvents({ sessionId, cursor, pageSize: 1000 });
    paged.push(...textsOf(page.events));
    [cursor, more] = [page.nextCursor, page.more];
  }
  expect(paged).toEqual(texts);

  const watched: string[] = [];
  for (let cursor = ""; watched.length < texts.length;) {
    const cut = watched.length + 3333;
    for await (const message of coordinator.sessions.watchSession({ sessionId, cursor })) {
      ({ cursor } = message);
      if (message.update.case === "event") watched.push(...textsOf([message.update.value]));
      if (watched.length >= Math.min(cut, texts.length)) break;
    }
  }
  expect(watched).toEqual(texts);
});

it("14. Demands of the wrong type are refused and leave no run behind; a broken blueprint hides no other", async () => {
  const agentsDir = tempDir();
  const coordinator = await startTestCoordinator({ agentsDir });
  const post = async (rpc: string, body: object) => {
    const headers = { "content-type": "application/json" };
    const answer = await fetch(`${coordinator.url}/agentrunner.v1.${rpc}`, {
      method: "POST",
      headers,
      body: JSON.stringify(body),
    });
    return answer.status;
  };
  for (const demands of [{ tags: "gpu" }, { hostname: 7 }, { tags: [""] }, "gpu"]) {
    expect(await post("RunService/CreateRun", { prompt: "x", demands }), JSON.stringify(demands)).toBe(400);
  }
  expect((await coordinator.runs.listRuns({})).runs).toEqual([]);

  const blueprint = { name: "good", mcp_servers: { here: { url: "not a url", type: "pigeon" } } };
  expect(await post("BlueprintService/CreateBlueprint", { blueprint })).toBe(400);
  expect(await post("BlueprintService/CreateBlueprint", { blueprint: { name: "good", description: "works" } })).toBe(
    200,
  );
  mkdirSync(join(agentsDir, "broken"));
  writeFileSync(join(agentsDir, "broken/agent.json"), '{"name": "broken", "demands": 7}');
  const list = await createClient(BlueprintService, coordinator.link.transport).listBlueprints({});
  expect(list.blueprints.map(({ name }) => name)).toEqual(["good"]);
  expect(list.broken).toMatchObject([{ name: "broken", error: expect.stringContaining("demands") }]);
});

it("16. Of two runners of one host and profile, a resume goes to the one that has the session's directory", async () => {
  const coordinator = await startTestCoordinator();
  const one = await RawRunner.online(coordinator, { projectDir: "/srv/one", maxConcurrentRuns: 1 });
  const { sessionId } = await coordinator.create();
  await one.ok(await one.take(), "COMPLETED");
  const two = await RawRunner.online(coordinator, { projectDir: "/srv/two" });
  await coordinator.create({ demands: { projectDir: "/srv/one" } });
  const other = await one.take();
  const resume = await coordinator.create({ sessionId });
  const reasons = async () => (await coordinator.run(resume.runId)).pendingReasons.join();
  await until(
    async () => (await reasons()).includes("is full 1/1"),
    "the resume waits for the runner that has the files",
  );
  await one.ok(other, "COMPLETED");
  expect((await one.offer()).runId).toBe(resume.runId);
  expect(two.stream.offers).toEqual([]);
});

it("17. Runs that wait keep their order over a restart of the coordinator", async () => {
  const coordinator = await startTestCoordinator({ memory: false });
  const runIds: string[] = [];
  for (let i = 0; i < 5; i += 1) runIds.push((await coordinator.create()).runId);
  await coordinator.restart();
  const runner = await RawRunner.online(coordinator, { maxConcurrentRuns: 1 });
  const taken: string[] = [];
  for (const _ of runIds) {
    const offer = await runner.take();
    taken.push(offer.runId);
    await runner.ok(offer, "COMPLETED");
  }
  expect(taken).toEqual(runIds);
});

it("18. An idle runner is offered a new run at once, by nothing but its creation; `npm run bench -- --row 1` says how fast", async () => {
  // No timer of the coordinator can be what makes the offer: the shortest of them is longer than the test may take.
  const coordinator = await startTestCoordinator({
    streamKeepaliveMs: 600_000,
    heartbeatMs: 600_000,
    leaseTtlMs: 1_800_000,
  });
  const runner = await RawRunner.online(coordinator);
  for (let i = 0; i < 40; i += 1) {
    const [offer] = await Promise.all([runner.offer(), coordinator.create()]);
    await runner.accepted(offer);
    await runner.ok(offer, "COMPLETED");
  }
});
