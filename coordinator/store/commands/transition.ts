import { create } from "@bufbuild/protobuf";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { RunState } from "../../../gen/agentrunner/v1/run_pb.ts";
import { SessionEventSchema } from "../../../gen/agentrunner/v1/session_pb.ts";
import { demandClass } from "../../core/match.ts";
import { cooldownMs } from "../../core/capacity.ts";
import { isHeld, next } from "../../core/run-transitions.ts";
import { bug } from "../../../lib/bug.ts";
import { isFinalName } from "../../../lib/protocol/final.ts";
import type { Decision, Effect, Lease, Reason, Run, RunEvent } from "../../core/run-transitions.ts";
import { coreRun, leaseOfOpen, messageOf, decode, encode, failureOf, RUN_COLUMNS, requirementsOfRun } from "./rows.ts";
import type { RunRow, SpecRow } from "./rows.ts";
import { RunSummarySchema } from "../../../gen/agentrunner/store/v1/store_pb.ts";
import { countOpen, isBeingDeleted } from "./session-tree.ts";
import type { Sql, Tx } from "./tx.ts";

/** Times that some events need: until when an offer is to be accepted, and how long an accepted lease lasts. */
export interface Terms {
  readonly acceptBy?: number;
  readonly leaseTtlMs?: number;
}

export function runById(sql: Sql, runId: string): RunRow | undefined {
  const row = sql<RunRow>(`SELECT ${RUN_COLUMNS} WHERE r.run_id = ?`).first(runId);
  return row === undefined || isBeingDeleted(row) ? undefined : row;
}

export function runBySeq(sql: Sql, seq: number): RunRow {
  const row = sql<RunRow>(`SELECT ${RUN_COLUMNS} WHERE r.seq = ?`).first(seq);
  if (row === undefined) throw bug("RUN2", `no run has the number ${seq}`);
  return row;
}

/**
 * Lets the state machine decide about a run and writes what it decided: the row, the attempt, the event for those who
 * watch, and, at the end of a run, the turn of the next one of its session.
 *
 * `row` is changed to what is stored.
 */
export function apply(tx: Tx, row: RunRow, event: RunEvent, terms: Terms = {}): Decision {
  const before = coreRun(row);
  const decision = next(before, event);
  if (decision.type !== "applied") return decision;
  const after = decision.run;
  if (after !== before) {
    if (event.type === "ACCEPT" && before.state === "OFFERED") claim(tx, row, after);
    if (isHeld(before) && before.state === "CLAIMED" && event.type !== "NOT_STARTED") bindSession(tx, row);
    write(tx, row, after, event, terms);
    const over = leaseOver(before, after);
    if (over !== undefined) endAttempt(tx, over.leaseId, after, event);
    if (event.type === "LEASE_LOST" && isHeld(before)) tx.changes.lostLeases += 1;
    tx.changes.move(before.state, after.state);
    if (after.state !== before.state) follow(tx, row, before, after);
  }
  for (const effect of decision.effects) perform(tx, row, effect);
  return decision;
}

/** The accepted lease that this decision ended: the one that was held, or the lapsed one whose report still counted. */
function leaseOver(before: Run, after: Run): Lease | undefined {
  if (isHeld(before)) return isHeld(after) ? undefined : before.lease;
  if (before.state !== "PENDING" && before.state !== "OFFERED") return undefined;
  return isFinalName(after.state) && "lease" in after && after.lease === before.lapsed ? before.lapsed : undefined;
}

/** Why an attempt ended after which its run is pending again. */
function reasonOf(event: RunEvent): Reason | undefined {
  if (event.type === "LEASE_LOST") return { name: "LOST", message: event.message };
  if (event.type === "NOT_STARTED") return { message: event.message };
  return event.type === "FAILED" ? event.reason : undefined;
}

function claim(tx: Tx, row: RunRow, after: Run): void {
  tx.sql(
    `INSERT INTO attempts (lease_id, run_seq, attempt, runner_id, boot_id, claimed_at)
     VALUES (:leaseId, :runSeq, :attempt, :runnerId, :bootId, :now)`,
  ).run({ ...leaseOfOpen(row), runSeq: row.seq, attempt: after.attempt, now: tx.now });
  if (row.offered_at !== null) tx.changes.acceptMs.push(tx.now - row.offered_at);
}

/** From here on the session's files are at this runner. */
function bindSession({ sql }: Tx, row: RunRow): void {
  sql(
    `UPDATE sessions SET (runner_id, executor_profile, portable) =
       (SELECT runner_id, executor_profile, portable FROM runners WHERE runner_id = ?)
     WHERE seq = ? AND runner_id <> ? AND EXISTS (SELECT 1 FROM runners WHERE runner_id = ?)`,
  ).run(row.runner_id, row.session_seq, row.runner_id, row.runner_id);
}

function write({ sql, now }: Tx, row: RunRow, after: Run, event: RunEvent, terms: Terms): void {
  const lease = after.state === "PENDING" ? undefined : after.lease;
  const open = !isFinalName(after.state);
  const lapsed = after.state === "PENDING" || after.state === "OFFERED" ? after.lapsed : undefined;
  const reason = "reason" in after ? after.reason : undefined;
  const stop = after.state === "STOPPING" ? after.stop : undefined;
  const accepted = event.type === "ACCEPT";
  const written = {
    state: after.state,
    attempt: after.attempt,
    uncharged: after.uncharged,
    refusals: after.refusals,
    refusal_reasons: JSON.stringify(after.refusalReasons),
    interrupted: after.interrupted ? 1 : 0,
    lease_id: lease?.leaseId ?? null,
    runner_id: lease?.runnerId ?? row.runner_id,
    boot_id: lease?.bootId ?? row.boot_id,
    offered_at: event.type === "OFFER" ? now : row.offered_at,
    due_at: dueAt(row, after, now, terms),
    lapsed: lapsed === undefined ? null : JSON.stringify(lapsed),
    started: after.state === "STOPPING" && after.started ? 1 : 0,
    stop_grace_ms: stop?.graceMs ?? null,
    stop_reason: stop?.reason ?? null,
    failure: reason?.name ?? null,
    message: reason?.message ?? "",
    claimed_at: accepted ? now : row.claimed_at,
    started_at: accepted ? null : event.type === "STARTED" ? now : row.started_at,
    ended_at: open ? null : now,
  } satisfies Written;
  const update = updateOf(row, written);
  if (update !== undefined) sql(update).run({ ...written, seq: row.seq });
  Object.assign(row, written);
}

/** Columns that a decision can change. */
const WRITTEN = [
  ...([
    "state",
    "attempt",
    "uncharged",
    "refusals",
    "refusal_reasons",
    "interrupted",
    "lease_id",
    "runner_id",
  ] as const),
  ...(["boot_id", "offered_at", "due_at", "lapsed", "started", "stop_grace_ms", "stop_reason", "failure"] as const),
  ...(["message", "claimed_at", "started_at", "ended_at"] as const),
];
type Written = Pick<RunRow, (typeof WRITTEN)[number]>;

/** By the set of what changes, as bits: as many as the state machine has kinds of moves. */
const UPDATES = new Map<number, string>();

/** Only what changes is written: SQLite writes the entries of every index anew that has a column which is set. */
function updateOf(row: RunRow, written: Written): string | undefined {
  const changed = WRITTEN.filter((column) => row[column] !== written[column]);
  const bits = changed.reduce((all, column) => all | (1 << WRITTEN.indexOf(column)), 0);
  if (bits === 0) return undefined;
  let text = UPDATES.get(bits);
  if (text === undefined) {
    const set = changed.map((column) => `${column} = :${column}`);
    text = `UPDATE runs SET ${set.join(", ")} WHERE seq = :seq`;
    UPDATES.set(bits, text);
  }
  return text;
}

/** When the coordinator has to look at the run again: the end of the offer, or of the lease. */
function dueAt(row: RunRow, after: Run, now: number, { acceptBy, leaseTtlMs }: Terms): number | null {
  if (after.state === "OFFERED") return acceptBy ?? row.due_at;
  if (!isHeld(after)) return null;
  return leaseTtlMs === undefined ? row.due_at : now + (row.lost_after_ms ?? leaseTtlMs);
}

function endAttempt({ sql, now }: Tx, leaseId: string, after: Run, event: RunEvent): void {
  const reason = "reason" in after ? after.reason : reasonOf(event);
  sql(
    `UPDATE attempts SET ended_at = :now, outcome = :outcome, failure = :failure, message = :message
     WHERE lease_id = :leaseId`,
  ).run({ now, outcome: after.state, failure: reason?.name ?? null, message: reason?.message ?? "", leaseId });
}

function follow(tx: Tx, row: RunRow, before: Run, after: Run): void {
  if (after.state !== "OFFERED" && !(before.state === "OFFERED" && after.state === "PENDING")) {
    appendTransition(tx, row);
  }
  if (
    before.state !== "PENDING" &&
    before.lease !== undefined &&
    (after.state === "PENDING" || isFinalName(after.state))
  ) {
    tx.changes.freedRunnerIds.add(before.lease.runnerId);
  }
  if (after.state === "PENDING") enqueue(tx, row);
  else if (isFinalName(after.state)) {
    tx.changes.ended.push(after.state);
    tx.endedRuns.push(row);
    countOpen(tx.sql, row, -1);
    nextOfSession(tx, row.session_seq);
  }
}

function perform({ sql, changes, now }: Tx, row: RunRow, effect: Effect): void {
  if (effect.type !== "cool-down") {
    changes.effects.push({ ...effect, runId: row.run_id });
    return;
  }
  const { runnerId, leaseId } = effect.lease;
  const known = sql<{ count: number }>("SELECT count FROM refusals WHERE run_seq = ? AND runner_id = ?");
  const count = (known.first(row.seq, runnerId)?.count ?? 0) + 1;
  sql(
    `INSERT OR REPLACE INTO refusals (run_seq, runner_id, count, rest_until, lease_id, for_good)
     VALUES (:runSeq, :runnerId, :count, :until, :leaseId, :forGood)`,
  ).run({
    ...{ runSeq: row.seq, runnerId, count, leaseId, until: now + cooldownMs(count) },
    forGood: effect.finality === "for-good" || effect.finality === "for-good-by-all" ? 1 : 0,
  });
}

/** Puts a pending run that is first in its session where the dispatcher finds it. */
function enqueue({ sql, changes, now }: Tx, row: RunRow): void {
  const session = sql<{ runner_id: string; executor_profile: string; portable: number }>(
    "SELECT runner_id, executor_profile, portable FROM sessions WHERE seq = ?",
  ).first(row.session_seq);
  if (session === undefined) throw bug("RUN3", `run ${row.run_id} has no session`);
  // A run that starts its session over after a loss is not bound to the runner that was lost.
  const bound = row.demand_class === null || row.interrupted === 1;
  if (bound) {
    const spec = sql<Pick<SpecRow, "summary">>("SELECT summary FROM run_specs WHERE run_seq = ?").first(row.seq);
    if (spec === undefined) throw bug("SPEC3", `run ${row.run_id} has no spec`);
    row.demand_class = demandClass(requirementsOfRun(decode(RunSummarySchema, spec.summary), session));
  }
  row.at_head = 1;
  sql("UPDATE runs SET at_head = 1, demand_class = ?, unmatched_since = ? WHERE seq = ?").run(
    row.demand_class,
    now,
    row.seq,
  );
  if (row.demand_class !== null) changes.demandClasses.add(row.demand_class);
}

function nextOfSession(tx: Tx, sessionSeq: number): void {
  const waiting = tx.sql<{ seq: number }>(
    "SELECT seq FROM runs INDEXED BY runs_open_of_session WHERE session_seq = ? AND ended_at IS NULL ORDER BY seq LIMIT 1",
  );
  const first = waiting.first(sessionSeq);
  if (first !== undefined) enqueue(tx, runBySeq(tx.sql, first.seq));
}

/** Appends the run's state, as it is in `row`, to the session's events. Returns the event's place. */
export function appendTransition(tx: Tx, row: RunRow): number {
  return appendEvent(tx, row, row.attempt, {
    case: "transition",
    value: {
      state: RunState[row.state],
      runnerId: row.lease_id === null ? "" : (row.runner_id ?? ""),
      failure: failureOf(row.failure),
      message: messageOf(row),
    },
  });
}

type EventBody = NonNullable<Exclude<MessageInitShape<typeof SessionEventSchema>["event"], undefined>>;

export function appendEvent(tx: Tx, row: RunRow, attempt: number, event: EventBody): number {
  const body = encode(SessionEventSchema, create(SessionEventSchema, { event }));
  tx.changes.sessionIds.add(row.session_id);
  const { lastInsertRowid } = tx
    .sql("INSERT INTO events (session_seq, run_seq, attempt, at, body) VALUES (?, ?, ?, ?, ?)")
    .run(row.session_seq, row.seq, attempt, tx.now, body);
  return Number(lastInsertRowid);
}
