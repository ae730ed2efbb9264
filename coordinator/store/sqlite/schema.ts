import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { ExecutorInvocationSchema } from "../../../gen/agentrunner/v1/executor_pb.ts";
import { InvocationMode, RunSchema } from "../../../gen/agentrunner/v1/run_pb.ts";
import type { DatabaseSync, Migration } from "../../../lib/sqlite.ts";

/** Marks our files: "AgRn". */
export const APPLICATION_ID = 0x4167526e;

/**
 * Schema steps. A released step is never changed; a change of schema is a new step.
 *
 * Sessions and runs have a number (`seq`) that orders queues and pages and links the other tables. What is large and
 * never changes (prompt, parameters, metadata) stands apart from the rows that change with every transition. Times are
 * epoch milliseconds, messages are protobuf.
 */
export const MIGRATIONS: readonly Migration[] = [
  `
  CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE sessions (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    session_id TEXT NOT NULL UNIQUE,
    session_name TEXT NOT NULL UNIQUE,
    parent_session_id TEXT NOT NULL,
    agent_name TEXT NOT NULL,
    project_dir TEXT NOT NULL,
    executor_session_id TEXT NOT NULL DEFAULT '',
    executor_profile TEXT NOT NULL DEFAULT '',
    runner_id TEXT NOT NULL DEFAULT '',
    portable INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    metadata BLOB
  ) STRICT;
  CREATE INDEX sessions_by_parent ON sessions (parent_session_id, seq) WHERE parent_session_id <> '';

  CREATE TABLE runs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL UNIQUE,
    session_seq INTEGER NOT NULL REFERENCES sessions (seq),
    request_id TEXT UNIQUE,
    state TEXT NOT NULL,
    at_head INTEGER NOT NULL,
    demand_class TEXT,
    unmatched_since INTEGER,
    attempt INTEGER NOT NULL DEFAULT 0,
    uncharged INTEGER NOT NULL DEFAULT 0,
    refusals INTEGER NOT NULL DEFAULT 0,
    refusal_reasons TEXT NOT NULL DEFAULT '[]',
    interrupted INTEGER NOT NULL DEFAULT 0,
    on_lost TEXT NOT NULL,
    max_attempts INTEGER NOT NULL,
    lost_after_ms INTEGER,
    lease_id TEXT,
    runner_id TEXT,
    boot_id TEXT,
    offered_at INTEGER,
    due_at INTEGER,
    lapsed TEXT,
    started INTEGER NOT NULL DEFAULT 0,
    stop_grace_ms INTEGER,
    stop_reason TEXT,
    failure TEXT,
    message TEXT NOT NULL DEFAULT '',
    created_at INTEGER NOT NULL,
    claimed_at INTEGER,
    started_at INTEGER,
    ended_at INTEGER,
    first_event INTEGER NOT NULL
  ) STRICT;
  CREATE INDEX runs_pending ON runs (demand_class, seq) WHERE state = 'PENDING' AND at_head = 1;
  CREATE INDEX runs_open ON runs (state, seq) WHERE ended_at IS NULL;
  CREATE INDEX runs_by_runner ON runs (runner_id) WHERE lease_id IS NOT NULL AND ended_at IS NULL;
  CREATE INDEX runs_due ON runs (due_at) WHERE due_at IS NOT NULL;
  CREATE INDEX runs_unmatched ON runs (unmatched_since) WHERE unmatched_since IS NOT NULL;
  CREATE INDEX runs_by_session ON runs (session_seq, seq);
  CREATE INDEX runs_ended ON runs (ended_at) WHERE ended_at IS NOT NULL;
  CREATE UNIQUE INDEX one_active_run_per_session ON runs (session_seq) WHERE at_head = 1 AND ended_at IS NULL;

  CREATE TABLE run_specs (
    run_seq INTEGER PRIMARY KEY REFERENCES runs (seq) ON DELETE CASCADE,
    request_hash BLOB NOT NULL,
    summary BLOB NOT NULL,
    content BLOB NOT NULL
  ) STRICT;

  CREATE TABLE run_results (
    run_seq INTEGER PRIMARY KEY REFERENCES runs (seq) ON DELETE CASCADE,
    exit BLOB,
    result BLOB
  ) STRICT;

  CREATE TABLE attempts (
    lease_id TEXT PRIMARY KEY,
    run_seq INTEGER NOT NULL REFERENCES runs (seq) ON DELETE CASCADE,
    attempt INTEGER NOT NULL,
    runner_id TEXT NOT NULL,
    boot_id TEXT NOT NULL,
    last_seq INTEGER NOT NULL DEFAULT 0,
    events_seq INTEGER NOT NULL DEFAULT 0,
    output_bytes INTEGER NOT NULL DEFAULT 0,
    claimed_at INTEGER NOT NULL,
    started_at INTEGER,
    ended_at INTEGER,
    pid INTEGER NOT NULL DEFAULT 0,
    outcome TEXT,
    failure TEXT,
    message TEXT NOT NULL DEFAULT '',
    exit BLOB,
    events_missing INTEGER NOT NULL DEFAULT 0,
    late BLOB
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX attempts_by_run ON attempts (run_seq, attempt);

  CREATE TABLE refusals (
    run_seq INTEGER NOT NULL REFERENCES runs (seq) ON DELETE CASCADE,
    runner_id TEXT NOT NULL,
    count INTEGER NOT NULL,
    rest_until INTEGER NOT NULL,
    lease_id TEXT NOT NULL,
    PRIMARY KEY (run_seq, runner_id)
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    session_seq INTEGER NOT NULL,
    run_seq INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    at INTEGER NOT NULL,
    body BLOB NOT NULL
  ) STRICT;
  CREATE INDEX events_by_session ON events (session_seq, seq);

  CREATE TABLE runners (
    runner_id TEXT PRIMARY KEY,
    boot_id TEXT NOT NULL,
    hostname TEXT NOT NULL,
    project_dir TEXT NOT NULL,
    executor_profile TEXT NOT NULL,
    name TEXT NOT NULL,
    executor BLOB,
    portable INTEGER NOT NULL,
    tags TEXT NOT NULL,
    require_matching_tags INTEGER NOT NULL,
    max_runs INTEGER NOT NULL,
    withheld INTEGER NOT NULL DEFAULT 0,
    draining INTEGER NOT NULL DEFAULT 0,
    drain_ordered INTEGER NOT NULL DEFAULT 0,
    drain_reason TEXT NOT NULL DEFAULT '',
    registered_at INTEGER NOT NULL,
    last_heard_at INTEGER NOT NULL,
    event_loop_lag_ms INTEGER NOT NULL DEFAULT 0
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE runner_tokens (
    runner_id TEXT NOT NULL REFERENCES runners (runner_id) ON DELETE CASCADE,
    token_hash TEXT NOT NULL,
    boot_id TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (runner_id, token_hash)
  ) STRICT, WITHOUT ROWID;
  `,
  `
  ALTER TABLE sessions ADD COLUMN callback_owed INTEGER NOT NULL DEFAULT 0;
  ALTER TABLE sessions ADD COLUMN depth INTEGER NOT NULL DEFAULT 0;
  CREATE INDEX sessions_owing ON sessions (parent_session_id) WHERE callback_owed = 1;

  CREATE TABLE notifications (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    parent_seq INTEGER NOT NULL REFERENCES sessions (seq) ON DELETE CASCADE,
    child_seq INTEGER NOT NULL REFERENCES sessions (seq) ON DELETE CASCADE,
    child_run_seq INTEGER NOT NULL REFERENCES runs (seq) ON DELETE CASCADE,
    state TEXT NOT NULL,
    run_seq INTEGER REFERENCES runs (seq) ON DELETE SET NULL,
    deliveries INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL
  ) STRICT;
  CREATE INDEX notifications_waiting ON notifications (parent_seq, seq) WHERE state = 'WAITING';
  CREATE INDEX notifications_of_parent ON notifications (parent_seq, seq);
  CREATE INDEX notifications_of_child ON notifications (child_seq);
  CREATE INDEX notifications_of_child_run ON notifications (child_run_seq);
  CREATE INDEX notifications_by_run ON notifications (run_seq) WHERE run_seq IS NOT NULL;
  `,
  `
  CREATE TABLE agent_snapshots (
    seq INTEGER PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL,
    body BLOB NOT NULL
  ) STRICT;
  ALTER TABLE run_specs ADD COLUMN agent_seq INTEGER REFERENCES agent_snapshots (seq);
  CREATE INDEX run_specs_by_agent ON run_specs (agent_seq) WHERE agent_seq IS NOT NULL;
  CREATE TRIGGER agent_snapshots_unused AFTER DELETE ON run_specs
  WHEN OLD.agent_seq IS NOT NULL AND NOT EXISTS (SELECT 1 FROM run_specs WHERE agent_seq = OLD.agent_seq)
  BEGIN
    DELETE FROM agent_snapshots WHERE seq = OLD.agent_seq;
  END;
  `,
  executorTypeToProfile,
  contentToInvocation,
  "ALTER TABLE refusals ADD COLUMN for_good INTEGER NOT NULL DEFAULT 0;",
  // The first of them was partial (parent_session_id <> ''), and no statement says what would let SQLite use it.
  `
  DROP INDEX sessions_by_parent;
  CREATE INDEX sessions_by_parent ON sessions (parent_session_id, seq);
  DROP INDEX runs_open;
  CREATE INDEX runs_by_state ON runs (state, seq);
  CREATE INDEX runs_of_runner ON runs (runner_id, state, seq) WHERE runner_id IS NOT NULL;
  `,
  // Kind 0: which reports stand behind the number was not kept.
  `
  ALTER TABLE attempts ADD COLUMN reported TEXT NOT NULL DEFAULT '[]';
  UPDATE attempts SET reported = json_array(json_array(last_seq, 0)) WHERE last_seq > 0;
  `,
  "CREATE INDEX runs_open_of_session ON runs (session_seq, seq) WHERE ended_at IS NULL;",
  // What of a long session was read from one end to the other. `open_below` says which child sessions have open runs at or
  // below them, `unmatched_classes` since when no runner matches (`runs.unmatched_since` is when a run became pending at the head of
  // its session, from now on), and `deletions` which sessions are being deleted, in slices: their ids are nobody's any more.
  `
  CREATE INDEX events_by_run ON events (run_seq);
  CREATE INDEX runs_ended_of_session ON runs (session_seq, ended_at) WHERE ended_at IS NOT NULL;
  CREATE TABLE open_below (
    session_seq INTEGER PRIMARY KEY,
    parent_seq INTEGER NOT NULL,
    runs INTEGER NOT NULL
  ) STRICT;
  CREATE INDEX open_below_by_parent ON open_below (parent_seq);
  INSERT INTO open_below (session_seq, parent_seq, runs)
    WITH RECURSIVE above (session_seq, parent_seq) AS (
      SELECT c.seq, p.seq FROM runs r JOIN sessions c ON c.seq = r.session_seq JOIN sessions p ON p.session_id = c.parent_session_id
        WHERE r.ended_at IS NULL
      UNION ALL
      SELECT c.seq, p.seq FROM above a JOIN sessions c ON c.seq = a.parent_seq JOIN sessions p ON p.session_id = c.parent_session_id
    ) SELECT session_seq, parent_seq, count(*) FROM above GROUP BY session_seq;
  DROP INDEX runs_unmatched;
  CREATE TABLE unmatched_classes (
    demand_class TEXT PRIMARY KEY,
    since INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE epochs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    epoch TEXT NOT NULL UNIQUE,
    after INTEGER NOT NULL
  ) STRICT;
  CREATE TABLE deletions (
    session_seq INTEGER PRIMARY KEY,
    session_id TEXT NOT NULL
  ) STRICT;
  `,
  // Sessions that failed or were stopped are listed from it, and a run that completes does not touch it.
  "CREATE INDEX runs_failed_or_stopped ON runs (state, session_seq) WHERE state IN ('FAILED', 'STOPPED');",
  "ALTER TABLE runners ADD COLUMN capabilities TEXT NOT NULL DEFAULT '[]';",
];

/** Stores of the time when an executor profile was called executor type have that name in two tables. */
function executorTypeToProfile(db: DatabaseSync): string {
  const has = db.prepare("SELECT 1 FROM pragma_table_info(?) WHERE name = 'executor_type'");
  return ["sessions", "runners"]
    .filter((table) => has.get(table) !== undefined)
    .map((table) => `ALTER TABLE ${table} RENAME COLUMN executor_type TO executor_profile;`)
    .join("\n");
}

/**
 * Before this step `run_specs.content` was an agentrunner.v1.Run with only prompt, parameters and metadata; now it is the
 * ExecutorInvocation. The other messages of old stores need no step: those of the store have the numbers of Run.
 */
function contentToInvocation(db: DatabaseSync): string {
  const page = db.prepare(
    `SELECT p.run_seq, p.summary, p.content, r.run_id, s.session_id
     FROM run_specs p JOIN runs r ON r.seq = p.run_seq JOIN sessions s ON s.seq = r.session_seq
     WHERE p.run_seq > ? ORDER BY p.run_seq LIMIT ${CONVERTED_AT_ONCE}`,
  );
  const update = db.prepare("UPDATE run_specs SET content = ? WHERE run_seq = ?");
  for (let last = 0, rows = page.all(last); rows.length > 0; rows = page.all(last)) {
    for (const row of rows) {
      last = Number(row["run_seq"]);
      update.run(converted(row), last);
    }
  }
  return "";
}

/** Rows of which the contents are in memory at a time. */
const CONVERTED_AT_ONCE = 200;

function converted({ summary, content, run_id, session_id }: Record<string, unknown>): Uint8Array {
  const { prompt, parameters, metadata } = fromBinary(RunSchema, content as Uint8Array);
  const { mode, projectDir, parentSessionId, callback } = fromBinary(RunSchema, summary as Uint8Array);
  // Written out here, and not as core/invocation.ts does it today: a released step is never changed.
  const invocation = create(ExecutorInvocationSchema, {
    ...{ schemaVersion: "2.0", mode: mode === InvocationMode.RESUME ? "resume" : "start", prompt, projectDir },
    ...{ sessionId: String(session_id), runId: String(run_id), parentSessionId },
  });
  if (parameters !== undefined) invocation.parameters = parameters;
  if (metadata !== undefined) invocation.metadata = metadata;
  if (callback !== undefined) invocation.callback = callback;
  return toBinary(ExecutorInvocationSchema, invocation);
}
