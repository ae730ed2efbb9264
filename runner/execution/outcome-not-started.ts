import { FailureReason } from "../../gen/agentrunner/v1/run_pb.ts";
import { Report_Kind } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import { outcomeOf } from "./outcome.ts";
import type { ExecutorOutcome, StopReason } from "./supervisor.ts";

/** The outcome of a run that was ended while its spawn still waited for an earlier executor of the session. */
export function notStartedOutcome(killed: StopReason | undefined): ExecutorOutcome {
  const message = "stopped before the executor was started";
  return {
    ...outcomeOf({ end: { type: "not-spawned", message }, outputTruncated: false, stderrTail: "" }),
    kind: Report_Kind.STOPPED,
    failure: killed === "runner-shutdown" ? FailureReason.RUNNER_SHUTDOWN : FailureReason.UNSPECIFIED,
    result: undefined,
    executorSessionId: "",
    outputBytes: 0,
    malformedEvents: 0,
    malformedReason: "",
  };
}
