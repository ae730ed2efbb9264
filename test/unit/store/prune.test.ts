import { describe, expect, it } from "vitest";
import type { PrunePlace } from "../../../coordinator/store/store.ts";
import { StoreHarness } from "../../support/store-harness.ts";

describe("a clean-up", () => {
  it("goes on where its time was over, and counts what it would delete without deleting it", async () => {
    const yard = await new StoreHarness().open();
    for (let i = 0; i < 5; i += 1) await yard.complete((await yard.createRun({})).runId);
    const before = yard.now;
    yard.now += 1;
    const later = await yard.createRun({});
    await yard.complete(later.runId);
    for (const dryRun of [true, false]) {
      const each: number[] = [];
      let from: PrunePlace | undefined;
      do {
        // No time at all: one run in each call.
        const { runs, next } = await yard.store.pruneRuns({ before, dryRun, from, budgetMs: 0 });
        each.push(runs);
        from = next;
      } while (from !== undefined);
      expect(each).toEqual([1, 1, 1, 1, 1, 0]);
    }
    const query = { sessionId: "", runnerId: "", states: [], pageSize: 10, pageToken: "", withinSessionId: undefined };
    expect((await yard.store.listRuns(query)).items.map(({ runId }) => runId)).toEqual([later.runId]);
  });
});

describe("the counts of open runs", () => {
  it("are those of the rows through the whole life of runs", async () => {
    const yard = await new StoreHarness().open();
    const counts = async (): Promise<number[]> => {
      const { PENDING, OFFERED, CLAIMED, RUNNING, STOPPING } = (await yard.store.gauges()).openRuns;
      return [PENDING, OFFERED, CLAIMED, RUNNING, STOPPING].map(Number);
    };
    const [one, two] = [await yard.createRun({}), await yard.createRun({})];
    await expect(yard.createRun({ sessionId: "ses_x" })).rejects.toThrow("no session");
    expect(await counts()).toEqual([2, 0, 0, 0, 0]);
    await yard.offer();
    expect(await counts()).toEqual([0, 2, 0, 0, 0]);
    await yard.begin(one.runId);
    await yard.stop(two.runId);
    expect(await counts()).toEqual([0, 0, 0, 1, 0]);
    await yard.stop(one.runId);
    expect(await counts()).toEqual([0, 0, 0, 0, 1]);
    await yard.lose();
    expect(await counts()).toEqual([0, 0, 0, 0, 0]);
  });
});
