import { create } from "@bufbuild/protobuf";
import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import { createValidator } from "@bufbuild/protovalidate";
import { ExecutorEventSchema } from "../../gen/agentrunner/v1/executor_pb.ts";
import { RunState } from "../../gen/agentrunner/v1/run_pb.ts";
import {
  EventBatchSchema,
  EventBatchVerdictSchema,
  Report_Kind,
  ReportSchema,
  ReportVerdictSchema,
  ReportVerdict_Kind,
} from "../../gen/agentrunner/v1/runner_service_pb.ts";
import { mustWait } from "../core/reports/report-batch.ts";
import type {
  EventBatch,
  EventBatchVerdict,
  Report,
  ReportVerdict,
} from "../../gen/agentrunner/v1/runner_service_pb.ts";

const validator = createValidator();

/** The rules that a message breaks, in words that name the field; undefined when it breaks none. */
function problemOf<D extends DescMessage>(schema: D, message: MessageShape<D>): string | undefined {
  const result = validator.validate(schema, message);
  return result.kind === "valid" ? undefined : (result.error?.message ?? "it breaks a rule of its message");
}

/** A batch whose items are judged one by one: what can be decided, and how the answer to all is put together. */
interface Sorted<Item, Verdict> {
  readonly valid: Item[];
  /** One verdict for each item of the batch, from those for the valid ones, in order. */
  verdicts(decided: readonly Verdict[]): Verdict[];
}

const WAITS = "it follows an ACCEPT of its lease in one batch: wait for the answer to the accept, and send it then";

/** A report that breaks a rule, or comes before the answer to its accept, is INVALID, and no trouble of the others. */
export function sortReports(reports: readonly Report[]): Sorted<Report, ReportVerdict> {
  const waits = mustWait(reports.map(({ leaseId, kind }) => ({ leaseId, isAccept: kind === Report_Kind.ACCEPT })));
  const problems = reports.map((report, i) => problemOf(ReportSchema, report) ?? (waits[i] ? WAITS : undefined));
  return {
    valid: reports.filter((_, i) => problems[i] === undefined),
    verdicts(decided) {
      const rest = decided.values();
      return reports.flatMap(({ leaseId, seq }, i) => {
        const message = problems[i];
        if (message === undefined) return rest.next().value ?? [];
        const kind = ReportVerdict_Kind.INVALID;
        return create(ReportVerdictSchema, { leaseId, seq, kind, message, runState: RunState.UNSPECIFIED });
      });
    },
  };
}

/** As for reports; of a batch with an event that breaks a rule, the events before that one are valid. */
export function sortBatches(batches: readonly EventBatch[]): Sorted<EventBatch, EventBatchVerdict> {
  const judged = batches.map((batch) => ({ batch, problem: problemOf(EventBatchSchema, batch), bad: badEvent(batch) }));
  return {
    valid: judged.flatMap(({ batch, problem, bad }) => {
      if (problem !== undefined) return [];
      return bad === undefined
        ? batch
        : create(EventBatchSchema, { ...batch, events: batch.events.slice(0, bad.index) });
    }),
    verdicts(decided) {
      const rest = decided.values();
      return judged.flatMap(({ batch, problem, bad }) => {
        if (problem !== undefined) return invalid(batch, 0n, problem);
        const verdict = rest.next().value;
        if (verdict === undefined) return [];
        const seq = bad === undefined ? 0n : batch.firstSeq + BigInt(bad.index);
        // Otherwise there is something to be said before the turn of the bad event comes.
        const itsTurn = verdict.kind === ReportVerdict_Kind.OK && verdict.committedSeq === seq - 1n;
        if (bad === undefined || !itsTurn) return verdict;
        return { ...invalid(batch, verdict.committedSeq, `event ${seq}: ${bad.problem}`), invalidSeq: seq };
      });
    },
  };
}

function invalid({ leaseId }: EventBatch, committedSeq: bigint, message: string): EventBatchVerdict {
  return create(EventBatchVerdictSchema, { leaseId, kind: ReportVerdict_Kind.INVALID, committedSeq, message });
}

function badEvent({ events }: EventBatch): { index: number; problem: string } | undefined {
  for (const [index, event] of events.entries()) {
    const problem = problemOf(ExecutorEventSchema, event);
    if (problem !== undefined) return { index, problem };
  }
  return undefined;
}
