import { expect, it } from "vitest";
import { RunState } from "../../../gen/agentrunner/v1/run_pb.ts";
import { StoreHarness } from "../../support/store-harness.ts";

it("the no-match clock of a class counts for each run from when it became pending, and ends for all at once", async () => {
  const harness = await new StoreHarness().open();
  const { store } = harness;
  const start = harness.now;
  const demands = { tags: ["none"] };
  const first = await harness.createRun({ demands });
  const [demandClass = ""] = await store.pendingClasses();
  const fail = async (before: number): Promise<number> =>
    (await store.failPending(demandClass, "UNMATCHED", "nobody", before, harness.now)).value;
  expect(await fail(start + 1000)).toBe(0);

  await store.setUnmatched(demandClass, start + 10);
  harness.now = start + 100;
  const later = await harness.createRun({ demands });
  expect(await store.unmatchedClasses(start + 10)).toEqual([]);
  expect(await store.unmatchedClasses(start + 11)).toEqual([demandClass]);
  expect(await fail(start + 50)).toBe(1);
  expect((await harness.run(first.runId)).state).toBe(RunState.FAILED);
  expect((await harness.run(later.runId)).state).toBe(RunState.PENDING);

  await store.setUnmatched(demandClass, undefined);
  expect(await fail(start + 1000)).toBe(0);
  expect((await harness.run(later.runId)).state).toBe(RunState.PENDING);
});
