import { FailureReason } from "../gen/agentrunner/v1/run_pb.ts";

/** Exit codes of every program (ADR 13). */
export const EXIT = {
  ok: 0,
  /** The run failed. */
  failed: 1,
  /** Wrong flags, variables or configuration. */
  usage: 2,
  /** The coordinator cannot be reached. */
  unreachable: 3,
  /** The coordinator, or a lock, refuses this process. */
  refused: 4,
  /** The run was stopped. */
  stopped: 5,
  /** The run took longer than its limits allow, or `ao wait` than its own. */
  timedOut: 6,
  /** The coordinator has nothing of that name or id. */
  notFound: 7,
  /** An error of ours. */
  bug: 70,
} as const;

export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** Exit code that says why a run failed. */
export function exitOfFailure(failure: FailureReason): ExitCode {
  return failure === FailureReason.TIMEOUT || failure === FailureReason.IDLE ? EXIT.timedOut : EXIT.failed;
}
