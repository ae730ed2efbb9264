import { describe, expect, it } from "vitest";
import { leaseVerdict } from "../../../coordinator/core/held-lease.ts";
import type { LeaseVerdict } from "../../../coordinator/core/held-lease.ts";
import { aRun, CURRENT, FOREIGN, LAPSED, NEW_FACTS, PLACES } from "../../support/runs.ts";
import type { PlaceName } from "../../support/runs.ts";

const held = { runId: "run_1", leaseId: CURRENT.leaseId, final: false };

describe("leaseVerdict", () => {
  it.each<[PlaceName, LeaseVerdict["kind"], string]>([
    ["PENDING", "STOP", "the lease is over; the run is PENDING"],
    ["OFFERED", "RENEWED", ""],
    ["CLAIMED", "RENEWED", ""],
    ["RUNNING", "RENEWED", ""],
    ["STOPPING", "RENEWED", "to be stopped: stopped by ada"],
    ["UNSTARTED", "RENEWED", "to be stopped: stopped by ada"],
    ["COMPLETED", "STOP", "the run is COMPLETED"],
    ["FAILED", "STOP", "the run is FAILED"],
    ["STOPPED", "STOP", "the run is STOPPED"],
  ])("of a run that is %s under the lease is %s", (at, kind, reason) => {
    expect(leaseVerdict(aRun(at), held)).toEqual({ kind, reason });
  });

  it("ends every lease that is not the run's own, a lapsed one too", () => {
    for (const { leaseId } of [LAPSED, FOREIGN]) {
      for (const at of Object.keys(PLACES) as PlaceName[]) {
        const run = aRun(at);
        const reason = `the lease is over; the run is ${run.state}`;
        expect(leaseVerdict(run, { ...held, leaseId })).toEqual({ kind: "STOP", reason });
      }
    }
  });

  it("ends a lease of a run that ended without one", () => {
    const run = { ...NEW_FACTS, state: "STOPPED", lease: undefined, reason: { message: "stopped by ada" } } as const;
    expect(leaseVerdict(run, held)).toEqual({ kind: "STOP", reason: "the lease is over; the run is STOPPED" });
  });

  it("asks for the final report of every run that it knows, so that the outcome or its evidence arrives", () => {
    for (const at of Object.keys(PLACES) as PlaceName[]) {
      const verdict = { kind: "RESEND_FINAL", reason: "the final report is not committed" };
      expect(leaseVerdict(aRun(at), { ...held, final: true }), at).toEqual(verdict);
    }
  });

  it("does not know a run that the store does not know, with or without a final report", () => {
    for (const final of [false, true]) {
      expect(leaseVerdict(undefined, { ...held, final })).toEqual({ kind: "UNKNOWN", reason: "the run is not known" });
    }
  });
});
