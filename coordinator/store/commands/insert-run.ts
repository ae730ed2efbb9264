import { create } from "@bufbuild/protobuf";
import { RunSummarySchema } from "../../../gen/agentrunner/store/v1/store_pb.ts";
import type { RunSummary } from "../../../gen/agentrunner/store/v1/store_pb.ts";
import { ExecutorInvocationSchema } from "../../../gen/agentrunner/v1/executor_pb.ts";
import type { ExecutorInvocation } from "../../../gen/agentrunner/v1/executor_pb.ts";
import { OnLost_Policy, OnLostSchema } from "../../../gen/agentrunner/v1/run_pb.ts";
import { demandClass } from "../../core/match.ts";
import type { OnLostPolicy } from "../../core/run-transitions.ts";
import { encode, optionalMs, requirementsOfRun } from "./rows.ts";
import type { RunRow, SpecRow } from "./rows.ts";
import { countOpen } from "./session-tree.ts";
import { appendTransition, runBySeq } from "./transition.ts";
import type { Tx } from "./tx.ts";

/** What never changes of a run. */
export interface RunSpec {
  readonly summary: RunSummary;
  /** What its executor is to read; see core/invocation.ts. */
  readonly invocation: ExecutorInvocation;
  /** Empty: the run has none. */
  readonly requestId: string;
  readonly requestHash: Uint8Array;
  /** Number of the blueprint that it is made with (`keepSnapshot`); null without an agent. */
  readonly agentSeq: number | null;
}

/** The session of a run, and where its files are. */
export interface RunSession {
  readonly seq: number;
  readonly runner_id: string;
  readonly executor_profile: string;
  readonly portable: number;
}

/** The spec as it is stored. */
export function encodeSpec({ summary, invocation }: Pick<RunSpec, "summary" | "invocation">): SpecRow {
  return { summary: encode(RunSummarySchema, summary), content: encode(ExecutorInvocationSchema, invocation) };
}

/**
 * Stores a pending run.
 * @param encoded `encodeSpec(spec)`.
 * @param atHead true when no earlier run of its session is open, so that it can be offered.
 */
export function insertRun(tx: Tx, session: RunSession, spec: RunSpec, encoded: SpecRow, atHead: boolean): RunRow {
  const { summary, invocation, requestId, requestHash, agentSeq } = spec;
  const wanted = atHead ? demandClass(requirementsOfRun(summary, session)) : null;
  const onLost = summary.onLost ?? create(OnLostSchema);
  const { lastInsertRowid } = tx
    .sql(
      // 0: a run's events are found by its number, and not from its first one on.
      `INSERT INTO runs (run_id, session_seq, request_id, state, at_head, demand_class, on_lost, max_attempts, lost_after_ms,
         created_at, unmatched_since, first_event)
       VALUES (:runId, :sessionSeq, :requestId, 'PENDING', :atHead, :wanted, :onLost, :maxAttempts, :lostAfterMs, :now, :now, 0)`,
    )
    .run({
      runId: invocation.runId,
      sessionSeq: session.seq,
      requestId: requestId === "" ? null : requestId,
      atHead: atHead ? 1 : 0,
      wanted,
      onLost: policyName(onLost.policy),
      maxAttempts: onLost.maxAttempts,
      lostAfterMs: optionalMs(summary.lostAfter) ?? null,
      now: tx.now,
    });
  const seq = Number(lastInsertRowid);
  tx.sql(
    `INSERT INTO run_specs (run_seq, request_hash, summary, content, agent_seq)
     VALUES (:seq, :requestHash, :summary, :content, :agentSeq)`,
  ).run({ seq, requestHash, summary: encoded.summary, content: encoded.content, agentSeq });
  const row = runBySeq(tx.sql, seq);
  countOpen(tx.sql, row, 1);
  appendTransition(tx, row);
  tx.changes.move(undefined, "PENDING");
  if (wanted !== null) tx.changes.demandClasses.add(wanted);
  return row;
}

function policyName(policy: OnLost_Policy): OnLostPolicy {
  if (policy === OnLost_Policy.RETRY) return "RETRY";
  return policy === OnLost_Policy.RESUME ? "RESUME" : "FAIL";
}
