import { describe, expect, it } from "vitest";
import { createLogger } from "../../../lib/log.ts";
import { SessionExecutions } from "../../../runner/execution/session-executions.ts";
import { RunLease } from "../../../runner/leases/lease.ts";
import type { LeaseDeps } from "../../../runner/leases/lease.ts";

describe("a lease whose final report the coordinator asks for", () => {
  it.each([
    { waits: true, after: "reporting" },
    { waits: false, after: "over" },
  ])("is $after when that report waits in the sender: $waits", ({ waits, after }) => {
    const asked: string[] = [];
    const forgotten: string[] = [];
    const forget = (leaseId: string) => void forgotten.push(leaseId);
    const deps = {
      log: createLogger({ name: "test", level: "error", format: "json" }),
      state: { forgetLease: forget },
      outbox: { removeLease: forget },
      reports: {
        hurry: (leaseId: string) => {
          asked.push(leaseId);
          return waits;
        },
      },
    } as unknown as LeaseDeps;
    const owner = {
      executions: new SessionExecutions(),
      moved: () => undefined,
      refuse: () => undefined,
      started: () => undefined,
      short: () => undefined,
    };
    const ref = { runId: "run_1", leaseId: "lease_1", attempt: 1 };
    const lease = new RunLease(deps, owner, ref, "store_a", { type: "reporting" });
    lease.apply({ type: "resend" });
    expect(asked).toEqual(["lease_1"]);
    expect(lease.state.type).toBe(after);
    expect(forgotten).toHaveLength(waits ? 0 : 2);
  });
});
