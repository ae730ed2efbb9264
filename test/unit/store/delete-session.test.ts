import { DatabaseSync } from "node:sqlite";
import { describe, expect, it } from "vitest";
import { openSqliteStore } from "../../../coordinator/store/sqlite/sqlite-store.ts";
import type { Run } from "../../../gen/agentrunner/v1/run_pb.ts";
import { ExecutionMode, OnLost_Policy } from "../../../gen/agentrunner/v1/run_pb.ts";
import { file } from "../../support/databases.ts";
import { StoreHarness } from "../../support/store-harness.ts";

const ALL = { statuses: [], parentSessionId: "", pageSize: 100, pageToken: "", withinSessionId: undefined };

/** A session of that many turns, with one child. */
async function longSession(harness: StoreHarness, turns: number): Promise<{ runs: Run[]; child: Run }> {
  const first = await harness.createRun({ sessionName: "long", requestId: "turn-0" });
  const child = await harness.createRun({ parentSessionId: first.sessionId, sessionName: "child" });
  await harness.complete(child.runId);
  await harness.complete(first.runId);
  const runs = [first];
  for (let i = 1; i < turns; i += 1) {
    const run = await harness.createRun({ sessionId: first.sessionId, requestId: `turn-${i}` });
    await harness.complete(run.runId);
    runs.push(run);
  }
  return { runs, child };
}

async function runIds({ store }: StoreHarness): Promise<string[]> {
  const page = { states: [], sessionId: "", runnerId: "", pageSize: 1, withinSessionId: undefined };
  const ids: string[] = [];
  let pageToken = "";
  do {
    const { items, next } = await store.listRuns({ ...page, pageToken });
    ids.push(...items.map(({ runId }) => runId));
    pageToken = next;
  } while (pageToken !== "");
  return ids;
}

/** How many rows each table has that belongs to sessions, and what is said of open ones. */
function rowsOf(path: string): Record<string, unknown> {
  const db = new DatabaseSync(path);
  const counts = ["sessions", "runs", "run_specs", "run_results", "attempts", "events", "notifications", "deletions"];
  const rows = counts.map((table) => [table, db.prepare(`SELECT count(*) AS n FROM ${table}`).get()?.["n"]]);
  const openBelow = db.prepare("SELECT session_seq, runs FROM open_below ORDER BY session_seq").all();
  db.close();
  return { ...Object.fromEntries(rows), openBelow: openBelow.map((row) => [row["session_seq"], row["runs"]]) };
}

describe("the deletion of a long session", () => {
  it("is there for nobody from the first slice on, also after a restart, and leaves nothing at the end", async () => {
    const path = file("store.db");
    const harness = await new StoreHarness(openSqliteStore({ path })).open();
    const { runs, child } = await longSession(harness, 5);
    const [first] = runs;
    const sessionId = first?.sessionId ?? "";
    const { store } = harness;

    expect((await store.deleteSession(sessionId, 0)).value).toBe(true);

    expect(await store.getSession({ sessionId })).toBeUndefined();
    expect(await store.getSession({ sessionName: "long" })).toBeUndefined();
    expect((await store.listSessions(ALL)).items.map(({ sessionName }) => sessionName)).toEqual(["child"]);
    expect(await runIds(harness)).toEqual([child.runId]);
    for (const { runId } of runs) expect(await store.getRun(runId)).toBeUndefined();
    await expect(store.listEvents({ sessionId, runId: "", after: 0, limit: 9, maxBytes: 9 })).rejects.toThrow(
      "no session",
    );
    await expect(store.sessionResult(sessionId, "")).rejects.toThrow("no session");
    await expect(store.deleteSession(sessionId, 0)).rejects.toThrow("no session");
    await expect(harness.createRun({ parentSessionId: sessionId })).rejects.toThrow("no session");
    // Its name and its request ids are free.
    const again = await harness.createRun({ sessionName: "long", requestId: "turn-4" });
    expect(runs.map(({ runId }) => runId)).not.toContain(again.runId);
    await harness.stop(again.runId);
    await store.close();

    const reopened = openSqliteStore({ path });
    let slices = 0;
    while (await reopened.finishDeletions(0)) slices += 1;
    expect(slices).toBeGreaterThan(1);
    expect((await reopened.getSession({ sessionId: child.sessionId }))?.parentSessionId).toBe("");
    await reopened.deleteSession(child.sessionId, 60_000);
    await reopened.deleteSession(again.sessionId, 60_000);
    await reopened.close();
    expect(rowsOf(path)).toEqual({
      ...{ sessions: 0, runs: 0, run_specs: 0, run_results: 0, attempts: 0, events: 0, notifications: 0, deletions: 0 },
      openBelow: [],
    });
  });

  it("takes what the session had to say to its parent with it", async () => {
    const harness = await new StoreHarness().open();
    const boss = await harness.createRun({});
    const child = await harness.createRun({
      parentSessionId: boss.sessionId,
      executionMode: ExecutionMode.ASYNC_CALLBACK,
    });
    await harness.begin(boss.runId);
    await harness.complete(child.runId);
    await harness.store.deleteSession(child.sessionId, 0);
    expect((await harness.store.getSession({ sessionId: boss.sessionId }))?.notifications).toEqual([]);
    await harness.complete(boss.runId);
    expect(await harness.openRuns()).toEqual([]);
  });

  it("is not told to its parent after the run was lost that was to tell of it", async () => {
    const harness = await new StoreHarness().open();
    const boss = await harness.createRun({});
    await harness.complete(boss.runId);
    const { sessionId, runId } = await harness.createRun({ parentSessionId: boss.sessionId });
    await harness.complete(runId);
    const executionMode = ExecutionMode.ASYNC_CALLBACK;
    const child = await harness.createRun({ sessionId, parentSessionId: boss.sessionId, executionMode });
    await harness.complete(child.runId);
    const [telling] = await harness.openRuns();
    expect((await harness.store.getSession({ sessionId: boss.sessionId }))?.notifications).toMatchObject([
      { childSessionId: sessionId, runId: telling?.runId },
    ]);
    await harness.begin(telling?.runId ?? "");
    // Its second run is left, and what is to be told of it.
    expect((await harness.store.deleteSession(sessionId, 0)).value).toBe(true);
    await harness.lose();
    expect(await harness.openRuns()).toEqual([]);
  });
});

describe("what is open below a session", () => {
  it("is counted through the whole life of its runs, and bounds the children at work, not those that ever were", async () => {
    const path = file("store.db");
    const harness = await new StoreHarness(openSqliteStore({ path })).open();
    const boss = await harness.createRun({});
    const child = await harness.createRun({ parentSessionId: boss.sessionId });
    await harness.createRun({ sessionId: child.sessionId });
    const grandchild = await harness.createRun({ parentSessionId: child.sessionId });
    const retried = await harness.createRun({
      parentSessionId: boss.sessionId,
      onLost: { policy: OnLost_Policy.RETRY },
    });
    const ended = await harness.createRun({ parentSessionId: boss.sessionId });
    await harness.complete(ended.runId);
    await harness.complete(child.runId);
    await harness.begin(retried.runId);
    await harness.lose();
    await expect(harness.store.deleteSession(child.sessionId, 0)).rejects.toThrow("is active with");
    await expect(harness.store.deleteSession(boss.sessionId, 0)).rejects.toThrow("is active with");
    await harness.store.deleteSession(ended.sessionId, 0);
    await harness.stop(grandchild.runId);
    await harness.store.close();
    // child: its second turn; retried: pending again.
    expect(rowsOf(path)["openBelow"]).toEqual([
      [2, 1],
      [4, 1],
    ]);
  });
});
