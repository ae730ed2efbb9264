import { create, toBinary } from "@bufbuild/protobuf";
import type { JsonObject } from "@bufbuild/protobuf";
import { boundResult } from "../../../lib/protocol/bound-result.ts";
import { jsonProblemIn } from "../../../lib/protocol/json-values.ts";
import { isFinalKind } from "../../../lib/protocol/final.ts";
import { OUTPUT_MAX_BYTES } from "../../../lib/protocol/limits.ts";
import { ExecutorEventSchema, ExecutorResultSchema } from "../../../gen/agentrunner/v1/executor_pb.ts";
import type { ExecutorEvent, ExecutorResult } from "../../../gen/agentrunner/v1/executor_pb.ts";
import { ExitSchema, LateReportSchema, RunState } from "../../../gen/agentrunner/v1/run_pb.ts";
import { DirectiveSchema } from "../../../gen/agentrunner/v1/runner_pb.ts";
import type { Directive } from "../../../gen/agentrunner/v1/runner_pb.ts";
import {
  EventBatchSchema,
  EventBatchVerdictSchema,
  Report_Kind,
  ReportSchema,
  ReportVerdict_Kind,
  ReportVerdictSchema,
} from "../../../gen/agentrunner/v1/runner_service_pb.ts";
import type {
  EventBatch,
  EventBatchVerdict,
  Report,
  ReportVerdict,
} from "../../../gen/agentrunner/v1/runner_service_pb.ts";
import { resultProblem } from "../../core/blueprints/blueprint-run.ts";
import { lowReport, lowSeqMessage, remember } from "../../core/reports/report-repeat.ts";
import type { Recorded } from "../../core/reports/report-repeat.ts";
import type { Finality, ReportEvent } from "../../core/run-transitions.ts";
import { snapshotOf } from "./blueprint-snapshots.ts";
import { encode, failureName, lapsedLease } from "./rows.ts";
import { durationFromMs, timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { ReportTerms } from "../store.ts";
import type { AttemptRow, RunRow } from "./rows.ts";
import { awaitsCallbacks } from "./callbacks.ts";
import { appendEvent, apply, runById } from "./transition.ts";
import type { Sql, Tx } from "./tx.ts";

export function outputSchemas(sql: Sql, runIds: readonly string[]): Map<string, JsonObject> {
  const schemas = new Map<string, JsonObject>();
  const numbers = sql<{ seq: number }>("SELECT seq FROM runs WHERE run_id = ?");
  for (const runId of new Set(runIds)) {
    const row = numbers.first(runId);
    const schema = row && snapshotOf(sql, row.seq)?.outputSchema;
    if (schema !== undefined) schemas.set(runId, schema);
  }
  return schemas;
}

/** Decides and stores each report of a batch, in order. */
export function report(tx: Tx, runnerId: string, reports: readonly Report[], terms: ReportTerms): ReportVerdict[] {
  return reports.map((one) => {
    const { kind, message, row, nextSeq = 0 } = decide(tx, runnerId, one, terms);
    return create(ReportVerdictSchema, {
      leaseId: one.leaseId,
      seq: one.seq,
      kind: ReportVerdict_Kind[kind],
      message,
      runState: row === undefined ? RunState.UNSPECIFIED : RunState[row.state],
      nextSeq: BigInt(nextSeq),
    });
  });
}

/** Highest number of a report: the store returns numbers, and those are exact up to here. */
const MAX_SEQ = BigInt(Number.MAX_SAFE_INTEGER);

interface Verdict {
  readonly kind: "OK" | "STALE" | "UNKNOWN" | "INVALID";
  readonly message: string;
  readonly row: RunRow | undefined;
  /** The lowest number that is free, when that of the report was used. */
  readonly nextSeq?: number;
}

function decide(tx: Tx, runnerId: string, one: Report, terms: ReportTerms): Verdict {
  const row = runById(tx.sql, one.runId);
  if (row === undefined) return { kind: "UNKNOWN", message: `no run ${one.runId}`, row };
  const attempt = attemptOf(tx.sql, one.leaseId);
  if (attempt !== undefined && (attempt.run_seq !== row.seq || attempt.runner_id !== runnerId)) {
    return { kind: "INVALID", message: `lease ${one.leaseId} is not of this runner and run`, row };
  }
  if (attempt === undefined && row.lease_id === one.leaseId && row.runner_id !== runnerId) {
    return { kind: "INVALID", message: `lease ${one.leaseId} was offered to another runner`, row };
  }
  if (attempt !== undefined && Number(one.seq) <= attempt.last_seq) {
    const live = counts(row, one);
    const low = lowReport(recordedOf(attempt), Number(one.seq), one.kind, live && isFinalKind(one.kind));
    if (low === "repeat") return { kind: "OK", message: "", row };
    const nextSeq = attempt.last_seq + 1;
    if (live) return { kind: "INVALID", message: lowSeqMessage(one.seq, attempt.last_seq), row, nextSeq };
  }
  if (one.seq > MAX_SEQ) return { kind: "INVALID", message: `seq ${one.seq} is above ${MAX_SEQ}`, row };
  const number = attempt?.attempt ?? (row.lease_id === one.leaseId ? row.attempt + 1 : one.attempt);
  if (one.attempt !== 0 && one.attempt !== number) {
    return { kind: "INVALID", message: `the offer named attempt ${number}, not ${one.attempt}`, row };
  }
  const problem = jsonProblemIn(ReportSchema, one);
  if (problem !== undefined) return { kind: "INVALID", message: problem, row };
  const said = eventOf(one, () => finality(tx.sql, row, runnerId, terms));
  if (said === undefined) return { kind: "INVALID", message: `unknown kind ${one.kind}`, row };
  const event = judged(tx.sql, row, said, one.result, terms.violations.get(one));
  const decision = apply(tx, row, event, { leaseTtlMs: terms.leaseTtlMs });
  if (decision.type === "applied") {
    keep(tx, row, one, attempt);
    return { kind: "OK", message: "", row };
  }
  if (decision.type === "stale") {
    if (event.type === "REFUSE" && wasRefused(tx.sql, row, runnerId, one.leaseId))
      return { kind: "OK", message: "", row };
    keepEvidence(tx, attempt, one, event);
  }
  return { kind: decision.type === "invalid" ? "INVALID" : "STALE", message: decision.message, row };
}

/** A run is not completed by a result that is not what its blueprint promises. */
function judged(
  sql: Sql,
  row: RunRow,
  event: ReportEvent,
  result: ExecutorResult | undefined,
  violations: readonly string[] | undefined,
): ReportEvent {
  if (event.type !== "COMPLETED") return event;
  const blueprint = snapshotOf(sql, row.seq);
  if (blueprint === undefined) return event;
  const awaits = awaitsCallbacks(sql, row.session_seq, row.session_id);
  const message = resultProblem(blueprint, result?.data, violations, awaits);
  if (message === undefined) return event;
  return { leaseId: event.leaseId, type: "FAILED", reason: { name: "OUTPUT_SCHEMA", message } };
}

function attemptOf(sql: Sql, leaseId: string): AttemptRow | undefined {
  return sql<AttemptRow>("SELECT * FROM attempts WHERE lease_id = ?").first(leaseId);
}

/** Whether a report of this lease and kind could still change the run. */
function counts(row: RunRow, { leaseId, kind }: Report): boolean {
  if (row.ended_at !== null) return false;
  if (row.lease_id === leaseId) return true;
  const waits = row.state === "PENDING" || row.state === "OFFERED";
  return waits && lapsedLease(row)?.leaseId === leaseId && isFinalKind(kind);
}

function recordedOf(attempt: AttemptRow): Recorded {
  return JSON.parse(attempt.reported) as Recorded;
}

function wasRefused(sql: Sql, row: RunRow, runnerId: string, leaseId: string): boolean {
  const found = sql("SELECT 1 FROM refusals WHERE run_seq = ? AND runner_id = ? AND lease_id = ?");
  return found.first(row.seq, runnerId, leaseId) !== undefined;
}

/** What a refusal for good comes to, beside those of the other runners that suit the run. */
function finality(sql: Sql, row: RunRow, runnerId: string, { suitable }: ReportTerms): Finality {
  if (row.demand_class === null) return "for-good";
  const refused = sql("SELECT 1 FROM refusals WHERE run_seq = ? AND runner_id = ? AND for_good = 1");
  for (const other of suitable(row.demand_class)) {
    if (other !== runnerId && refused.first(row.seq, other) === undefined) return "for-good";
  }
  return "for-good-by-all";
}

function eventOf(one: Report, forGood: () => Finality): ReportEvent | undefined {
  const { leaseId, message } = one;
  const finality = one.runnerTrouble ? "runner-trouble" : "for-now";
  const name = failureName(one.failure);
  switch (one.kind) {
    case Report_Kind.ACCEPT:
      return { leaseId, type: "ACCEPT" };
    case Report_Kind.REFUSE:
      return { leaseId, type: "REFUSE", message, finality: one.permanent && !one.runnerTrouble ? forGood() : finality };
    case Report_Kind.STARTED:
      return { leaseId, type: "STARTED" };
    case Report_Kind.NOT_STARTED:
      return { leaseId, type: "NOT_STARTED", message, finality };
    case Report_Kind.PROGRESS:
      return { leaseId, type: "PROGRESS" };
    case Report_Kind.COMPLETED:
      return { leaseId, type: "COMPLETED" };
    case Report_Kind.FAILED:
      return { leaseId, type: "FAILED", reason: { name: name ?? "EXECUTOR_EXIT", message } };
    case Report_Kind.STOPPED:
      return { leaseId, type: "STOPPED", reason: { ...(name === undefined ? {} : { name }), message } };
    default:
      return undefined;
  }
}

/** Stores what a committed report carries besides the state. */
function keep({ sql, now }: Tx, row: RunRow, one: Report, before: AttemptRow | undefined): void {
  const recorded = remember(before === undefined ? [] : recordedOf(before), Number(one.seq), one.kind);
  const reported = JSON.stringify(recorded);
  const exit = isFinalKind(one.kind) && one.exit !== undefined ? encode(ExitSchema, one.exit) : null;
  // One write an attempt and report: there are thousands a second.
  if (one.kind === Report_Kind.STARTED) {
    sql("UPDATE attempts SET last_seq = ?, reported = ?, started_at = ?, pid = ? WHERE lease_id = ?").run(
      ...[one.seq, reported, now, one.pid, one.leaseId],
    );
  } else if (exit !== null || (isFinalKind(one.kind) && one.eventsMissing > 0n)) {
    const missing = one.eventsMissing > MAX_SEQ ? MAX_SEQ : one.eventsMissing;
    sql("UPDATE attempts SET last_seq = ?, reported = ?, exit = ?, events_missing = ? WHERE lease_id = ?").run(
      ...[one.seq, reported, exit, missing, one.leaseId],
    );
  } else {
    sql("UPDATE attempts SET last_seq = ?, reported = ? WHERE lease_id = ?").run(one.seq, reported, one.leaseId);
  }
  if (one.executorSessionId !== "" && one.executorSessionId !== row.executor_session_id) {
    sql("UPDATE sessions SET executor_session_id = ? WHERE seq = ?").run(one.executorSessionId, row.session_seq);
    row.executor_session_id = one.executorSessionId;
  }
  if (!isFinalKind(one.kind)) return;
  // The run is pending again: the result of this attempt is not the run's.
  if (row.ended_at === null) return;
  const result = one.result === undefined ? null : encode(ExecutorResultSchema, bounded(one.result));
  if (exit !== null || result !== null) {
    sql("INSERT OR REPLACE INTO run_results (run_seq, exit, result) VALUES (?, ?, ?)").run(row.seq, exit, result);
  }
}

function bounded(result: ExecutorResult): ExecutorResult {
  boundResult(result);
  return result;
}

/** A final report that came too late changes nothing; the first one is kept on its attempt for people to see. */
function keepEvidence({ sql, now }: Tx, attempt: AttemptRow | undefined, one: Report, event: ReportEvent): void {
  if (attempt === undefined || attempt.late !== null || !isFinalKind(one.kind)) return;
  const state = event.type === "COMPLETED" || event.type === "FAILED" ? event.type : "STOPPED";
  const late = create(LateReportSchema, {
    state: RunState[state],
    receivedAt: timestampFromMs(now),
    message: one.message,
  });
  if (one.result !== undefined) late.result = bounded(one.result);
  sql("UPDATE attempts SET late = ? WHERE lease_id = ?").run(encode(LateReportSchema, late), one.leaseId);
}

/** Stores events under their leases. A batch whose first number leaves a gap gets the number of what is committed. */
export function appendEvents(tx: Tx, runnerId: string, batches: readonly EventBatch[]): EventBatchVerdict[] {
  return batches.map((batch) => {
    const verdict = (kind: Verdict["kind"], committed: number, message = ""): EventBatchVerdict =>
      create(EventBatchVerdictSchema, {
        leaseId: batch.leaseId,
        kind: ReportVerdict_Kind[kind],
        committedSeq: BigInt(committed),
        message,
      });
    const row = runById(tx.sql, batch.runId);
    if (row === undefined) return verdict("UNKNOWN", 0, `no run ${batch.runId}`);
    const attempt = attemptOf(tx.sql, batch.leaseId);
    if (attempt === undefined) {
      return row.lease_id === batch.leaseId
        ? verdict("INVALID", 0, "the offer is not accepted: send ACCEPT and wait until it is answered OK")
        : verdict("STALE", 0, `the lease is over; the run is ${row.state}`);
    }
    if (attempt.run_seq !== row.seq || attempt.runner_id !== runnerId) {
      return verdict("INVALID", 0, `lease ${batch.leaseId} is not of this runner and run`);
    }
    if (row.lease_id !== batch.leaseId || row.ended_at !== null) {
      return verdict("STALE", attempt.events_seq, `the lease is over; the run is ${row.state}`);
    }
    const problem = jsonProblemIn(EventBatchSchema, batch);
    if (problem !== undefined) return verdict("INVALID", attempt.events_seq, problem);
    const first = Number(batch.firstSeq);
    if (first > attempt.events_seq + 1)
      return verdict("OK", attempt.events_seq, `send on from ${attempt.events_seq + 1}`);
    return verdict("OK", storeEvents(tx, row, attempt, batch.events.slice(attempt.events_seq + 1 - first)));
  });
}

/** @returns the highest number that is stored. */
function storeEvents(tx: Tx, row: RunRow, attempt: AttemptRow, events: readonly ExecutorEvent[]): number {
  let bytes = attempt.output_bytes;
  for (const event of events) {
    const size = sizeAsOutput(event);
    const within = bytes + size <= OUTPUT_MAX_BYTES;
    if (within) appendEvent(tx, row, attempt.attempt, { case: "executor", value: event });
    else if (bytes <= OUTPUT_MAX_BYTES) appendEvent(tx, row, attempt.attempt, { case: "executor", value: outputCut() });
    bytes += size;
  }
  const committed = attempt.events_seq + events.length;
  if (events.length > 0) {
    tx.sql("UPDATE attempts SET events_seq = ?, output_bytes = ? WHERE lease_id = ?").run(
      committed,
      bytes,
      attempt.lease_id,
    );
  }
  return committed;
}

/** What an event counts against the bound of a run's output: output its text, all else what is stored of it. */
function sizeAsOutput(event: ExecutorEvent): number {
  if (event.event.case === "output") return Buffer.byteLength(event.event.value.text);
  return toBinary(ExecutorEventSchema, event).length;
}

/** Stands where the output of a run passed its bound; what follows of it is not kept. */
function outputCut(): ExecutorEvent {
  const reason = `the output of a run is kept up to ${OUTPUT_MAX_BYTES} bytes`;
  return create(ExecutorEventSchema, { event: { case: "dropped", value: { reason } } });
}

/** Orders that a runner has not carried out: stops that are not confirmed, and a drain. */
export function directives(sql: Sql, runnerId: string): Directive[] {
  const stopping = sql<{ run_id: string; lease_id: string; stop_grace_ms: number; stop_reason: string }>(
    `SELECT run_id, lease_id, stop_grace_ms, stop_reason FROM runs INDEXED BY runs_by_runner
     WHERE runner_id = ? AND lease_id IS NOT NULL AND ended_at IS NULL AND state = 'STOPPING'`,
  ).all(runnerId);
  const orders = stopping.map((run) =>
    create(DirectiveSchema, {
      kind: {
        case: "stop",
        value: {
          runId: run.run_id,
          leaseId: run.lease_id,
          grace: durationFromMs(run.stop_grace_ms),
          reason: run.stop_reason,
        },
      },
    }),
  );
  const drain = sql<{ drain_reason: string }>(
    "SELECT drain_reason FROM runners WHERE runner_id = ? AND drain_ordered = 1",
  ).first(runnerId);
  if (drain === undefined) return orders;
  const reason = drain.drain_reason;
  return [...orders, create(DirectiveSchema, { kind: { case: "drain", value: { reason } } })];
}
