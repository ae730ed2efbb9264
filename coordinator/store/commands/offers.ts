import { create } from "@bufbuild/protobuf";
import type { AgentBlueprint } from "../../../gen/agentrunner/v1/blueprint_pb.ts";
import { ExecutorInvocationSchema, InvocationBlueprintSchema } from "../../../gen/agentrunner/v1/executor_pb.ts";
import type { ExecutorInvocation } from "../../../gen/agentrunner/v1/executor_pb.ts";
import { InvocationMode, RunSchema } from "../../../gen/agentrunner/v1/run_pb.ts";
import type { Run } from "../../../gen/agentrunner/v1/run_pb.ts";
import { freeSlots } from "../../core/registration.ts";
import { isHeld } from "../../core/run.ts";
import { snapshotOf } from "./blueprint-snapshots.ts";
import { coreRun, decode, optionalMs, RUN_COLUMNS } from "./rows.ts";
import type { RunRow } from "./rows.ts";
import { apply, runBySeq } from "./transition.ts";
import type { Sql, Tx } from "./transition.ts";
import type { Offer, Offered, Candidate } from "../store.ts";

/** Prompt of an attempt that continues an interrupted one, when the run names none (design §4.1). */
const RESUME_PROMPT = "You were interrupted; continue.";

/** Rows that one command looks at, so that none holds the store for long. */
const BATCH = 500;

interface Turn {
  readonly candidate: Candidate;
  /** Counted when the runner's first turn comes; a run for one of many runners then costs one count. */
  free: number | undefined;
}

/**
 * Offers pending runs to runners: the oldest first of those that a runner suits, one to each runner in turn.
 *
 * What a runner can take is counted here, on the rows, and not believed from memory.
 */
export function offer(tx: Tx, candidates: readonly Candidate[], newLeaseId: () => string, acceptBy: number): Offered {
  const heads = new Heads(tx);
  const offers: Offer[] = [];
  const fullRunnerIds: string[] = [];
  let turns: Turn[] = candidates.map((candidate) => ({ candidate, free: undefined }));
  while (turns.length > 0) {
    const again: Turn[] = [];
    for (const { candidate, free: counted } of turns) {
      const seq = heads.oldest(candidate);
      if (seq === undefined) continue;
      const free = counted ?? freeOf(tx.sql, candidate);
      const { runnerId, bootId } = candidate;
      if (free <= 0) {
        fullRunnerIds.push(runnerId);
        continue;
      }
      const row = runBySeq(tx.sql, seq);
      apply(tx, row, { type: "OFFER", lease: { leaseId: newLeaseId(), runnerId, bootId } }, { acceptBy });
      heads.taken(row.demand_class ?? "");
      offers.push(offerOf(tx.sql, row));
      again.push({ candidate, free: free - 1 });
    }
    turns = again;
  }
  return { offers, fullRunnerIds, emptyClasses: heads.empty(), retryAt: heads.retryAt };
}

function freeOf(sql: Sql, { runnerId, bootId }: Candidate): number {
  const row = sql(
    `SELECT max_runs, withheld, draining + drain_ordered AS draining,
       (SELECT count(*) FROM runs WHERE runner_id = ?1 AND lease_id IS NOT NULL AND ended_at IS NULL) AS active
     FROM runners WHERE runner_id = ?1 AND boot_id = ?2`,
  ).get(runnerId, bootId) as unknown as
    | { max_runs: number; withheld: number; draining: number; active: number }
    | undefined;
  if (row === undefined || row.draining > 0) return 0;
  return freeSlots(row.max_runs, row.active, row.withheld);
}

/** The first pending runs of demand classes, looked up once and again only after they were taken. */
class Heads {
  retryAt: number | undefined;
  readonly #tx: Tx;
  readonly #first = new Map<string, number | undefined>();

  constructor(tx: Tx) {
    this.#tx = tx;
  }

  /** Oldest pending run that suits the runner and does not rest from it. */
  oldest({ runnerId, demandClasses }: Candidate): number | undefined {
    let oldest: number | undefined;
    for (const demandClass of demandClasses) {
      const seq = this.#rested(demandClass, runnerId);
      if (seq !== undefined && (oldest === undefined || seq < oldest)) oldest = seq;
    }
    return oldest;
  }

  taken(demandClass: string): void {
    this.#first.delete(demandClass);
  }

  empty(): string[] {
    return [...this.#first].filter(([, seq]) => seq === undefined).map(([demandClass]) => demandClass);
  }

  #head(demandClass: string): number | undefined {
    if (!this.#first.has(demandClass)) {
      const head = this.#tx.sql(
        "SELECT seq FROM runs WHERE demand_class = ? AND state = 'PENDING' AND at_head = 1 ORDER BY seq LIMIT 1",
      );
      this.#first.set(demandClass, head.get(demandClass)?.["seq"] as number | undefined);
    }
    return this.#first.get(demandClass);
  }

  #rested(demandClass: string, runnerId: string): number | undefined {
    const { sql, now } = this.#tx;
    const head = this.#head(demandClass);
    if (head === undefined) return undefined;
    const rest = sql("SELECT 1 FROM refusals WHERE run_seq = ? AND runner_id = ? AND rest_until > ?");
    if (rest.get(head, runnerId, now) === undefined) return head;
    const pending = "demand_class = ? AND state = 'PENDING' AND at_head = 1";
    const next = sql(
      `SELECT seq FROM runs WHERE ${pending} AND NOT EXISTS
         (SELECT 1 FROM refusals f WHERE f.run_seq = runs.seq AND f.runner_id = ? AND f.rest_until > ?)
       ORDER BY seq LIMIT 1`,
    ).get(demandClass, runnerId, now);
    if (next !== undefined) return Number(next["seq"]);
    const first = sql(
      `SELECT min(rest_until) AS at FROM runs JOIN refusals f ON f.run_seq = runs.seq
       WHERE ${pending} AND f.runner_id = ? AND f.rest_until > ?`,
    ).get(demandClass, runnerId, now);
    this.retryAt = Math.min(this.retryAt ?? Infinity, Number(first?.["at"]));
    return undefined;
  }
}

function offerOf(sql: Sql, row: RunRow): Offer {
  const spec = sql("SELECT summary, content FROM run_specs WHERE run_seq = ?").get(row.seq);
  const summary = decode(RunSchema, spec?.["summary"]);
  return {
    runnerId: row.runner_id ?? "",
    bootId: row.boot_id ?? "",
    runId: row.run_id,
    leaseId: row.lease_id ?? "",
    attempt: row.attempt + 1,
    acceptBy: row.due_at ?? 0,
    invocation: invocation(row, summary, decode(RunSchema, spec?.["content"]), snapshotOf(sql, row.seq)),
    timeoutMs: optionalMs(summary.timeout),
    idleTimeoutMs: optionalMs(summary.idleTimeout),
  };
}

function invocation(
  row: RunRow,
  summary: Run,
  content: Run,
  blueprint: AgentBlueprint | undefined,
): ExecutorInvocation {
  const interrupted = row.interrupted === 1;
  const resumes = interrupted || summary.mode === InvocationMode.RESUME;
  const message = create(ExecutorInvocationSchema, {
    schemaVersion: "2.0",
    mode: resumes ? "resume" : "start",
    sessionId: row.session_id,
    prompt: interrupted ? summary.onLost?.resumePrompt || RESUME_PROMPT : content.prompt,
    projectDir: summary.projectDir,
    runId: row.run_id,
    attempt: row.attempt + 1,
    sessionName: row.session_name,
    // An attempt that starts over does not continue the conversation of the one that was lost.
    executorSessionId: resumes ? row.executor_session_id : "",
    parentSessionId: summary.parentSessionId,
  });
  if (summary.callback !== undefined) message.callback = summary.callback;
  if (blueprint !== undefined) {
    const { name, systemPrompt, mcpServers } = blueprint;
    message.agentBlueprint = create(InvocationBlueprintSchema, { name, systemPrompt, mcpServers });
  }
  if (content.metadata !== undefined) message.metadata = content.metadata;
  if (content.parameters !== undefined) message.parameters = content.parameters;
  return message;
}

/** Offers that a runner has not answered, to be sent again on a new stream. */
export function openOffers(sql: Sql, runnerId: string): Offer[] {
  const rows = sql(
    `SELECT ${RUN_COLUMNS} WHERE r.runner_id = ? AND r.lease_id IS NOT NULL AND r.ended_at IS NULL AND r.state = 'OFFERED'
     ORDER BY r.seq`,
  ).all(runnerId) as unknown as RunRow[];
  return rows.map((row) => offerOf(sql, row));
}

/** Takes open offers back: those of one runner, or all. */
export function withdrawOffers(tx: Tx, runnerId: string | undefined): number {
  const offered = `SELECT ${RUN_COLUMNS} WHERE r.state = 'OFFERED' AND r.ended_at IS NULL`;
  const rows = (runnerId === undefined
    ? tx.sql(offered).all()
    : tx.sql(`${offered} AND r.runner_id = ? AND r.lease_id IS NOT NULL`).all(runnerId)) as unknown as RunRow[];
  for (const row of rows) apply(tx, row, { type: "OFFER_LAPSED", leaseId: row.lease_id ?? "" });
  return rows.length;
}

/** Ends offers and, with `leases`, leases that are due. Answers whether more are. */
export function expire(tx: Tx, leases: boolean): boolean {
  const due = leases ? "" : "AND r.state = 'OFFERED'";
  const rows = tx
    .sql(`SELECT ${RUN_COLUMNS} WHERE r.due_at <= ? ${due} ORDER BY r.due_at LIMIT ${BATCH}`)
    .all(tx.now) as unknown as RunRow[];
  for (const row of rows) {
    const leaseId = row.lease_id ?? "";
    if (isHeld(coreRun(row))) {
      const message = `${row.runner_id ?? "its runner"} was not heard from in time`;
      apply(tx, row, { type: "LEASE_LOST", leaseId, message });
    } else {
      tx.changes.lapsedRunnerIds.add(row.runner_id ?? "");
      apply(tx, row, { type: "OFFER_LAPSED", leaseId });
    }
  }
  return rows.length === BATCH;
}

export function holders(sql: Sql): string[] {
  const rows = sql(
    `SELECT DISTINCT runner_id FROM runs
     WHERE lease_id IS NOT NULL AND ended_at IS NULL AND state <> 'OFFERED' AND runner_id IS NOT NULL`,
  ).all();
  return rows.map((row) => String(row["runner_id"]));
}

export function pendingClasses(sql: Sql): string[] {
  // Jumps from class to class in the index; DISTINCT would walk over every pending run.
  const least = "SELECT min(demand_class) FROM runs WHERE state = 'PENDING' AND at_head = 1";
  const rows = sql(
    `WITH RECURSIVE class (demand_class) AS (
       VALUES ((${least})) UNION ALL SELECT (${least} AND demand_class > class.demand_class) FROM class WHERE class.demand_class IS NOT NULL
     ) SELECT demand_class FROM class WHERE demand_class IS NOT NULL`,
  ).all();
  return rows.map((row) => String(row["demand_class"]));
}

/** Starts the no-match clock of the pending runs of a class that have none, or ends it for all of them. */
export function setUnmatched(sql: Sql, demandClass: string, since: number | undefined): void {
  const pending = "demand_class = ? AND state = 'PENDING' AND at_head = 1";
  if (since === undefined) {
    sql(`UPDATE runs SET unmatched_since = NULL WHERE ${pending} AND unmatched_since IS NOT NULL`).run(demandClass);
  } else {
    sql(`UPDATE runs SET unmatched_since = ? WHERE ${pending} AND unmatched_since IS NULL`).run(since, demandClass);
  }
}

export function unmatchedClasses(sql: Sql, before: number): string[] {
  const rows = sql("SELECT DISTINCT demand_class FROM runs WHERE unmatched_since < ?").all(before);
  return rows.map((row) => String(row["demand_class"]));
}

/** Fails pending runs of a class: with UNMATCHED those whose clock started before `unmatchedBefore`, with STRANDED all. */
export function failPending(
  tx: Tx,
  demandClass: string,
  event: "UNMATCHED" | "STRANDED",
  message: string,
  unmatchedBefore: number,
): number {
  const clock = event === "UNMATCHED" ? "AND r.unmatched_since < ?" : "AND ? IS NOT NULL";
  const rows = tx
    .sql(
      `SELECT ${RUN_COLUMNS} WHERE r.demand_class = ? AND r.state = 'PENDING' AND r.at_head = 1 ${clock}
       ORDER BY r.seq LIMIT ${BATCH}`,
    )
    .all(demandClass, unmatchedBefore) as unknown as RunRow[];
  for (const row of rows) apply(tx, row, { type: event, message });
  return rows.length;
}
