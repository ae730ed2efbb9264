import { describe, expect, it } from "vitest";
import type { PrunePlace } from "../../../coordinator/store/store.ts";
import { StoreHarness } from "../../support/store-harness.ts";

describe("a clean-up", () => {
  it("goes on where its time was over, and counts what it would delete without deleting it", async () => {
    const harness = await new StoreHarness().open();
    for (let i = 0; i < 5; i += 1) await harness.complete((await harness.createRun({})).runId);
    const before = harness.now;
    harness.now += 1;
    const later = await harness.createRun({});
    await harness.complete(later.runId);
    for (const dryRun of [true, false]) {
      const each: number[] = [];
      let from: PrunePlace | undefined;
      do {
        // No time at all: one run in each call.
        const { runs, next } = await harness.store.pruneRuns({ before, dryRun, from, budgetMs: 0 });
        each.push(runs);
        from = next;
      } while (from !== undefined);
      expect(each).toEqual([1, 1, 1, 1, 1, 0]);
    }
    const query = { sessionId: "", runnerId: "", states: [], pageSize: 10, pageToken: "", withinSessionId: undefined };
    expect((await harness.store.listRuns(query)).items.map(({ runId }) => runId)).toEqual([later.runId]);
  });
});

describe("the counts of open runs", () => {
  it("are those of the rows through the whole life of runs", async () => {
    const harness = await new StoreHarness().open();
    const counts = async (): Promise<number[]> => {
      const { PENDING, OFFERED, CLAIMED, RUNNING, STOPPING } = (await harness.store.gauges()).openRuns;
      return [PENDING, OFFERED, CLAIMED, RUNNING, STOPPING].map(Number);
    };
    const [one, two] = [await harness.createRun({}), await harness.createRun({})];
    await expect(harness.createRun({ sessionId: "ses_x" })).rejects.toThrow("no session");
    expect(await counts()).toEqual([2, 0, 0, 0, 0]);
    await harness.offer();
    expect(await counts()).toEqual([0, 2, 0, 0, 0]);
    await harness.begin(one.runId);
    await harness.stop(two.runId);
    expect(await counts()).toEqual([0, 0, 0, 1, 0]);
    await harness.stop(one.runId);
    expect(await counts()).toEqual([0, 0, 0, 0, 1]);
    await harness.lose();
    expect(await counts()).toEqual([0, 0, 0, 0, 0]);
  });
});
