import { afterEach, describe, expect, it } from "vitest";
import { ExecutionMode, RunState } from "../../../gen/agentrunner/v1/run_pb.ts";
import type { Run } from "../../../gen/agentrunner/v1/run_pb.ts";
import { Notification_State } from "../../../gen/agentrunner/v1/session_pb.ts";
import { Report_Kind } from "../../../gen/agentrunner/v1/runner_service_pb.ts";
import { Random } from "../../support/random.ts";
import { StoreHarness } from "../../support/store-harness.ts";

const CALLBACK = ExecutionMode.ASYNC_CALLBACK;
const yards: StoreHarness[] = [];

afterEach(async () => {
  await Promise.all(yards.splice(0).map((yard) => yard.store.close()));
});

async function aYard(): Promise<StoreHarness> {
  const yard = await new StoreHarness().open();
  yards.push(yard);
  return yard;
}

function child(yard: StoreHarness, parent: Run, more = {}): Promise<Run> {
  return yard.createRun({ parentSessionId: parent.sessionId, executionMode: CALLBACK, ...more });
}

/** The newest run of the session, which is not the given one. */
async function nextRun(yard: StoreHarness, after: Run): Promise<Run> {
  const runs = await yard.runsOf(after.sessionId);
  const last = runs.at(-1);
  expect(last?.runId, "the session was resumed").not.toBe(after.runId);
  return yard.run(last?.runId ?? "");
}

async function states(yard: StoreHarness, sessionId: string): Promise<string[]> {
  const session = await yard.store.getSession({ sessionId });
  const names = Object.entries(Notification_State);
  return (session?.notifications ?? []).map(({ state }) => names.find(([, value]) => value === state)?.[0] ?? "");
}

describe("a child session with a callback", () => {
  it("resumes its idle parent at once, with its result in the prompt", async () => {
    const yard = await aYard();
    const parent = await yard.createRun({});
    await yard.begin(parent.runId);
    const started = await child(yard, parent, { sessionName: "research" });
    await yard.complete(parent.runId);
    await yard.complete(started.runId, "found 42");
    const resumed = await nextRun(yard, parent);
    expect(resumed).toMatchObject({ state: RunState.PENDING, callback: { childSessionIds: [started.sessionId] } });
    expect(resumed.prompt).toContain(`<agent-callback session="${started.sessionId}" name="research"`);
    expect(resumed.prompt).toContain("found 42");
    const [offer] = await yard.offer();
    expect(offer?.invocation).toMatchObject({ mode: "resume", callback: { childSessionIds: [started.sessionId] } });
  });

  it("waits for the parent's current run, and then all that waited come in one resume, in order", async () => {
    const yard = await aYard();
    const parent = await yard.createRun({});
    await yard.begin(parent.runId);
    const children = [await child(yard, parent), await child(yard, parent), await child(yard, parent)];
    const ids = children.map(({ sessionId }) => sessionId);
    for (const { runId } of children.toReversed()) await yard.complete(runId);
    expect(await states(yard, parent.sessionId)).toEqual(["WAITING", "WAITING", "WAITING"]);
    expect(await yard.runsOf(parent.sessionId)).toHaveLength(1);
    await yard.complete(parent.runId);
    const resumed = await nextRun(yard, parent);
    expect(resumed.callback?.childSessionIds).toEqual(ids.toReversed());
    await yard.complete(resumed.runId);
    expect(await states(yard, parent.sessionId)).toEqual(["CONSUMED", "CONSUMED", "CONSUMED"]);
    expect(await yard.openRuns()).toEqual([]);
  });

  it.each<[string, (yard: StoreHarness, run: Run) => Promise<void>, string]>([
    ["fails", (yard, run) => yard.fail(run.runId), 'status="failed" failure="executor_exit"'],
    ["is stopped while it waits", (yard, run) => yard.stop(run.runId), 'status="stopped"'],
    [
      "is lost",
      async (yard, run) => {
        await yard.begin(run.runId);
        await yard.lose();
      },
      'status="failed" failure="lost"',
    ],
    [
      "is matched by nobody",
      async (yard, run) => {
        const demandClass = (await yard.store.pendingClasses())[0] ?? "";
        expect(run.state).toBe(RunState.PENDING);
        await yard.store.failPending(demandClass, "AFFINITY_LOST", "nobody", 0, yard.now);
      },
      'status="failed" failure="affinity"',
    ],
  ])("tells its parent when it %s", async (_, end, words) => {
    const yard = await aYard();
    const parent = await yard.createRun({});
    await yard.begin(parent.runId);
    const started = await child(yard, parent);
    await yard.report(parent.runId, { kind: Report_Kind.COMPLETED });
    await end(yard, started);
    expect((await nextRun(yard, parent)).prompt).toContain(words);
  });

  it("that waits for children of its own has not settled until they have", async () => {
    const yard = await aYard();
    const top = await yard.createRun({});
    await yard.begin(top.runId);
    const middle = await child(yard, top);
    await yard.begin(middle.runId);
    const leaf = await child(yard, middle);
    await yard.complete(top.runId);
    await yard.report(middle.runId, { kind: Report_Kind.COMPLETED, result: { text: "not yet" } });
    expect(await yard.runsOf(top.sessionId)).toHaveLength(1);
    await yard.complete(leaf.runId, "leaf");
    const again = await nextRun(yard, middle);
    expect(await yard.runsOf(top.sessionId)).toHaveLength(1);
    await yard.complete(again.runId, "all of it");
    const told = await nextRun(yard, top);
    expect(told.prompt).toContain("all of it");
    expect(told.prompt).not.toContain("not yet");
  });
});

describe("a resume that delivers", () => {
  async function delivering(): Promise<{ yard: StoreHarness; parent: Run; resumed: Run }> {
    const yard = await aYard();
    const parent = await yard.createRun({});
    await yard.begin(parent.runId);
    const started = await child(yard, parent);
    await yard.complete(parent.runId);
    await yard.complete(started.runId);
    return { yard, parent, resumed: await nextRun(yard, parent) };
  }

  it("and fails by itself has delivered, and swallows nothing that comes later", async () => {
    const { yard, parent, resumed } = await delivering();
    await yard.begin(resumed.runId);
    const later = await child(yard, parent);
    await yard.report(resumed.runId, { kind: Report_Kind.FAILED, message: "exit 1" });
    expect(await states(yard, parent.sessionId)).toEqual(["CONSUMED"]);
    await yard.complete(later.runId, "later");
    expect((await nextRun(yard, resumed)).prompt).toContain("later");
  });

  it("and is lost is made again, marked, at most three times", async () => {
    const { yard, parent, resumed } = await delivering();
    let run = resumed;
    for (const count of [1, 2]) {
      await yard.begin(run.runId);
      await yard.lose();
      run = await nextRun(yard, run);
      expect(run.prompt, `after ${count} lost runs`).toContain('redelivered="true"');
    }
    await yard.begin(run.runId);
    await yard.lose();
    expect(await states(yard, parent.sessionId)).toEqual(["GIVEN_UP"]);
    expect(await yard.openRuns()).toEqual([]);
  });

  it.each<[string, (yard: StoreHarness, run: Run) => Promise<void>]>([
    ["before a runner took it", (yard, { runId }) => yard.stop(runId)],
    [
      "before its executor was started",
      async (yard, { runId }) => {
        await yard.offer();
        await yard.report(runId, { kind: Report_Kind.ACCEPT });
        await yard.stop(runId);
        await yard.report(runId, { kind: Report_Kind.NOT_STARTED });
      },
    ],
  ])("and is stopped %s has delivered nothing: a person's resume is followed by it", async (_, stop) => {
    const { yard, parent, resumed } = await delivering();
    await stop(yard, resumed);
    expect((await yard.run(resumed.runId)).state).toBe(RunState.STOPPED);
    expect(await states(yard, parent.sessionId)).toEqual(["WAITING"]);
    const byPerson = await yard.createRun({ sessionId: parent.sessionId });
    await yard.complete(byPerson.runId);
    const again = await nextRun(yard, byPerson);
    expect(again.callback).toEqual(resumed.callback);
    await yard.complete(again.runId);
    expect(await states(yard, parent.sessionId)).toEqual(["CONSUMED"]);
  });

  it("and is stopped leaves the session to a person, and what comes later waits and is shown", async () => {
    const { yard, parent, resumed } = await delivering();
    await yard.begin(resumed.runId);
    const later = await child(yard, parent);
    await yard.stop(resumed.runId);
    await yard.report(resumed.runId, { kind: Report_Kind.STOPPED, message: "" });
    await yard.complete(later.runId);
    expect(await states(yard, parent.sessionId)).toEqual(["CONSUMED", "WAITING"]);
    expect(await yard.openRuns()).toEqual([]);
    const byPerson = await yard.createRun({ sessionId: parent.sessionId });
    await yard.complete(byPerson.runId);
    const resumedAgain = await nextRun(yard, byPerson);
    expect(resumedAgain.callback?.childSessionIds).toEqual([later.sessionId]);
  });
});

describe("a tree that is stopped", () => {
  it("resumes nobody in it", async () => {
    const yard = await aYard();
    const parent = await yard.createRun({});
    await yard.begin(parent.runId);
    const one = await child(yard, parent);
    await yard.begin(one.runId);
    const two = await child(yard, one);
    await yard.complete(parent.runId);
    await yard.stop(parent.runId, true);
    await yard.report(one.runId, { kind: Report_Kind.STOPPED });
    expect((await yard.run(two.runId)).state).toBe(RunState.STOPPED);
    expect(await yard.openRuns()).toEqual([]);
    expect(await states(yard, parent.sessionId)).toEqual([]);
  });

  it("does not grow while it ends: what is being stopped starts nothing", async () => {
    const yard = await aYard();
    const parent = await yard.createRun({});
    await yard.begin(parent.runId);
    await yard.stop(parent.runId, true);
    await expect(child(yard, parent)).rejects.toThrow("is being stopped and may not start sessions");
    await yard.report(parent.runId, { kind: Report_Kind.STOPPED });
    await child(yard, parent);
  });

  it("is told to the parent above it, although its top had ended its turn and waited", async () => {
    const yard = await aYard();
    const parent = await yard.createRun({});
    await yard.begin(parent.runId);
    const top = await child(yard, parent);
    await yard.begin(top.runId);
    const below = await child(yard, top);
    await yard.complete(parent.runId);
    await yard.complete(top.runId, "waits");
    await yard.stop(top.runId, true);
    expect((await yard.run(below.runId)).state).toBe(RunState.STOPPED);
    const resumed = await nextRun(yard, parent);
    expect(resumed.callback?.childSessionIds).toEqual([top.sessionId]);
    await yard.complete(resumed.runId);
    expect(await yard.openRuns()).toEqual([]);
  });
});

/** Lives of random trees on one store: every callback is delivered once, whatever ends and gets lost in between. */
describe("in random trees", () => {
  it.each(Array.from({ length: 60 }, (_, seed) => seed))("every callback is delivered once (seed %i)", async (seed) => {
    const yard = await aYard();
    const random = new Random(seed);
    const sessions = new Map<string, Run>();
    const root = await yard.createRun({});
    sessions.set(root.sessionId, root);
    for (let step = 0; step < 60; step += 1) await act(yard, random, sessions);
    await finish(yard);
    await check(yard, [...sessions.keys()]);
  });
});

async function act(yard: StoreHarness, random: Random, sessions: Map<string, Run>): Promise<void> {
  const open = await yard.openRuns();
  if (open.length === 0) return;
  const run = random.pick(open);
  const roll = random.int(0, 9);
  if (roll <= 3 && sessions.size < 25) {
    const started = await child(yard, run);
    sessions.set(started.sessionId, started);
  } else if (roll <= 6) await yard.complete(run.runId);
  else if (roll === 7) await yard.fail(run.runId);
  else if (roll === 8) await yard.stop(run.runId);
  else {
    await yard.begin(run.runId);
    await yard.lose();
  }
}

/** Lets everything that is open come to its end. */
async function finish(yard: StoreHarness): Promise<void> {
  for (let round = 0; round < 200; round += 1) {
    const [run] = await yard.openRuns();
    if (run === undefined) return;
    if (run.state === RunState.STOPPING) await yard.lose();
    else await yard.complete(run.runId);
  }
  throw new Error("the tree does not come to an end");
}

async function check(yard: StoreHarness, sessionIds: string[]): Promise<void> {
  for (const sessionId of sessionIds) {
    const session = await yard.store.getSession({ sessionId });
    expect(session?.callbackOwed, `${sessionId} has settled`).toBe(false);
    const runs = await Promise.all((await yard.runsOf(sessionId)).map(({ runId }) => yard.run(runId)));
    const stopped = runs.at(-1)?.state === RunState.STOPPED;
    for (const { state, childSessionId, deliveries } of session?.notifications ?? []) {
      const delivering = runs.filter(({ callback }) => callback?.childSessionIds.includes(childSessionId));
      const lost = delivering.filter(({ message }) => /not heard from/.test(message) && !/unconfirmed/.test(message));
      if (state === Notification_State.WAITING) expect(stopped, "only a stopped session waits for a person").toBe(true);
      else if (state === Notification_State.GIVEN_UP) expect(lost).toHaveLength(3);
      else expect(state).toBe(Notification_State.CONSUMED);
      const unstarted = delivering.filter(({ state: end, attempt }) => end === RunState.STOPPED && attempt === 0);
      const outcomes = delivering.length - lost.length - unstarted.length;
      expect(outcomes, "resumes with an outcome").toBe(state === Notification_State.CONSUMED ? 1 : 0);
      expect(deliveries).toBe(delivering.length - unstarted.length);
    }
    const told = new Set((session?.notifications ?? []).map(({ childSessionId }) => childSessionId));
    expect(
      [...(session?.childSessionIds ?? [])].filter((id) => !told.has(id)),
      "children nobody told of",
    ).toEqual([]);
  }
}
