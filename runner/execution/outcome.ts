import { create } from "@bufbuild/protobuf";
import { ExitSchema, FailureReason } from "../../gen/agentrunner/v1/run_pb.ts";
import type { Exit } from "../../gen/agentrunner/v1/run_pb.ts";
import { Report_Kind } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import type { Ended, MarkedProcess } from "./processes.ts";

/** Exit code by which an executor says that its environment failed, not its work (EX_TEMPFAIL of sysexits.h). */
const ENVIRONMENT_EXIT_CODE = 75;

/** How the executor's own process ended. */
export type ProcessEnd =
  | { type: "code"; code: number }
  | { type: "signal"; signal: NodeJS.Signals }
  /** Never ran; `message` says why. `shortage`: the machine was short of something, which says nothing about the run. */
  | { type: "not-spawned"; message: string; shortage: boolean }
  /** Still there after SIGKILL: it waits inside the kernel, for a disk that does not respond for example. */
  | { type: "stuck"; pid: number };

/** Why the runner sent the executor a signal. */
export type EndedBy =
  /** Somebody asked for it. */
  | { type: "stop" }
  /** The runner was told to end itself. */
  | { type: "shutdown" }
  | { type: "timeout"; afterMs: number }
  | { type: "idle"; afterMs: number; limit: string }
  /** It gave its result and did not exit. */
  | { type: "result"; afterMs: number };

export interface ExecutionFacts {
  end: ProcessEnd;
  /** Reason of the runner's first signal. Absent when the executor had ended before it, or none was sent. */
  endedBy?: EndedBy | undefined;
  /** Time from SIGTERM to SIGKILL. Absent when SIGTERM was enough. */
  killedAfterMs?: number | undefined;
  /** The process group outlived its leader and had to be ended. */
  outputTruncated: boolean;
  /** End of stderr, already bounded. */
  stderrTail: string;
  /** What had left the process group. Absent: not looked for. */
  behind?: Ended | undefined;
}

export interface Outcome {
  /** NOT_STARTED hands the run back: nothing was executed. */
  kind:
    | typeof Report_Kind.COMPLETED
    | typeof Report_Kind.FAILED
    | typeof Report_Kind.STOPPED
    | typeof Report_Kind.NOT_STARTED;
  /** Set when FAILED, and when STOPPED because the runner ends. */
  failure: FailureReason;
  /** For people; empty when the executor exited 0 by itself. */
  message: string;
  exit: Exit;
}

/** What a run comes to: the table of ADR 12. The runner's first signal decides, if the executor still ran; else its own end. */
export function outcomeOf(facts: ExecutionFacts): Outcome {
  const { end, endedBy, outputTruncated } = facts;
  const exit = create(ExitSchema, { outputTruncated, forced: endedBy?.type === "result" });
  if (end.type === "code") exit.code = end.code;
  if (end.type === "signal") exit.signal = end.signal;
  const { kind, failure, message } = endedBy === undefined ? ownOutcome(facts) : forcedOutcome(endedBy, facts);
  const said = [message, endedBy === undefined ? behindText(facts) : survivorsText(facts)].filter(
    (text) => text !== "",
  );
  return { kind, failure, message: said.join("; "), exit };
}

type Verdict = Omit<Outcome, "exit">;

const LEFT_IN_GROUP = "executor left processes behind, which were ended";

function nothingBehind({ behind }: ExecutionFacts): boolean {
  return behind === undefined || (behind.ended.length === 0 && behind.left.length === 0);
}

/** What an executor that ended by itself left outside of its process group. */
function behindText(facts: ExecutionFacts): string {
  const ended = facts.behind?.ended ?? [];
  const text = ended.length === 0 ? "" : `executor left processes behind, which were ended: ${namesOf(ended)}`;
  return [text, survivorsText(facts)].filter((one) => one !== "").join("; ");
}

function survivorsText({ behind }: ExecutionFacts): string {
  if (behind === undefined || behind.left.length === 0) return "";
  return `processes of the run are still there after SIGKILL: ${namesOf(behind.left)}`;
}

/** Names that one message holds; the others are counted. */
const MAX_NAMED = 5;

function namesOf(processes: readonly MarkedProcess[]): string {
  const names = processes.slice(0, MAX_NAMED).map(({ pid, name }) => (name === "" ? String(pid) : `${pid} (${name})`));
  const more = processes.length - names.length;
  return more > 0 ? `${names.join(", ")} and ${more} more` : names.join(", ");
}

function ownOutcome(facts: ExecutionFacts): Verdict {
  const { end, stderrTail, outputTruncated } = facts;
  switch (end.type) {
    case "code": {
      if (end.code === 0) return completed(outputTruncated && nothingBehind(facts) ? LEFT_IN_GROUP : "");
      const code = `executor exited with code ${end.code}`;
      return end.code === ENVIRONMENT_EXIT_CODE
        ? failed(FailureReason.ENVIRONMENT, `${code}: its environment failed, not its work`, stderrTail)
        : failed(FailureReason.EXECUTOR_EXIT, code, stderrTail);
    }
    case "signal": {
      const hint = end.signal === "SIGKILL" ? " (the system may have run out of memory)" : "";
      const message = `executor was ended by ${end.signal}, which the runner did not send${hint}`;
      return failed(FailureReason.SIGNAL, message, stderrTail);
    }
    case "not-spawned":
      return end.shortage
        ? { kind: Report_Kind.NOT_STARTED, failure: FailureReason.UNSPECIFIED, message: end.message }
        : { kind: Report_Kind.FAILED, failure: FailureReason.SPAWN, message: end.message };
    case "stuck":
      return failed(FailureReason.SIGNAL, `executor process ${end.pid} is still there after SIGKILL`, stderrTail);
    default:
      return end satisfies never;
  }
}

function forcedOutcome(endedBy: EndedBy, facts: ExecutionFacts): Verdict {
  const how = manner(facts);
  switch (endedBy.type) {
    case "stop":
      return { kind: Report_Kind.STOPPED, failure: FailureReason.UNSPECIFIED, message: `stopped on request; ${how}` };
    case "shutdown":
      return {
        kind: Report_Kind.STOPPED,
        failure: FailureReason.RUNNER_SHUTDOWN,
        message: `stopped because the runner was told to end; ${how}`,
      };
    case "timeout": {
      const message = `executor ran longer than its timeout of ${duration(endedBy.afterMs)}; ${how}`;
      return failed(FailureReason.TIMEOUT, message, facts.stderrTail);
    }
    case "idle": {
      const message = `executor printed nothing for ${duration(endedBy.afterMs)}, ${endedBy.limit}; ${how}`;
      return failed(FailureReason.IDLE, message, facts.stderrTail);
    }
    case "result":
      return completed(`executor gave its result but did not exit within ${duration(endedBy.afterMs)}; ${how}`);
    default:
      return endedBy satisfies never;
  }
}

function completed(message: string): Verdict {
  return { kind: Report_Kind.COMPLETED, failure: FailureReason.UNSPECIFIED, message };
}

function failed(failure: FailureReason, reason: string, stderrTail: string): Verdict {
  const tail = stderrTail.trim();
  const message = tail === "" ? `${reason}; nothing on stderr` : `${reason}; end of stderr: ${tail}`;
  return { kind: Report_Kind.FAILED, failure, message };
}

/** How an executor ended that the runner had signalled. */
function manner({ end, killedAfterMs }: ExecutionFacts): string {
  switch (end.type) {
    case "code":
      return `it exited with code ${end.code} on SIGTERM`;
    case "signal":
      return killedAfterMs !== undefined && end.signal === "SIGKILL"
        ? `it was ended by SIGKILL, ${duration(killedAfterMs)} after SIGTERM`
        : `it was ended by ${end.signal}`;
    case "stuck":
      return `process ${end.pid} is still there after SIGKILL`;
    case "not-spawned":
      return end.message;
    default:
      return end satisfies never;
  }
}

function duration(ms: number): string {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${Number((ms / 1000).toFixed(1))} s`;
}
