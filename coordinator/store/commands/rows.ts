import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import type { DescMessage, JsonObject, MessageShape } from "@bufbuild/protobuf";
import { durationMs, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { RunSummarySchema, SessionDataSchema } from "../../../gen/agentrunner/store/v1/store_pb.ts";
import type { RunSummary } from "../../../gen/agentrunner/store/v1/store_pb.ts";
import { ExecutorInvocationSchema, ExecutorResultSchema } from "../../../gen/agentrunner/v1/executor_pb.ts";
import {
  AttemptSchema,
  DemandsSchema,
  ExitSchema,
  FailureReason,
  InvocationMode,
  LateReportSchema,
  RunSchema,
  RunState,
} from "../../../gen/agentrunner/v1/run_pb.ts";
import type { Attempt, Run as RunMessage } from "../../../gen/agentrunner/v1/run_pb.ts";
import { bug } from "../../../lib/bug.ts";
import { isFinalName } from "../../../lib/protocol/final.ts";
import type { Requirements } from "../../core/match.ts";
import type { FailureName, Lease, OnLostPolicy, Run, RunStateName } from "../../core/run-transitions.ts";

/** A run with what is needed of its session, as `RUN_COLUMNS` selects it. */
export interface RunRow {
  seq: number;
  run_id: string;
  session_seq: number;
  session_id: string;
  session_name: string;
  parent_session_id: string;
  executor_session_id: string;
  request_id: string | null;
  state: RunStateName;
  at_head: number;
  demand_class: string | null;
  attempt: number;
  uncharged: number;
  refusals: number;
  refusal_reasons: string;
  interrupted: number;
  on_lost: OnLostPolicy;
  max_attempts: number;
  lost_after_ms: number | null;
  lease_id: string | null;
  runner_id: string | null;
  boot_id: string | null;
  offered_at: number | null;
  due_at: number | null;
  lapsed: string | null;
  started: number;
  stop_grace_ms: number | null;
  stop_reason: string | null;
  failure: FailureName | null;
  message: string;
  created_at: number;
  claimed_at: number | null;
  started_at: number | null;
  ended_at: number | null;
}

const COLUMNS = `
  r.seq, r.run_id, r.session_seq, s.session_id, s.session_name, s.parent_session_id, s.executor_session_id, r.request_id, r.state, r.at_head,
  r.demand_class, r.attempt, r.uncharged, r.refusals, r.refusal_reasons, r.interrupted, r.on_lost, r.max_attempts, r.lost_after_ms,
  r.lease_id, r.runner_id, r.boot_id, r.offered_at, r.due_at, r.lapsed, r.started, r.stop_grace_ms, r.stop_reason,
  r.failure, r.message, r.created_at, r.claimed_at, r.started_at, r.ended_at`;

export const RUN_COLUMNS = `${COLUMNS} FROM runs r JOIN sessions s ON s.seq = r.session_seq`;

/**
 * RUN_COLUMNS by an index of open runs. SQLite, which has no statistics here, would take one that holds the runs that ended as
 * well, and read them all.
 */
export function runColumnsBy(index: "runs_by_runner" | "runs_pending" | "runs_open_of_session"): string {
  return `${COLUMNS} FROM runs r INDEXED BY ${index} JOIN sessions s ON s.seq = r.session_seq`;
}

/** The run as the state machine sees it. */
export function coreRun(row: RunRow): Run {
  const facts = {
    onLost: { policy: row.on_lost, maxAttempts: row.max_attempts },
    attempt: row.attempt,
    uncharged: row.uncharged,
    refusals: row.refusals,
    refusalReasons: JSON.parse(row.refusal_reasons) as string[],
    resumable: row.executor_session_id !== "",
    interrupted: row.interrupted === 1,
  };
  const { state } = row;
  if (state === "PENDING") return { ...facts, state, lapsed: lapsedLease(row) };
  if (isFinalName(state)) return { ...facts, state, lease: leaseOf(row), reason: reasonOf(row) };
  const lease = leaseOf(row);
  if (lease === undefined) throw bug("ROW1", `run ${row.run_id} is ${state} without a lease`);
  if (state === "OFFERED") return { ...facts, state, lease, lapsed: lapsedLease(row) };
  if (state !== "STOPPING") return { ...facts, state, lease };
  if (row.stop_grace_ms === null) throw bug("ROW2", `run ${row.run_id} is STOPPING without a grace`);
  const stop = { graceMs: row.stop_grace_ms, reason: messageOf(row) };
  return { ...facts, state, lease, started: row.started === 1, stop };
}

/** The lease that the run is offered, held, or ended under. */
function leaseOf({ run_id, lease_id, runner_id, boot_id }: RunRow): Lease | undefined {
  if (lease_id === null) return undefined;
  if (runner_id === null || boot_id === null) throw bug("ROW3", `lease ${lease_id} of ${run_id} is of no runner`);
  return { leaseId: lease_id, runnerId: runner_id, bootId: boot_id };
}

/** What is said of the run: while it is being stopped why, else why it ended. */
export function messageOf({ run_id, state, stop_reason, message }: RunRow): string {
  if (state !== "STOPPING") return message;
  if (stop_reason === null) throw bug("ROW5", `run ${run_id} is STOPPING without a reason`);
  return stop_reason;
}

/** The lease of a run that is offered or held. */
export function leaseOfOpen(row: RunRow): Lease {
  const lease = leaseOf(row);
  if (lease === undefined) throw bug("ROW4", `run ${row.run_id} is ${row.state} and has no lease`);
  return lease;
}

/** The lease that lapsed last, while the run waits for a newer accept. */
export function lapsedLease({ lapsed }: RunRow): Lease | undefined {
  return lapsed === null ? undefined : (JSON.parse(lapsed) as Lease);
}

function reasonOf({ failure, message }: RunRow): { name?: FailureName; message: string } | undefined {
  if (failure !== null) return { name: failure, message };
  return message === "" ? undefined : { message };
}

/** Bytes of a message for a BLOB column. */
export function encode<D extends DescMessage>(schema: D, message: MessageShape<D>): Uint8Array {
  return toBinary(schema, message);
}

/** Metadata for its column; null for none. */
export function encodeMetadata(metadata: JsonObject | undefined): Uint8Array | null {
  return metadata === undefined ? null : encode(SessionDataSchema, create(SessionDataSchema, { metadata }));
}

export function decode<D extends DescMessage>(schema: D, bytes: Uint8Array): MessageShape<D> {
  return fromBinary(schema, bytes);
}

export function decodeOptional<D extends DescMessage>(
  schema: D,
  bytes: Uint8Array | null | undefined,
): MessageShape<D> | undefined {
  return bytes === null || bytes === undefined ? undefined : decode(schema, bytes);
}

export function failureOf(name: string | null): FailureReason {
  return name === null ? FailureReason.UNSPECIFIED : FailureReason[name as keyof typeof FailureReason];
}

/** Name of a failure that a runner reported; undefined for none and for values of a newer protocol. */
export function failureName(reason: FailureReason): FailureName | undefined {
  if (reason === FailureReason.UNSPECIFIED) return undefined;
  return (Object.entries(FailureReason) as [FailureName, FailureReason][]).find(([, value]) => value === reason)?.[0];
}

export function optionalTimestamp(ms: number | null): ReturnType<typeof timestampFromMs> | undefined {
  return ms === null ? undefined : timestampFromMs(ms);
}

export function optionalMs(duration: Parameters<typeof durationMs>[0] | undefined): number | undefined {
  return duration === undefined ? undefined : durationMs(duration);
}

/** What is stored of a run beside its row, as bytes. */
export interface SpecRow {
  readonly summary: Uint8Array;
  /** An ExecutorInvocation. */
  readonly content: Uint8Array;
}

/** How a run ended, as bytes. */
export interface ResultRow {
  readonly exit: Uint8Array | null;
  readonly result: Uint8Array | null;
}

/**
 * The run for callers.
 * @param spec its summary, and its content too when the caller is to see prompt, parameters and metadata.
 * @param ended its exit and result, when they are wanted and it has them.
 */
export function runMessage(
  row: RunRow,
  spec: Pick<SpecRow, "summary"> & Partial<SpecRow>,
  ended?: ResultRow,
): RunMessage {
  const { $typeName: _, $unknown: __, needs: ___, ...summary } = decode(RunSummarySchema, spec.summary);
  const run = Object.assign(create(RunSchema), summary);
  if (spec.content !== undefined) {
    const { prompt, parameters, metadata } = decode(ExecutorInvocationSchema, spec.content);
    run.prompt = prompt;
    if (parameters !== undefined) run.parameters = parameters;
    if (metadata !== undefined) run.metadata = metadata;
  }
  Object.assign(run, {
    runId: row.run_id,
    sessionId: row.session_id,
    sessionName: row.session_name,
    state: RunState[row.state],
    mode: row.interrupted === 1 ? InvocationMode.RESUME : run.mode,
    attempt: row.attempt,
    runnerId: row.runner_id ?? "",
    failure: failureOf(row.failure),
    message: messageOf(row),
    requestId: row.request_id ?? "",
    createdAt: timestampFromMs(row.created_at),
    claimedAt: optionalTimestamp(row.claimed_at),
    startedAt: optionalTimestamp(row.started_at),
    endedAt: optionalTimestamp(row.ended_at),
    exit: decodeOptional(ExitSchema, ended?.exit),
    result: decodeOptional(ExecutorResultSchema, ended?.result),
  });
  return run;
}

export interface AttemptRow {
  lease_id: string;
  run_seq: number;
  attempt: number;
  runner_id: string;
  boot_id: string;
  last_seq: number;
  /** `Recorded` of core/reports/report-repeat.ts as JSON. */
  reported: string;
  events_seq: number;
  output_bytes: number;
  claimed_at: number;
  started_at: number | null;
  ended_at: number | null;
  pid: number;
  outcome: RunStateName | null;
  failure: FailureName | null;
  message: string;
  exit: Uint8Array | null;
  events_missing: number;
  late: Uint8Array | null;
}

export function attemptMessage(row: AttemptRow): Attempt {
  const attempt = create(AttemptSchema, {
    attempt: row.attempt,
    leaseId: row.lease_id,
    runnerId: row.runner_id,
    claimedAt: timestampFromMs(row.claimed_at),
    outcome: row.outcome === null ? RunState.UNSPECIFIED : RunState[row.outcome],
    failure: failureOf(row.failure),
    message: row.message,
    pid: row.pid,
    eventsMissing: BigInt(row.events_missing),
  });
  return Object.assign(attempt, {
    startedAt: optionalTimestamp(row.started_at),
    endedAt: optionalTimestamp(row.ended_at),
    exit: decodeOptional(ExitSchema, row.exit),
    lateReport: decodeOptional(LateReportSchema, row.late),
  });
}

/**
 * What a run asks for, with what its session adds: a resume goes where the session's files are, unless the executor is
 * portable or the caller lets it go anywhere (ADR 10).
 */
export function requirementsOfRun(
  run: Pick<RunSummary, "demands" | "anyRunner" | "needs">,
  session: { runner_id: string; executor_profile: string; portable: number },
): Requirements {
  const demands = run.demands ?? create(DemandsSchema);
  const anywhere = run.anyRunner || session.portable === 1;
  return {
    executorProfile: demands.executorProfile || session.executor_profile,
    hostname: demands.hostname,
    projectDir: demands.projectDir,
    tags: demands.tags,
    affinityRunnerId: anywhere ? "" : session.runner_id,
    needs: run.needs,
  };
}
