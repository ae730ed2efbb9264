import { randomBytes } from "node:crypto";
import { statSync } from "node:fs";
import { dirname } from "node:path";
import { newId } from "../../../lib/ids.ts";
import { bug } from "../../../lib/bug.ts";
import { FilesInPlace } from "../../../lib/files-in-place.ts";
import { GroupCommit } from "../../../lib/group-commit.ts";
import { openDatabase, statements, unusable } from "../../../lib/sqlite.ts";
import type { CommitError, DatabaseSync } from "../../../lib/sqlite.ts";
import type { ClockNote } from "../../../lib/clock-note.ts";
import { settleEnded } from "../commands/callbacks.ts";
import { ChangeSet } from "../changes.ts";
import type { OpenState } from "../changes.ts";
import { findRuns } from "../commands/find-runs.ts";
import { copyDatabase } from "../../../lib/sqlite-copy.ts";
import { beginEpoch } from "../commands/epochs.ts";
import { EventCursors } from "../event-cursors.ts";
import { deleteSession, finishDeletions } from "../commands/delete-session.ts";
import { listRuns } from "../commands/list-runs.ts";
import * as noMatch from "../commands/no-match.ts";
import * as offers from "../commands/offers.ts";
import { pruneRuns } from "../commands/prune.ts";
import * as reports from "../commands/reports.ts";
import * as runners from "../commands/runners.ts";
import * as runs from "../commands/runs.ts";
import type { Sql, Tx } from "../commands/tx.ts";
import { APPLICATION_ID, MIGRATIONS } from "./schema.ts";
import { updateSession } from "../commands/sessions.ts";
import { isWithin } from "../commands/session-tree.ts";
import { listSessions } from "../commands/list-sessions.ts";
import * as sessions from "../commands/session-queries.ts";
import { Refusal } from "../refusal.ts";
import type { Committed, Store } from "../store.ts";

export interface SqliteStoreOptions {
  /** File; undefined keeps everything in memory and nothing after the end. */
  readonly path: string | undefined;
  /** As in `OpenOptions`. */
  readonly checkedUpToBytes?: number;
  /** Called after every commit: milliseconds it took, and commands it held. */
  readonly onCommit?: (commitMs: number, commands: number) => void;
  /** Called for every commit that failed, before the callers of its commands hear of it. */
  readonly onFailure?: (error: CommitError) => void;
}

/**
 * Opens the store, making it when the file does not exist.
 * @throws DatabaseUnusableError naming the path and what to do.
 */
export function openSqliteStore({ path, onCommit, onFailure, ...options }: SqliteStoreOptions): Store {
  const db = openDatabase({
    path: path ?? ":memory:",
    applicationId: APPLICATION_ID,
    migrations: MIGRATIONS,
    what: "store",
    ...options,
  });
  const inPlace = path === undefined ? undefined : new FilesInPlace(path);
  try {
    return new SqliteStore(db, path, new GroupCommit(db, onCommit, onFailure, inPlace));
  } catch (cause) {
    db.close();
    throw unusable(cause, path ?? ":memory:", "store");
  }
}

function notCopied(path: string, cause: unknown): Refusal {
  const code = cause instanceof Error && "code" in cause ? cause.code : undefined;
  if (code === "EEXIST")
    return new Refusal("ALREADY_EXISTS", `${path} exists, and no backup replaces a file: name another`);
  if (code === "ENOENT") {
    return new Refusal(
      "FAILED_PRECONDITION",
      `the store cannot be copied to ${path}: there is no folder ${dirname(path)} on the coordinator's host; make it`,
    );
  }
  const text = cause instanceof Error ? cause.message : String(cause);
  return new Refusal("FAILED_PRECONDITION", `the store cannot be copied to ${path}: ${text}`);
}

/** Every command in one file-backed database that this process alone has open. */
class SqliteStore implements Store {
  readonly storeId: string;
  readonly cursors: EventCursors;
  readonly secret: string;
  readonly #db: DatabaseSync;
  readonly #path: string | undefined;
  readonly #sql: Sql;
  readonly #group: GroupCommit;
  readonly #openRuns: Record<OpenState, number>;
  #closing = false;
  #copying: Promise<number> | undefined;

  constructor(db: DatabaseSync, path: string | undefined, group: GroupCommit) {
    this.#db = db;
    this.#path = path;
    this.#sql = statements(db);
    this.#group = group;
    this.#openRuns = this.#countOpenRuns();
    this.storeId = this.#meta("store_id", () => newId("store"));
    this.cursors = new EventCursors(this.storeId, beginEpoch(this.#sql));
    this.secret = this.#meta("secret", () => randomBytes(32).toString("hex"));
  }

  #meta(key: string, make: () => string): string {
    this.#sql("INSERT OR IGNORE INTO meta (key, value) VALUES (?, ?)").run(key, make());
    const row = this.#sql<{ value: string }>("SELECT value FROM meta WHERE key = ?").first(key);
    if (row === undefined) throw bug("META1", `the store keeps no ${key}`);
    return row.value;
  }

  #commit<T>(now: number, command: (tx: Tx) => T): Promise<Committed<T>> {
    const committed = this.#group.run(() => {
      const changes = new ChangeSet();
      const tx: Tx = { sql: this.#sql, changes, now, endedRuns: [] };
      const value = command(tx);
      settleEnded(tx, () => newId("run"));
      return { value, changes };
    });
    return committed.then((done) => {
      for (const [state, more] of done.changes.moved) this.#openRuns[state] += more;
      return done;
    });
  }

  /** Counted once: later every command says what it changed, as a count takes longer the more runs wait. */
  #countOpenRuns(): Record<OpenState, number> {
    const count = this.#sql<{ n: number }>("SELECT count(*) AS n FROM runs WHERE state = ?");
    const of = (state: OpenState): number => count.first(state)?.n ?? 0;
    const [PENDING, OFFERED, CLAIMED] = [of("PENDING"), of("OFFERED"), of("CLAIMED")];
    return { PENDING, OFFERED, CLAIMED, RUNNING: of("RUNNING"), STOPPING: of("STOPPING") };
  }

  async clockNote(now: number): Promise<ClockNote> {
    const kept = this.#sql<{ value: string }>("SELECT value FROM meta WHERE key = ?").first("clock");
    if (kept !== undefined) return JSON.parse(kept.value) as ClockNote;
    const newest = this.#sql<{ at: number | null }>("SELECT max(ended_at) AS at FROM runs WHERE ended_at IS NOT NULL");
    return { seenAt: newest.first()?.at ?? now, pruneFrom: 0 };
  }

  async keepClockNote(note: ClockNote): Promise<void> {
    await this.#group.run(() => this.#sql("INSERT OR REPLACE INTO meta VALUES ('clock', ?)").run(JSON.stringify(note)));
  }

  async probe(): Promise<void> {
    await this.#group.run(() => this.#sql("INSERT OR REPLACE INTO meta VALUES ('probe', ?)").run(String(Date.now())));
  }

  async backup(path: string): Promise<number> {
    if (this.#copying !== undefined)
      throw new Refusal("FAILED_PRECONDITION", "another backup is under way: wait for it");
    this.#copying = copyDatabase(this.#db, path, () => !this.#closing).finally(() => (this.#copying = undefined));
    try {
      return await this.#copying;
    } catch (cause) {
      throw notCopied(path, cause);
    }
  }

  async close(): Promise<void> {
    this.#closing = true;
    await this.#copying?.catch(() => undefined);
    await this.#group.run(() => undefined).catch(() => undefined);
    this.#db.close();
  }

  async gauges(): ReturnType<Store["gauges"]> {
    const oldest = this.#sql<{ at: number }>(
      "SELECT created_at AS at FROM runs WHERE state = 'PENDING' ORDER BY seq LIMIT 1",
    ).first();
    return {
      openRuns: { ...this.#openRuns },
      oldestPendingAt: oldest?.at ?? undefined,
      fileBytes: this.#path === undefined ? 0 : (statSync(this.#path, { throwIfNoEntry: false })?.size ?? 0),
    };
  }

  createRun: Store["createRun"] = async (request, agent, ids, limits, now) => {
    return this.#commit(now, (tx) => runs.createRun(tx, request, agent, ids, limits));
  };
  agentNameOf: Store["agentNameOf"] = async (session) => runs.agentNameOf(this.#sql, session);
  lastBlueprint: Store["lastBlueprint"] = async (session, name) => runs.lastBlueprint(this.#sql, session, name);
  getRun: Store["getRun"] = async (runId) => runs.getRun(this.#sql, runId);
  hasEnded: Store["hasEnded"] = async (runId) => runs.hasEnded(this.#sql, runId);
  listRuns: Store["listRuns"] = async (query) => listRuns(this.#sql, this.storeId, query);
  findRuns: Store["findRuns"] = async (query) => findRuns(this.#sql, query);
  stopRun: Store["stopRun"] = (runId, stop, cascade, now) =>
    this.#commit(now, (tx) => runs.stopRun(tx, runId, stop, cascade));
  pruneRuns: Store["pruneRuns"] = (query) => this.#group.run(() => pruneRuns(this.#sql, query));

  register: Store["register"] = (request, terms, tokenHash, leaseTtlMs, now) =>
    this.#commit(now, (tx) => runners.register(tx, request, terms, tokenHash, leaseTtlMs));
  runnerOfToken: Store["runnerOfToken"] = async (runnerId, tokenHash) =>
    runners.runnerOfToken(this.#sql, runnerId, tokenHash);
  beat: Store["beat"] = (runnerId, said, leaseTtlMs, now) =>
    this.#commit(now, (tx) => ({
      verdicts: runners.beat(tx, runnerId, said, leaseTtlMs),
      directives: reports.directives(tx.sql, runnerId),
    }));
  outputSchemas: Store["outputSchemas"] = async (runIds) => reports.outputSchemas(this.#sql, runIds);
  report: Store["report"] = (runnerId, batch, terms, now) =>
    this.#commit(now, (tx) => ({
      verdicts: reports.report(tx, runnerId, batch, terms),
      directives: reports.directives(tx.sql, runnerId),
    }));
  appendEvents: Store["appendEvents"] = (runnerId, batches, now) =>
    this.#commit(now, (tx) => ({
      verdicts: reports.appendEvents(tx, runnerId, batches),
      directives: reports.directives(tx.sql, runnerId),
    }));
  directives: Store["directives"] = async (runnerId) => reports.directives(this.#sql, runnerId);
  deregister: Store["deregister"] = (runnerId, bootId, now) =>
    this.#commit(now, (tx) => runners.deregister(tx, runnerId, bootId));
  runnerFacts: Store["runnerFacts"] = async (runnerIds) => runners.runnerFacts(this.#sql, runnerIds);
  listRunners: Store["listRunners"] = async (pageSize, pageToken) =>
    runners.listRunners(this.#sql, this.storeId, pageSize, pageToken);
  drainRunner: Store["drainRunner"] = (runnerId, reason) =>
    this.#commit(0, (tx) => runners.drainRunner(tx, runnerId, reason));
  silentRunners: Store["silentRunners"] = async (before) => runners.silentRunners(this.#sql, before);
  forgetRunners: Store["forgetRunners"] = (before, leftBefore) =>
    this.#commit(before, (tx) => runners.forgetRunners(tx, before, leftBefore));
  removeRunner: Store["removeRunner"] = (runnerId, now) =>
    this.#commit(now, (tx) => runners.removeRunner(tx, runnerId));

  pendingClasses: Store["pendingClasses"] = async () => offers.pendingClasses(this.#sql);
  firstPending: Store["firstPending"] = async (demandClass) => offers.firstPending(this.#sql, demandClass);
  offer: Store["offer"] = (candidates, newLeaseId, acceptBy, now) =>
    this.#commit(now, (tx) => offers.offer(tx, candidates, newLeaseId, acceptBy));
  openOffers: Store["openOffers"] = async (runnerId) => offers.openOffers(this.#sql, runnerId);
  withdrawOffers: Store["withdrawOffers"] = (runnerId, unanswered, now) =>
    this.#commit(now, (tx) => offers.withdrawOffers(tx, runnerId, unanswered));
  expire: Store["expire"] = (now, leases) => this.#commit(now, (tx) => offers.expire(tx, leases));
  clampTimes: Store["clampTimes"] = (leaseTtlMs, acceptDeadlineMs, now) =>
    this.#commit(now, (tx) => offers.clampTimes(tx, leaseTtlMs, acceptDeadlineMs));
  holders: Store["holders"] = async () => offers.holders(this.#sql);
  setUnmatched: Store["setUnmatched"] = (demandClass, since) =>
    this.#group.run(() => noMatch.setUnmatched(this.#sql, demandClass, since));
  unmatchedClasses: Store["unmatchedClasses"] = async (before) => noMatch.unmatchedClasses(this.#sql, before);
  failPending: Store["failPending"] = (demandClass, event, message, unmatchedBefore, now) =>
    this.#commit(now, (tx) => noMatch.failPending(tx, demandClass, event, message, unmatchedBefore));

  getSession: Store["getSession"] = async (key) => sessions.getSession(this.#sql, key);
  listSessions: Store["listSessions"] = async (query) => listSessions(this.#sql, this.storeId, query);
  updateSession: Store["updateSession"] = (request) => this.#commit(0, (tx) => updateSession(tx, request));
  deleteSession: Store["deleteSession"] = (sessionId, budgetMs) =>
    this.#commit(0, (tx) => deleteSession(tx, sessionId, budgetMs));
  finishDeletions: Store["finishDeletions"] = (budgetMs) => this.#group.run(() => finishDeletions(this.#sql, budgetMs));
  listEvents: Store["listEvents"] = async (query) => sessions.listEvents(this.#sql, this.cursors, query);
  sessionResult: Store["sessionResult"] = async (sessionId, runId) =>
    sessions.sessionResult(this.#sql, sessionId, runId);
  leaseOfToken: Store["leaseOfToken"] = async (leaseId) => sessions.leaseOfToken(this.#sql, leaseId);
  isWithin: Store["isWithin"] = async (sessionId, ancestorId) => isWithin(this.#sql, sessionId, ancestorId);
}
