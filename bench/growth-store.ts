import { DatabaseSync } from "node:sqlite";
import { create, toBinary } from "@bufbuild/protobuf";
import { demandClass } from "../coordinator/core/match.ts";
import { requirementsOfRun } from "../coordinator/store/commands/rows.ts";
import { openSqliteStore } from "../coordinator/store/sqlite/sqlite-store.ts";
import { RunSummarySchema } from "../gen/agentrunner/store/v1/store_pb.ts";
import { ExecutorInvocationSchema, ExecutorResultSchema } from "../gen/agentrunner/v1/executor_pb.ts";
import { DemandsSchema, InvocationMode, OnLost_Policy, RunState } from "../gen/agentrunner/v1/run_pb.ts";
import { SessionEventSchema } from "../gen/agentrunner/v1/session_pb.ts";

/** What a store holds at first. */
export interface Filling {
  readonly finished: number;
  /** Runs that no runner matches. */
  readonly pending: number;
  /** Finished runs, of all, that are turns of the session named "long". */
  readonly turns: number;
}

/** One child session for so many, each of which has one run. */
const CHILD_OF = 10;
/** All of it ended an hour ago or before. */
const HOUR_MS = 3_600_000;

/** Makes a store by the real schema and fills it, by SQL, as no coordinator could in a reasonable time. */
export async function fillStore(path: string, { finished, pending, turns }: Filling): Promise<void> {
  await openSqliteStore({ path }).close();
  const db = new DatabaseSync(path);
  db.exec(
    "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -500000; PRAGMA foreign_keys = OFF",
  );
  const indexes = db.prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL").all();
  for (const { name } of indexes) db.exec(`DROP INDEX ${String(name)}`);
  db.exec("BEGIN");
  const now = Date.now();
  finishedRuns(db, finished - turns, turns, now - HOUR_MS);
  pendingRuns(db, finished, pending, now);
  db.exec("COMMIT");
  for (const { sql } of indexes) db.exec(String(sql));
  db.exec("PRAGMA journal_mode = WAL");
  db.close();
}

function finishedRuns(db: DatabaseSync, alone: number, turns: number, endedAt: number): void {
  db.function("at", (i) => endedAt - 1000 * (alone + turns - Number(i)));
  const session = alone + 1;
  db.prepare(
    `INSERT INTO sessions (session_id, session_name, parent_session_id, agent_name, project_dir, created_at)
     SELECT 'ses_' || i, 'name-' || i, CASE WHEN i % ${CHILD_OF} = 1 OR ${CHILD_OF} = 1 THEN '' ELSE 'ses_' || (i - (i - 1) % ${CHILD_OF}) END,
       '', '/work', at(i) FROM ${numbers()}`,
  ).run(1, alone);
  if (turns > 0) {
    db.prepare(
      `INSERT INTO sessions (seq, session_id, session_name, parent_session_id, agent_name, project_dir, created_at)
       VALUES (?, 'ses_long', 'long', '', '', '/work', at(0))`,
    ).run(session);
  }
  const runs = db.prepare(
    `INSERT INTO runs (run_id, session_seq, state, at_head, demand_class, attempt, on_lost, max_attempts, runner_id, boot_id,
       offered_at, created_at, claimed_at, started_at, ended_at, first_event)
     SELECT 'run_' || i, CASE WHEN i <= ? THEN i ELSE ? END, CASE i % 10000 WHEN 0 THEN 'FAILED' ELSE 'COMPLETED' END, 1, '', 1,
       'FAIL', 3, 'lnch_' || (i % 20), 'boot_1', at(i), at(i), at(i), at(i), at(i), 0 FROM ${numbers()}`,
  );
  runs.run(alone, session, 1, alone + turns);
  const hash = Buffer.alloc(32, 1);
  db.prepare(`INSERT INTO run_specs (run_seq, request_hash, summary, content) SELECT i, ?, ?, ? FROM ${numbers()}`).run(
    hash,
    summary([]),
    content(),
    1,
    alone + turns,
  );
  db.prepare(`INSERT INTO run_results (run_seq, result) SELECT i, ? FROM ${numbers()}`).run(result(), 1, alone + turns);
  db.prepare(
    `INSERT INTO attempts (lease_id, run_seq, attempt, runner_id, boot_id, claimed_at, ended_at, outcome)
     SELECT 'lease_' || i, i, 1, 'lnch_' || (i % 20), 'boot_1', at(i), at(i), 'COMPLETED' FROM ${numbers()}`,
  ).run(1, alone + turns);
  const event = db.prepare(
    `INSERT INTO events (seq, session_seq, run_seq, attempt, at, body)
     SELECT 4 * i + ?, CASE WHEN i <= ? THEN i ELSE ? END, i, 1, at(i), ? FROM ${numbers()}`,
  );
  for (const [k, state] of [RunState.PENDING, RunState.CLAIMED, RunState.RUNNING, RunState.COMPLETED].entries()) {
    event.run(k, alone, session, transition(state), 1, alone + turns);
  }
}

function pendingRuns(db: DatabaseSync, finished: number, pending: number, now: number): void {
  const wanted = create(RunSummarySchema, { demands: { tags: ["nobody-has-this"] } });
  const key = demandClass(requirementsOfRun(wanted, { runner_id: "", executor_profile: "", portable: 0 }));
  const [first, last] = [finished + 2, finished + 1 + pending];
  db.prepare(
    `INSERT INTO sessions (seq, session_id, session_name, parent_session_id, agent_name, project_dir, created_at)
     SELECT i, 'ses_' || i, 'name-' || i, '', '', '/work', ? FROM ${numbers()}`,
  ).run(now, first, last);
  db.prepare(
    `INSERT INTO runs (seq, run_id, session_seq, state, at_head, demand_class, on_lost, max_attempts, created_at, unmatched_since,
       first_event)
     SELECT i, 'run_' || i, i, 'PENDING', 1, ?, 'FAIL', 3, ?, ?, 0 FROM ${numbers()}`,
  ).run(key, now, now, first, last);
  db.prepare(`INSERT INTO run_specs (run_seq, request_hash, summary, content) SELECT i, ?, ?, ? FROM ${numbers()}`).run(
    Buffer.alloc(32, 1),
    summary(["nobody-has-this"]),
    content(),
    first,
    last,
  );
  db.prepare(`INSERT INTO events (session_seq, run_seq, attempt, at, body) SELECT i, i, 0, ?, ? FROM ${numbers()}`).run(
    now,
    transition(RunState.PENDING),
    first,
    last,
  );
}

/** A table of the numbers from one bound value to another, both included. */
function numbers(): string {
  return "(WITH RECURSIVE n (i, last) AS (SELECT ?, ? UNION ALL SELECT i + 1, last FROM n WHERE i < last) SELECT i FROM n WHERE i <= last)";
}

function summary(tags: readonly string[]): Uint8Array {
  const demands = create(DemandsSchema, { tags: [...tags] });
  const onLost = { policy: OnLost_Policy.FAIL, maxAttempts: 3 };
  return toBinary(
    RunSummarySchema,
    create(RunSummarySchema, { mode: InvocationMode.START, projectDir: "/work", demands, onLost }),
  );
}

function content(): Uint8Array {
  return toBinary(
    ExecutorInvocationSchema,
    create(ExecutorInvocationSchema, { schemaVersion: "2.0", mode: "start", prompt: "go ".repeat(100) }),
  );
}

function transition(state: RunState): Uint8Array {
  return toBinary(SessionEventSchema, create(SessionEventSchema, { event: { case: "transition", value: { state } } }));
}

function result(): Uint8Array {
  return toBinary(ExecutorResultSchema, create(ExecutorResultSchema, { text: "done ".repeat(40) }));
}
