import { create } from "@bufbuild/protobuf";
import { runnerId as deriveRunnerId } from "../../../lib/ids.ts";
import {
  ExecutorInfoSchema,
  HeldLease_Phase,
  LeaseVerdict_Kind,
  LeaseVerdictSchema,
  RunnerSchema,
} from "../../../gen/agentrunner/v1/runner_pb.ts";
import type { HeldLease, LeaseVerdict } from "../../../gen/agentrunner/v1/runner_pb.ts";
import type { RegisterRequest } from "../../../gen/agentrunner/v1/runner_service_pb.ts";
import { leaseVerdict } from "../../core/held-lease.ts";
import { keepsId, registration } from "../../core/registration.ts";
import { freeSlots, withheldSlots } from "../../core/capacity.ts";
import { isHeld } from "../../core/run-transitions.ts";
import { pageOf, pageStart } from "../cursors.ts";
import { coreRun, decodeOptional, leaseOfOpen, encode, runColumnsBy } from "./rows.ts";
import { durationFromMs, timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { RunRow } from "./rows.ts";
import { apply, runById } from "./transition.ts";
import type { Sql, Tx } from "./tx.ts";
import { Refusal } from "../refusal.ts";
import type { Beat, Page, Registered, RegistrationTerms, RunnerRecord } from "../store.ts";

interface RunnerRow {
  runner_id: string;
  boot_id: string;
  hostname: string;
  project_dir: string;
  executor_profile: string;
  name: string;
  executor: Uint8Array | null;
  tags: string;
  require_matching_tags: number;
  capabilities: string;
  max_runs: number;
  withheld: number;
  draining: number;
  drain_ordered: number;
  registered_at: number;
  last_heard_at: number;
  event_loop_lag_ms: number;
  active: number;
}

const RUNNER_COLUMNS = `
  runner_id, boot_id, hostname, project_dir, executor_profile, name, executor, tags, require_matching_tags, capabilities, max_runs,
  withheld, draining, drain_ordered, registered_at, last_heard_at, event_loop_lag_ms,
  (SELECT count(*) FROM runs INDEXED BY runs_by_runner
   WHERE runs.runner_id = runners.runner_id AND lease_id IS NOT NULL AND ended_at IS NULL) AS active
  FROM runners`;

/** Tokens of one process that are kept; registering again beyond it ends the oldest. */
const MAX_TOKENS = 16;

function runnerRow(sql: Sql, runnerId: string): RunnerRow | undefined {
  return sql<RunnerRow>(`SELECT ${RUNNER_COLUMNS} WHERE runner_id = ?`).first(runnerId);
}

/** @throws Refusal ALREADY_EXISTS when another live process has the identity, RESOURCE_EXHAUSTED beyond `maxRunners`. */
export function register(
  tx: Tx,
  request: RegisterRequest,
  terms: RegistrationTerms,
  tokenHash: string,
  leaseTtlMs: number,
): Registered {
  const { hostname, projectDir, executorProfile, name, bootId, previousBootId } = request;
  const { runnerId, row } = identified(tx.sql, request);
  const live =
    row !== undefined && (terms.streamOpen(runnerId, row.boot_id) || tx.now - row.last_heard_at < terms.heardWithinMs);
  const incumbent = row === undefined || row.boot_id === "" ? undefined : { bootId: row.boot_id, live };
  const kind = registration(incumbent, { bootId, previousBootId });
  if (kind === "TWIN") {
    const since = new Date(row?.registered_at ?? 0).toISOString();
    throw new Refusal(
      "ALREADY_EXISTS",
      `${runnerId} is another live process on ${hostname}, registered ${since}, for ${projectDir} with profile ` +
        `${executorProfile}${name === "" ? "" : ` and name ${name}`}. End it, or set another name (--name).`,
    );
  }
  if (row === undefined && runnerCount(tx.sql) >= terms.maxRunners) {
    throw new Refusal(
      "RESOURCE_EXHAUSTED",
      `${terms.maxRunners} runners are registered; raise --max-runners or remove some`,
    );
  }
  writeRunner(tx, runnerId, request, kind === "SAME");
  if (kind === "REPLACE") tx.sql("DELETE FROM runner_tokens WHERE runner_id = ?").run(runnerId);
  addToken(tx, runnerId, bootId, tokenHash);
  const held = new Set(request.held.map((lease) => lease.leaseId));
  if (kind === "REPLACE") {
    loseLeases(tx, runnerId, (lease) => !held.has(lease), "its runner came back without it");
    tx.sql(
      "UPDATE runs INDEXED BY runs_by_runner SET boot_id = ? WHERE runner_id = ? AND lease_id IS NOT NULL AND ended_at IS NULL",
    ).run(bootId, runnerId);
  }
  tx.changes.runnerIds.add(runnerId);
  tx.changes.freedRunnerIds.add(runnerId);
  return {
    runnerId,
    replacedBootId: kind === "REPLACE" ? row?.boot_id : undefined,
    verdicts: renew(tx, runnerId, request.held, leaseTtlMs),
  };
}

/** The id of the runner, and who has it. */
function identified(sql: Sql, request: RegisterRequest): { runnerId: string; row: RunnerRow | undefined } {
  if (request.runnerId !== "") {
    const row = runnerRow(sql, request.runnerId);
    const known = row && { projectDir: row.project_dir, executorProfile: row.executor_profile, name: row.name };
    if (keepsId(known, request)) return { runnerId: request.runnerId, row };
  }
  const runnerId = deriveRunnerId(request);
  return { runnerId, row: runnerRow(sql, runnerId) };
}

function runnerCount(sql: Sql): number {
  return sql<{ n: number }>("SELECT count(*) AS n FROM runners").first()?.n ?? 0;
}

function writeRunner({ sql, now }: Tx, runnerId: string, request: RegisterRequest, same: boolean): void {
  const executor = request.executor === undefined ? null : encode(ExecutorInfoSchema, request.executor);
  const facts = {
    runnerId,
    bootId: request.bootId,
    hostname: request.hostname,
    executor,
    portable: request.executor?.portable === true ? 1 : 0,
    tags: JSON.stringify(request.tags),
    requireMatchingTags: request.requireMatchingTags ? 1 : 0,
    capabilities: JSON.stringify(request.capabilities),
    maxRuns: request.maxConcurrentRuns || 1,
    now,
  };
  const update = sql(
    `UPDATE runners SET boot_id = :bootId, hostname = :hostname, executor = :executor, portable = :portable, tags = :tags,
       require_matching_tags = :requireMatchingTags, capabilities = :capabilities, max_runs = :maxRuns, last_heard_at = :now
     WHERE runner_id = :runnerId`,
  ).run(facts);
  if (update.changes === 0) {
    const { projectDir, executorProfile, name } = request;
    sql(
      `INSERT INTO runners (boot_id, executor, portable, tags, require_matching_tags, capabilities, max_runs, last_heard_at, runner_id,
         hostname, project_dir, executor_profile, name, registered_at)
       VALUES (:bootId, :executor, :portable, :tags, :requireMatchingTags, :capabilities, :maxRuns, :now, :runnerId,
         :hostname, :projectDir, :executorProfile, :name, :now)`,
    ).run({ ...facts, projectDir, executorProfile, name });
  } else if (!same) {
    sql(
      "UPDATE runners SET registered_at = ?, draining = 0, drain_ordered = 0, drain_reason = '', withheld = 0 WHERE runner_id = ?",
    ).run(now, runnerId);
  }
}

function addToken({ sql, now }: Tx, runnerId: string, bootId: string, tokenHash: string): void {
  sql(
    `INSERT INTO runner_tokens (runner_id, token_hash, boot_id, created_at)
     VALUES (:runnerId, :tokenHash, :bootId, :now)`,
  ).run({ runnerId, tokenHash, bootId, now });
  sql(
    `DELETE FROM runner_tokens WHERE runner_id = ? AND token_hash NOT IN
       (SELECT token_hash FROM runner_tokens WHERE runner_id = ? ORDER BY created_at DESC, token_hash = ? DESC LIMIT ${MAX_TOKENS})`,
  ).run(runnerId, runnerId, tokenHash);
}

function heldRows(sql: Sql, runnerId: string): RunRow[] {
  const rows = sql<RunRow>(
    `SELECT ${runColumnsBy("runs_by_runner")} WHERE r.runner_id = ? AND r.lease_id IS NOT NULL AND r.ended_at IS NULL`,
  );
  return rows.all(runnerId);
}

/** Loses the runner's leases that `lost` picks, open offers included. Returns the runs that were accepted. */
function loseLeases(tx: Tx, runnerId: string, lost: (leaseId: string) => boolean, message: string): string[] {
  const runIds: string[] = [];
  for (const row of heldRows(tx.sql, runnerId)) {
    const { leaseId } = leaseOfOpen(row);
    if (!lost(leaseId)) continue;
    if (isHeld(coreRun(row))) runIds.push(row.run_id);
    apply(tx, row, { type: "LEASE_LOST", leaseId, message });
  }
  return runIds;
}

/** Renews the leases that are current, and says of each how it stands. */
function renew(tx: Tx, runnerId: string, held: readonly HeldLease[], leaseTtlMs: number): LeaseVerdict[] {
  return held.map(({ runId, leaseId, phase }) => {
    const row = runById(tx.sql, runId);
    const foreign = row !== undefined && row.lease_id === leaseId && row.runner_id !== runnerId;
    const run = row === undefined || foreign ? undefined : coreRun(row);
    const verdict = leaseVerdict(run, { runId, leaseId, final: phase === HeldLease_Phase.FINAL });
    if (row !== undefined && run !== undefined && isHeld(run) && run.lease.leaseId === leaseId) {
      tx.sql("UPDATE runs SET due_at = ? WHERE seq = ?").run(tx.now + (row.lost_after_ms ?? leaseTtlMs), row.seq);
    }
    return create(LeaseVerdictSchema, { leaseId, kind: LeaseVerdict_Kind[verdict.kind], reason: verdict.reason });
  });
}

function ownRow(sql: Sql, runnerId: string, bootId: string): RunnerRow {
  const row = runnerRow(sql, runnerId);
  if (row === undefined) throw new Refusal("NOT_FOUND", `no runner ${runnerId}: register`, "RUNNER_NOT_FOUND");
  if (row.boot_id === bootId) return row;
  throw new Refusal("ALREADY_EXISTS", `${runnerId} is held by process ${row.boot_id}, not ${bootId}`);
}

/** Leases whose executor has ended and whose final report was taken while this list was on its way: slots that are free. */
function endedHere(sql: Sql, held: readonly HeldLease[]): number {
  const isOver = ({ runId, leaseId }: HeldLease): boolean => {
    const row = runById(sql, runId);
    return row !== undefined && (row.ended_at !== null || row.lease_id !== leaseId);
  };
  return held.filter((lease) => lease.phase === HeldLease_Phase.FINAL && isOver(lease)).length;
}

/** @throws Refusal ALREADY_EXISTS when the process is not the registered one, NOT_FOUND. */
export function beat(tx: Tx, runnerId: string, said: Beat, leaseTtlMs: number): LeaseVerdict[] {
  const row = ownRow(tx.sql, runnerId, said.bootId);
  const withheld = withheldSlots(row.max_runs, row.active + endedHere(tx.sql, said.held), said.freeSlots);
  const draining = said.draining ?? row.draining === 1;
  tx.sql(
    `UPDATE runners SET last_heard_at = :now, withheld = :withheld, draining = :draining,
       event_loop_lag_ms = coalesce(:lagMs, event_loop_lag_ms)
     WHERE runner_id = :runnerId`,
  ).run({ now: tx.now, withheld, draining: draining ? 1 : 0, lagMs: said.eventLoopLagMs ?? null, runnerId });
  if (withheld < row.withheld) tx.changes.freedRunnerIds.add(runnerId);
  if (draining !== (row.draining === 1)) tx.changes.runnerIds.add(runnerId);
  return renew(tx, runnerId, said.held, leaseTtlMs);
}

/** @throws Refusal ALREADY_EXISTS when the process is not the registered one, NOT_FOUND. */
export function deregister(tx: Tx, runnerId: string, bootId: string): void {
  ownRow(tx.sql, runnerId, bootId);
  loseLeases(tx, runnerId, () => true, "its runner deregistered");
  tx.sql("DELETE FROM runner_tokens WHERE runner_id = ?").run(runnerId);
  // The row stays for a while: the files of sessions are still there, and a restart after a drain comes back to them.
  tx.sql("UPDATE runners SET boot_id = '', last_heard_at = ? WHERE runner_id = ?").run(tx.now, runnerId);
  tx.changes.runnerIds.add(runnerId);
}

/** @throws Refusal NOT_FOUND. */
export function removeRunner(tx: Tx, runnerId: string): string[] {
  if (runnerRow(tx.sql, runnerId) === undefined)
    throw new Refusal("NOT_FOUND", `no runner ${runnerId}`, "RUNNER_NOT_FOUND");
  return remove(tx, runnerId, "its runner was removed");
}

function remove(tx: Tx, runnerId: string, message: string): string[] {
  const lost = loseLeases(tx, runnerId, () => true, message);
  tx.sql("DELETE FROM runners WHERE runner_id = ?").run(runnerId);
  tx.changes.runnerIds.add(runnerId);
  return lost;
}

/** @throws Refusal NOT_FOUND. */
export function drainRunner(tx: Tx, runnerId: string, reason: string): RunnerRecord {
  tx.sql("UPDATE runners SET drain_ordered = 1, drain_reason = ? WHERE runner_id = ?").run(reason, runnerId);
  const row = runnerRow(tx.sql, runnerId);
  if (row === undefined) throw new Refusal("NOT_FOUND", `no runner ${runnerId}`, "RUNNER_NOT_FOUND");
  tx.changes.runnerIds.add(runnerId);
  return runnerRecord(row);
}

export function silentRunners(sql: Sql, before: number): { runnerId: string; bootId: string }[] {
  const rows = sql<Pick<RunnerRow, "runner_id" | "boot_id">>(
    "SELECT runner_id, boot_id FROM runners WHERE last_heard_at < ?",
  ).all(before);
  return rows.map((row) => ({ runnerId: row.runner_id, bootId: row.boot_id }));
}

/** Forgets runners that hold nothing and were not heard from since `before`, or that left before `leftBefore`. */
export function forgetRunners(tx: Tx, before: number, leftBefore: number): number {
  const gone = tx
    .sql<RunnerRow>(`SELECT ${RUNNER_COLUMNS} WHERE last_heard_at < ? OR (boot_id = '' AND last_heard_at < ?)`)
    .all(before, leftBefore);
  const forgotten = gone.filter((row) => row.active === 0);
  for (const { runner_id: runnerId } of forgotten) remove(tx, runnerId, "");
  return forgotten.length;
}

export function runnerOfToken(
  sql: Sql,
  runnerId: string,
  tokenHash: string,
): { bootId: string } | "UNKNOWN" | undefined {
  const token = sql<{ boot_id: string }>("SELECT boot_id FROM runner_tokens WHERE runner_id = ? AND token_hash = ?");
  const found = token.first(runnerId, tokenHash);
  if (found !== undefined) return { bootId: found.boot_id };
  const registered = sql("SELECT 1 FROM runners WHERE runner_id = ? AND boot_id <> ''").first(runnerId);
  return registered === undefined ? "UNKNOWN" : undefined;
}

export function runnerFacts(sql: Sql, runnerIds: readonly string[] | "all"): RunnerRecord[] {
  if (runnerIds === "all") {
    return sql<RunnerRow>(`SELECT ${RUNNER_COLUMNS}`).all().map(runnerRecord);
  }
  return runnerIds.flatMap((runnerId) => {
    const row = runnerRow(sql, runnerId);
    return row === undefined ? [] : [runnerRecord(row)];
  });
}

export function listRunners(sql: Sql, storeId: string, pageSize: number, pageToken: string): Page<RunnerRecord> {
  const skip = pageToken === "" ? 0 : pageStart(storeId, pageToken);
  const rows = sql<RunnerRow>(
    `SELECT ${RUNNER_COLUMNS} WHERE boot_id <> '' ORDER BY hostname, runner_id LIMIT ? OFFSET ?`,
  ).all(pageSize + 1, skip);
  const page = pageOf(storeId, rows, pageSize, () => skip + pageSize);
  return { items: page.items.map(runnerRecord), next: page.next };
}

function runnerRecord(row: RunnerRow): RunnerRecord {
  const tags = JSON.parse(row.tags) as string[];
  const draining = row.draining === 1 || row.drain_ordered === 1;
  const runner = create(RunnerSchema, {
    runnerId: row.runner_id,
    name: row.name,
    hostname: row.hostname,
    projectDir: row.project_dir,
    executorProfile: row.executor_profile,
    tags,
    requireMatchingTags: row.require_matching_tags === 1,
    maxConcurrentRuns: row.max_runs,
    activeRuns: row.active,
    freeSlots: draining ? 0 : freeSlots(row.max_runs, row.active, row.withheld),
    draining,
    registeredAt: timestampFromMs(row.registered_at),
    lastHeardAt: timestampFromMs(row.last_heard_at),
    bootId: row.boot_id,
    eventLoopLag: durationFromMs(row.event_loop_lag_ms),
  });
  const executor = decodeOptional(ExecutorInfoSchema, row.executor);
  if (executor !== undefined) runner.executor = executor;
  return {
    runner,
    bootId: row.boot_id,
    lastHeardAt: row.last_heard_at,
    left: row.boot_id === "",
    facts: {
      runnerId: row.runner_id,
      hostname: row.hostname,
      projectDir: row.project_dir,
      executorProfile: row.executor_profile,
      tags,
      requireMatchingTags: row.require_matching_tags === 1,
      capabilities: JSON.parse(row.capabilities) as string[],
      maxRuns: row.max_runs,
      activeRuns: row.active,
      freeSlots: freeSlots(row.max_runs, row.active, row.withheld),
      draining,
    },
  };
}
