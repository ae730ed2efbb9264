import { describe, expect, it } from "vitest";
import type { RunStateName } from "../../../coordinator/core/run-transitions.ts";
import { sessionStatus } from "../../../coordinator/core/sessions/session.ts";
import type { SessionStatusName } from "../../../coordinator/core/sessions/session.ts";

const STATUS: Record<RunStateName, SessionStatusName> = {
  PENDING: "PENDING",
  OFFERED: "PENDING",
  CLAIMED: "RUNNING",
  RUNNING: "RUNNING",
  STOPPING: "STOPPING",
  COMPLETED: "IDLE",
  FAILED: "FAILED",
  STOPPED: "STOPPED",
};
const STATES = Object.keys(STATUS) as RunStateName[];

describe("sessionStatus", () => {
  it.each(Object.entries(STATUS))("of a session whose newest run is %s is %s", (state, status) => {
    expect(sessionStatus(undefined, state as RunStateName)).toBe(status);
  });

  it("is that of the run in progress, whatever became of the newest", () => {
    for (const active of STATES) {
      for (const newest of STATES) expect(sessionStatus(active, newest)).toBe(STATUS[active]);
    }
  });
});
