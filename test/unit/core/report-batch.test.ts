import { expect, it } from "vitest";
import { leaseWithReportAfterAccept } from "../../../coordinator/core/reports/report-batch.ts";

const accept = (leaseId: string) => ({ leaseId, isAccept: true });
const other = (leaseId: string) => ({ leaseId, isAccept: false });

it.each([
  ["nothing", [], undefined],
  ["accepts of several leases", [accept("a"), accept("b")], undefined],
  ["an accept and a report of another lease", [accept("a"), other("b")], undefined],
  ["a report before the accept", [other("a"), accept("a")], undefined],
  ["an accept and a later report of its lease", [accept("b"), accept("a"), other("a")], "a"],
  ["the same accept twice", [accept("a"), accept("a")], "a"],
])("a batch of %s names the lease whose later report must wait", (_, batch, lease) => {
  expect(leaseWithReportAfterAccept(batch)).toBe(lease);
});
