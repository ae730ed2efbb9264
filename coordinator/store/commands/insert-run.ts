import { create } from "@bufbuild/protobuf";
import { OnLost_Policy, OnLostSchema } from "../../../gen/agentrunner/v1/run_pb.ts";
import type { Run } from "../../../gen/agentrunner/v1/run_pb.ts";
import { demandClass } from "../../core/match.ts";
import type { OnLostPolicy } from "../../core/run.ts";
import { optionalMs, requirementsOfRun } from "./rows.ts";
import type { RunRow } from "./rows.ts";
import { appendTransition, runBySeq } from "./transition.ts";
import type { Tx } from "./transition.ts";

/** What never changes of a run, in the two parts in which it is stored. */
export interface RunSpec {
  /** A Run with everything but prompt, parameters and metadata. */
  readonly facts: Run;
  /** The same, encoded. */
  readonly summary: Uint8Array;
  /** A Run with only prompt, parameters and metadata, encoded. */
  readonly content: Uint8Array;
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

/** Stores a pending run. `atHead`: no earlier run of its session is open, and it can be offered. */
export function insertRun(tx: Tx, session: RunSession, runId: string, spec: RunSpec, atHead: boolean): RunRow {
  const { facts, summary, content, requestId, requestHash, agentSeq } = spec;
  const wanted = atHead ? demandClass(requirementsOfRun(facts, session)) : null;
  const onLost = facts.onLost ?? create(OnLostSchema);
  const { lastInsertRowid } = tx
    .sql(
      `INSERT INTO runs (run_id, session_seq, request_id, state, at_head, demand_class, on_lost, max_attempts, lost_after_ms,
         created_at, first_event)
       VALUES (?, ?, ?, 'PENDING', ?, ?, ?, ?, ?, ?, (SELECT coalesce(max(seq), 0) + 1 FROM events))`,
    )
    .run(
      runId,
      session.seq,
      requestId === "" ? null : requestId,
      atHead ? 1 : 0,
      wanted,
      policyName(onLost.policy),
      onLost.maxAttempts,
      optionalMs(facts.lostAfter) ?? null,
      tx.now,
    );
  const seq = Number(lastInsertRowid);
  tx.sql("INSERT INTO run_specs (run_seq, request_hash, summary, content, agent_seq) VALUES (?, ?, ?, ?, ?)").run(
    seq,
    requestHash,
    summary,
    content,
    agentSeq,
  );
  const row = runBySeq(tx.sql, seq);
  appendTransition(tx, row);
  if (wanted !== null) tx.changes.demandClasses.add(wanted);
  return row;
}

function policyName(policy: OnLost_Policy): OnLostPolicy {
  if (policy === OnLost_Policy.RETRY) return "RETRY";
  return policy === OnLost_Policy.RESUME ? "RESUME" : "FAIL";
}
