import { expect, it } from "vitest";
import { mustWait } from "../../../coordinator/core/reports/report-batch.ts";

const accept = (leaseId: string) => ({ leaseId, isAccept: true });
const other = (leaseId: string) => ({ leaseId, isAccept: false });

it.each([
  ["nothing", [], []],
  ["accepts of several leases", [accept("a"), accept("b")], [false, false]],
  ["an accept and a report of another lease", [accept("a"), other("b")], [false, false]],
  ["a report before the accept", [other("a"), accept("a")], [false, false]],
  ["an accept and a later report of its lease", [accept("b"), accept("a"), other("a")], [false, false, true]],
  ["the same accept twice", [accept("a"), accept("a")], [false, true]],
])("of a batch of %s waits what follows an accept of its lease", (_, batch, waits) => {
  expect(mustWait(batch)).toEqual(waits);
});
