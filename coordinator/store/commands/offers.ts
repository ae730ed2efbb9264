import { RunSummarySchema } from "../../../gen/agentrunner/store/v1/store_pb.ts";
import { ExecutorInvocationSchema } from "../../../gen/agentrunner/v1/executor_pb.ts";
import { bug } from "../../../lib/bug.ts";
import { freeSlots, MAX_COOLDOWN_MS } from "../../core/capacity.ts";
import { clampedDue } from "../../core/grace.ts";
import type { RunStateName } from "../../core/run-transitions.ts";
import { offeredInvocation } from "../../core/invocation.ts";
import { isHeld } from "../../core/run-transitions.ts";
import type { Candidate, Offer, Offered, PendingRun } from "../store.ts";
import { snapshotOf } from "./blueprint-snapshots.ts";
import { coreRun, decode, leaseOfOpen, optionalMs, RUN_COLUMNS, runColumnsBy } from "./rows.ts";
import type { RunRow, SpecRow } from "./rows.ts";
import { apply, runBySeq } from "./transition.ts";
import type { Sql, Tx } from "./tx.ts";

/** The runs of a class that can be offered; binds :demandClass. */
const PENDING_OF_CLASS = "demand_class = :demandClass AND state = 'PENDING' AND at_head = 1";

/** Runs that one command ends, so that none holds the store for long. */
const BATCH = 100;

/**
 * What one command offers to one runner ends with the run that reaches this many bytes: on a slow way down the offers behind
 * it would lapse before they arrive.
 */
const OFFERED_BYTES = 1024 * 1024;

/** The slowest way down that an offer is given time for, 64 kbit/s; what is smaller than GRACE_BYTES needs none. */
const SLOW_BYTES_PER_MS = 8;
const GRACE_BYTES = 16 * 1024;

/** A runner that can take more runs in this command, as far as is known. */
interface Asked {
  readonly candidate: Candidate;
  /** Free slots; counted when the runner is first asked, so that one run for one of many runners costs one count. */
  readonly free: number | undefined;
  /** Of what this command offers to it. */
  readonly bytes: number;
}

/**
 * Offers pending runs to runners: the oldest first of those that a runner suits, one to each runner in turn.
 *
 * What a runner can take is counted here, on the rows, and not believed from memory.
 */
export function offer(tx: Tx, candidates: readonly Candidate[], newLeaseId: () => string, acceptBy: number): Offered {
  const pending = new OldestPending(tx);
  const offers: Offer[] = [];
  const fullRunnerIds: string[] = [];
  let round: Asked[] = candidates.map((candidate) => ({ candidate, free: undefined, bytes: 0 }));
  while (round.length > 0) {
    const nextRound: Asked[] = [];
    for (const { candidate, free: counted, bytes: before } of round) {
      const seq = pending.oldest(candidate);
      if (seq === undefined) continue;
      const free = counted ?? freeOf(tx.sql, candidate);
      const { runnerId, bootId } = candidate;
      if (free <= 0) {
        fullRunnerIds.push(runnerId);
        continue;
      }
      const row = runBySeq(tx.sql, seq);
      const content = contentOf(tx.sql, row.seq);
      const bytes = before + content.bytes;
      const lease = { leaseId: newLeaseId(), runnerId, bootId };
      apply(tx, row, { type: "OFFER", lease }, { acceptBy: acceptBy + transferMs(bytes) });
      pending.taken(row);
      offers.push(offerOf(tx.sql, row, content));
      if (bytes < OFFERED_BYTES) nextRound.push({ candidate, free: free - 1, bytes });
    }
    round = nextRound;
  }
  return { offers, fullRunnerIds, emptyClasses: pending.empty(), retryAt: pending.retryAt };
}

/** What is offered of a run, as it is stored. */
interface OfferedContent extends Pick<SpecRow, "summary" | "content"> {
  /** Of the invocation, with its blueprint. */
  readonly bytes: number;
}

function contentOf(sql: Sql, runSeq: number): OfferedContent {
  const spec = sql<Pick<SpecRow, "summary" | "content"> & { agent_bytes: number | null }>(
    `SELECT summary, content, (SELECT length(body) FROM agent_snapshots WHERE seq = agent_seq) AS agent_bytes
     FROM run_specs WHERE run_seq = ?`,
  ).first(runSeq);
  if (spec === undefined) throw bug("SPEC4", `run number ${runSeq} has no spec`);
  const { summary, content, agent_bytes } = spec;
  return { summary, content, bytes: content.length + (agent_bytes ?? 0) };
}

function transferMs(bytes: number): number {
  return Math.ceil(Math.max(0, bytes - GRACE_BYTES) / SLOW_BYTES_PER_MS);
}

function freeOf(sql: Sql, { runnerId, bootId }: Candidate): number {
  const row = sql<{ max_runs: number; withheld: number; draining: number; active: number }>(
    `SELECT max_runs, withheld, draining + drain_ordered AS draining,
       (SELECT count(*) FROM runs INDEXED BY runs_by_runner
        WHERE runner_id = :runnerId AND lease_id IS NOT NULL AND ended_at IS NULL) AS active
     FROM runners WHERE runner_id = :runnerId AND boot_id = :bootId`,
  ).first({ runnerId, bootId });
  if (row === undefined || row.draining > 0) return 0;
  return freeSlots(row.max_runs, row.active, row.withheld);
}

/** The first pending runs of demand classes: each looked up once, and again only after it was taken. */
class OldestPending {
  /** Epoch milliseconds at which the first of the cooldowns that were met ends. */
  retryAt: number | undefined;
  readonly #tx: Tx;
  /** By demand class; undefined where nothing is pending. */
  readonly #first = new Map<string, number | undefined>();

  constructor(tx: Tx) {
    this.#tx = tx;
  }

  /** Oldest pending run that suits the runner and has no cooldown for it. */
  oldest({ runnerId, demandClasses }: Candidate): number | undefined {
    let oldest: number | undefined;
    for (const demandClass of demandClasses) {
      const seq = this.#offerable(demandClass, runnerId);
      if (seq !== undefined && (oldest === undefined || seq < oldest)) oldest = seq;
    }
    return oldest;
  }

  /** The run is pending no more. */
  taken({ run_id, demand_class }: RunRow): void {
    if (demand_class === null) throw bug("OFFER1", `run ${run_id} was offered and is of no demand class`);
    this.#first.delete(demand_class);
  }

  /** Classes, of those that were looked at, in which nothing is pending. */
  empty(): string[] {
    return [...this.#first].filter(([, seq]) => seq === undefined).map(([demandClass]) => demandClass);
  }

  #firstOf(demandClass: string): number | undefined {
    if (!this.#first.has(demandClass)) {
      const first = this.#tx.sql<{ seq: number }>(
        `SELECT seq FROM runs WHERE ${PENDING_OF_CLASS} ORDER BY seq LIMIT 1`,
      );
      this.#first.set(demandClass, first.first({ demandClass })?.seq);
    }
    return this.#first.get(demandClass);
  }

  #offerable(demandClass: string, runnerId: string): number | undefined {
    const { sql, now } = this.#tx;
    const first = this.#firstOf(demandClass);
    if (first === undefined) return undefined;
    const cooldown = sql("SELECT 1 FROM refusals WHERE run_seq = ? AND runner_id = ? AND rest_until > ?");
    if (cooldown.first(first, runnerId, now) === undefined) return first;
    const next = sql<{ seq: number }>(
      `SELECT seq FROM runs WHERE ${PENDING_OF_CLASS} AND NOT EXISTS
         (SELECT 1 FROM refusals f WHERE f.run_seq = runs.seq AND f.runner_id = :runnerId AND f.rest_until > :now)
       ORDER BY seq LIMIT 1`,
    ).first({ demandClass, runnerId, now });
    if (next !== undefined) return next.seq;
    const earliest = sql<{ at: number | null }>(
      `SELECT min(rest_until) AS at FROM runs JOIN refusals f ON f.run_seq = runs.seq
       WHERE ${PENDING_OF_CLASS} AND f.runner_id = :runnerId AND f.rest_until > :now`,
    ).first({ demandClass, runnerId, now });
    this.retryAt = Math.min(this.retryAt ?? Infinity, earliest?.at ?? Infinity);
    return undefined;
  }
}

function offerOf(sql: Sql, row: RunRow, spec: OfferedContent): Offer {
  if (row.due_at === null) throw bug("OFFER2", `the offer of ${row.run_id} has no deadline`);
  const { leaseId, runnerId, bootId } = leaseOfOpen(row);
  const summary = decode(RunSummarySchema, spec.summary);
  const attempt = row.attempt + 1;
  const blueprint = summary.agentName === "" ? undefined : snapshotOf(sql, row.seq);
  const invocation = offeredInvocation(decode(ExecutorInvocationSchema, spec.content), {
    attempt,
    sessionName: row.session_name,
    executorSessionId: row.executor_session_id,
    interrupted: row.interrupted === 1,
    resumePrompt: summary.onLost?.resumePrompt ?? "",
    blueprint,
  });
  const hooks = blueprint?.hooks;
  const limits = { timeoutMs: optionalMs(summary.timeout), idleTimeoutMs: optionalMs(summary.idleTimeout) };
  const { bytes } = spec;
  return {
    runnerId,
    bootId,
    runId: row.run_id,
    leaseId,
    attempt,
    acceptBy: row.due_at,
    invocation,
    hooks,
    bytes,
    ...limits,
  };
}

/** Offers that a runner has not answered, to be sent again on a new stream. */
export function openOffers(sql: Sql, runnerId: string): Offer[] {
  return offeredRows(sql, runnerId).map((row) => offerOf(sql, row, contentOf(sql, row.seq)));
}

function offeredRows(sql: Sql, runnerId: string): RunRow[] {
  return sql<RunRow>(
    `SELECT ${runColumnsBy("runs_by_runner")}
     WHERE r.runner_id = ? AND r.lease_id IS NOT NULL AND r.ended_at IS NULL AND r.state = 'OFFERED' ORDER BY r.seq`,
  ).all(runnerId);
}

/**
 * Takes open offers back: those of one runner, or all. With `unanswered`, which says why, the one that was sent first counts
 * as refused: a runner reads them in order, so those behind it were not read.
 */
export function withdrawOffers(tx: Tx, runnerId: string | undefined, unanswered: string | undefined): number {
  const rows =
    runnerId === undefined
      ? tx.sql<RunRow>(`SELECT ${RUN_COLUMNS} WHERE r.state = 'OFFERED'`).all()
      : offeredRows(tx.sql, runnerId);
  const sentAt = (row: RunRow): number => row.offered_at ?? 0;
  const inOrder = rows.toSorted((a, b) => sentAt(a) - sentAt(b) || a.seq - b.seq);
  for (const [i, row] of inOrder.entries()) {
    const { leaseId } = leaseOfOpen(row);
    const blamed = i === 0 && unanswered !== undefined;
    apply(
      tx,
      row,
      blamed ? { type: "OFFER_UNANSWERED", leaseId, message: unanswered } : { type: "OFFER_LAPSED", leaseId },
    );
  }
  return rows.length;
}

/** Ends offers and, with `leases`, leases that are due. Returns whether more are. */
export function expire(tx: Tx, leases: boolean): boolean {
  const due = leases ? "" : "AND r.state = 'OFFERED'";
  const rows = tx
    .sql<RunRow>(`SELECT ${RUN_COLUMNS} WHERE r.due_at <= ? ${due} ORDER BY r.due_at LIMIT ${BATCH}`)
    .all(tx.now);
  for (const row of rows) {
    const { leaseId, runnerId } = leaseOfOpen(row);
    if (isHeld(coreRun(row))) {
      const message = `${runnerId} was not heard from in time`;
      apply(tx, row, { type: "LEASE_LOST", leaseId, message });
    } else {
      tx.changes.lapsedRunnerIds.add(runnerId);
      // While leases have their grace, it may be this process that was away.
      const seconds = ((row.due_at ?? tx.now) - (row.offered_at ?? tx.now)) / 1000;
      const message = `the offer was not accepted within ${seconds} s`;
      apply(tx, row, leases ? { type: "OFFER_UNANSWERED", leaseId, message } : { type: "OFFER_LAPSED", leaseId });
    }
  }
  return rows.length === BATCH;
}

/** The wall clock was set back, now or while nobody looked: no time that is stored may lie further ahead than what it measures can last. */
export function clampTimes({ sql, now }: Tx, leaseTtlMs: number, acceptDeadlineMs: number): void {
  const due = sql<{ seq: number; state: RunStateName; due_at: number; lost_after_ms: number | null }>(
    "SELECT seq, state, due_at, lost_after_ms FROM runs WHERE due_at > ?",
  ).all(now);
  for (const { seq, state, due_at: dueAt, lost_after_ms: lostAfterMs } of due) {
    const ttlMs =
      state === "OFFERED"
        ? acceptDeadlineMs + transferMs(OFFERED_BYTES + contentOf(sql, seq).bytes)
        : (lostAfterMs ?? leaseTtlMs);
    const clamped = clampedDue(dueAt, now, ttlMs);
    if (clamped !== dueAt) sql("UPDATE runs SET due_at = ? WHERE seq = ?").run(clamped, seq);
  }
  sql("UPDATE unmatched_classes SET since = ?1 WHERE since > ?1").run(now);
  sql("UPDATE runners SET last_heard_at = ?1 WHERE last_heard_at > ?1").run(now);
  sql("UPDATE refusals SET rest_until = ?1 WHERE rest_until > ?1").run(now + MAX_COOLDOWN_MS);
}

export function holders(sql: Sql): string[] {
  const rows = sql<{ runner_id: string }>(
    `SELECT DISTINCT runner_id FROM runs
     WHERE lease_id IS NOT NULL AND ended_at IS NULL AND state <> 'OFFERED' AND runner_id IS NOT NULL`,
  ).all();
  return rows.map((row) => row.runner_id);
}

/** The run of a class that waits longest. */
export function firstPending(sql: Sql, demandClass: string): PendingRun | undefined {
  const row = sql<{ run_id: string; session_id: string }>(
    `SELECT run_id, (SELECT session_id FROM sessions WHERE seq = session_seq) AS session_id
     FROM runs INDEXED BY runs_pending WHERE ${PENDING_OF_CLASS} ORDER BY seq LIMIT 1`,
  ).first({ demandClass });
  return row && { runId: row.run_id, sessionId: row.session_id };
}

export function pendingClasses(sql: Sql): string[] {
  // Jumps from class to class in the index; DISTINCT would walk over every pending run.
  const least = "SELECT min(demand_class) FROM runs INDEXED BY runs_pending WHERE state = 'PENDING' AND at_head = 1";
  const rows = sql<{ demand_class: string }>(
    `WITH RECURSIVE class (demand_class) AS (
       VALUES ((${least})) UNION ALL SELECT (${least} AND demand_class > class.demand_class) FROM class WHERE class.demand_class IS NOT NULL
     ) SELECT demand_class FROM class WHERE demand_class IS NOT NULL`,
  ).all();
  return rows.map((row) => row.demand_class);
}
