import { create } from "@bufbuild/protobuf";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { ReportSchema, Report_Kind } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import type { Report } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import type { ExecutorOutcome } from "../execution/supervisor.ts";

/** The lease that a report is about. */
export interface LeaseRef {
  readonly runId: string;
  readonly leaseId: string;
  readonly attempt: number;
}

type Fields = Omit<Exclude<MessageInitShape<typeof ReportSchema>, Report>, "$typeName">;

/** seq of ACCEPT and REFUSE, the first report of a lease. */
export const FIRST_SEQ = 1n;

function report({ runId, leaseId, attempt }: LeaseRef, fields: Fields): Report {
  return create(ReportSchema, { runId, leaseId, attempt, ...fields });
}

export function acceptReport(lease: LeaseRef): Report {
  return report(lease, { seq: FIRST_SEQ, kind: Report_Kind.ACCEPT });
}

/** Why a run is not taken, or handed back. */
export interface Refused {
  readonly reason: string;
  /** What it says: this runner would refuse the run again, whenever it is asked; or nothing about the run at all. */
  readonly about: "run" | "run-for-good" | "runner";
}

export function refuseReport(lease: LeaseRef, { reason, about }: Refused): Report {
  const fields = { permanent: about === "run-for-good", runnerTrouble: about === "runner" };
  return report(lease, { seq: FIRST_SEQ, kind: Report_Kind.REFUSE, message: reason, ...fields });
}

export function startedReport(lease: LeaseRef, seq: bigint, pid: number): Report {
  return report(lease, { seq, kind: Report_Kind.STARTED, pid });
}

export function notStartedReport(lease: LeaseRef, seq: bigint, { reason, about }: Refused): Report {
  return report(lease, { seq, kind: Report_Kind.NOT_STARTED, message: reason, runnerTrouble: about === "runner" });
}

export function progressReport(lease: LeaseRef, seq: bigint, executorSessionId: string): Report {
  return report(lease, { seq, kind: Report_Kind.PROGRESS, executorSessionId });
}

/** The final report of a lease that was stopped before anything was spawned. */
export function stoppedReport(lease: LeaseRef, seq: bigint): Report {
  return report(lease, { seq, kind: Report_Kind.STOPPED, message: "stopped before the executor was started" });
}

export function finalReport(lease: LeaseRef, seq: bigint, outcome: ExecutorOutcome, eventsMissing: number): Report {
  const { kind, failure, message, exit, result, executorSessionId, outputBytes } = outcome;
  return report(lease, {
    seq,
    kind,
    failure,
    message,
    exit,
    ...(result === undefined ? {} : { result }),
    executorSessionId,
    outputBytes: BigInt(outputBytes),
    eventsMissing: BigInt(eventsMissing),
  });
}

/** Upper bound of the encoded size of a report that carries no result. */
export function smallReportBytes({ message, executorSessionId }: Report): number {
  // A UTF-16 unit becomes at most three bytes; ids and numbers fit in what is added.
  return 256 + 3 * (message.length + executorSessionId.length);
}
