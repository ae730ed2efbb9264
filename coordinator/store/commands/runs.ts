import { createHash } from "node:crypto";
import { create, toBinary } from "@bufbuild/protobuf";
import { INVOCATION_MAX_BYTES } from "../../../lib/limits.ts";
import type { AgentBlueprint } from "../../../gen/agentrunner/v1/blueprint_pb.ts";
import { InvocationMode, OnLost_Policy, RunSchema } from "../../../gen/agentrunner/v1/run_pb.ts";
import type { Run, RunState } from "../../../gen/agentrunner/v1/run_pb.ts";
import { CreateRunRequestSchema } from "../../../gen/agentrunner/v1/run_service_pb.ts";
import type { CreateRunRequest } from "../../../gen/agentrunner/v1/run_service_pb.ts";
import { agentRun } from "../../core/blueprint-run.ts";
import { requirementsOf } from "../../core/match.ts";
import type { Stop } from "../../core/run.ts";
import { keepSnapshot, lastSnapshot, snapshotSize } from "./blueprint-snapshots.ts";
import { childDepth, forgiveCallbacks, oweCallback, WITHIN } from "./session-tree.ts";
import type { FamilyLimits } from "./session-tree.ts";
import { pageOf, pageStart } from "../cursors.ts";
import { attemptMessage, encode, RUN_COLUMNS, runMessage } from "./rows.ts";
import type { AttemptRow, RunRow } from "./rows.ts";
import { insertRun } from "./insert-run.ts";
import { apply, runById, runBySeq } from "./transition.ts";
import type { Sql, Tx } from "./transition.ts";
import { Refusal } from "../store.ts";
import type { AgentLookup, FoundRun, Page, RunQuery } from "../store.ts";

/** Attempts when `on_lost` names none. */
const DEFAULT_MAX_ATTEMPTS = 3;

interface SessionKeyRow {
  seq: number;
  session_id: string;
  project_dir: string;
  agent_name: string;
  runner_id: string;
  executor_profile: string;
  portable: number;
  /** False for a session that this run starts. */
  existed: boolean;
}

/** @throws Refusal as RunService.CreateRun says. */
export function createRun(
  tx: Tx,
  request: CreateRunRequest,
  lookup: AgentLookup,
  ids: { runId: string; sessionId: string },
  limits: FamilyLimits,
): Run {
  const requestHash = createHash("sha256").update(toBinary(CreateRunRequestSchema, request)).digest();
  const repeated = repeatedRun(tx.sql, request, requestHash);
  if (repeated !== undefined) return repeated;
  const session = sessionFor(tx, request, ids.sessionId, limits);
  oweCallback(tx, session.seq, request);
  const blueprint = blueprintFor(tx.sql, request.agentName || session.agent_name, session, lookup);
  const { summary, content } = specOf(request, session, blueprint);
  const agentSeq = blueprint === undefined ? null : keepSnapshot(tx.sql, blueprint);
  const spec = { summary: encode(RunSchema, summary), content, requestId: request.requestId, requestHash, agentSeq };
  const atHead = !session.existed || !hasOpenRun(tx.sql, session.seq);
  const row = insertRun(tx, session, ids.runId, { ...spec, facts: summary }, atHead);
  return runMessage(row, spec);
}

function hasOpenRun(sql: Sql, sessionSeq: number): boolean {
  return sql("SELECT 1 FROM runs WHERE session_seq = ? AND ended_at IS NULL LIMIT 1").get(sessionSeq) !== undefined;
}

function repeatedRun(sql: Sql, { requestId }: CreateRunRequest, requestHash: Buffer): Run | undefined {
  if (requestId === "") return undefined;
  const found = sql(
    "SELECT r.seq, p.request_hash FROM runs r JOIN run_specs p ON p.run_seq = r.seq WHERE r.request_id = ?",
  ).get(requestId);
  if (found === undefined) return undefined;
  if (!requestHash.equals(found["request_hash"] as Uint8Array)) {
    throw new Refusal("ALREADY_EXISTS", `request_id ${requestId} was used for another run; choose a new one`);
  }
  return wholeRun(sql, runBySeq(sql, Number(found["seq"])));
}

function sessionFor(tx: Tx, request: CreateRunRequest, newSessionId: string, limits: FamilyLimits): SessionKeyRow {
  const { sessionId, sessionName, mode, parentSessionId } = request;
  const found = findSession(tx.sql, request);
  const key = sessionId || sessionName;
  if (found !== undefined) {
    if (mode !== InvocationMode.START) return { ...found, existed: true };
    throw new Refusal(
      "ALREADY_EXISTS",
      `session ${key} exists (${found.session_id}): resume it, or choose another name`,
    );
  }
  if (sessionId !== "") throw new Refusal("NOT_FOUND", `no session ${sessionId}`);
  if (mode === InvocationMode.RESUME) {
    throw new Refusal("NOT_FOUND", key === "" ? "RESUME needs session_id or session_name" : `no session named ${key}`);
  }
  const depth = parentSessionId === "" ? 0 : childDepth(tx, parentSessionId, limits);
  const { lastInsertRowid } = tx
    .sql(
      `INSERT INTO sessions (session_id, session_name, parent_session_id, depth, agent_name, project_dir, created_at,
         metadata)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
    )
    .run(
      newSessionId,
      sessionName || newSessionId,
      parentSessionId,
      depth,
      request.agentName,
      request.projectDir,
      tx.now,
      request.metadata === undefined ? null : encode(RunSchema, create(RunSchema, { metadata: request.metadata })),
    );
  return {
    seq: Number(lastInsertRowid),
    session_id: newSessionId,
    project_dir: request.projectDir,
    agent_name: request.agentName,
    runner_id: "",
    executor_profile: "",
    portable: 0,
    existed: false,
  };
}

const SESSION_KEY = "seq, session_id, project_dir, agent_name, runner_id, executor_profile, portable";

function findSession(
  sql: Sql,
  { sessionId, sessionName }: Pick<CreateRunRequest, "sessionId" | "sessionName">,
): SessionKeyRow | undefined {
  if (sessionId === "" && sessionName === "") return undefined;
  const where = sessionId === "" ? "session_name" : "session_id";
  const found = sql(`SELECT ${SESSION_KEY} FROM sessions WHERE ${where} = ?`);
  return found.get(sessionId || sessionName) as unknown as SessionKeyRow | undefined;
}

export function agentNameOf(sql: Sql, session: Pick<CreateRunRequest, "sessionId" | "sessionName">): string {
  return findSession(sql, session)?.agent_name ?? "";
}

/**
 * The blueprint that a run is made with: as it is now, or, when it is gone, as an earlier run of the session had it.
 * @throws Refusal that the lookup holds.
 */
function blueprintFor(sql: Sql, name: string, session: SessionKeyRow, lookup: AgentLookup): AgentBlueprint | undefined {
  if (name === "") return undefined;
  if (lookup !== undefined && !(lookup instanceof Refusal) && lookup.name === name) return lookup;
  if (lookup instanceof Refusal && lookup.code !== "NOT_FOUND") throw lookup;
  const last = session.existed ? lastSnapshot(sql, session.seq, name) : undefined;
  if (last !== undefined) return last;
  throw lookup instanceof Refusal ? lookup : new Refusal("NOT_FOUND", `no agent blueprint ${name}`);
}

/** What never changes of a run, in the two parts in which it is stored. */
function specOf(
  request: CreateRunRequest,
  session: SessionKeyRow,
  blueprint: AgentBlueprint | undefined,
): { summary: Run; content: Uint8Array } {
  const made = agentRun(request, blueprint, session.existed);
  if (made.type === "refused") throw new Refusal("INVALID_ARGUMENT", made.message);
  const summary = create(RunSchema, {
    mode: session.existed ? InvocationMode.RESUME : InvocationMode.START,
    agentName: request.agentName || session.agent_name,
    projectDir: request.projectDir || session.project_dir,
    executionMode: request.executionMode,
    parentSessionId: request.parentSessionId,
    anyRunner: request.anyRunner,
    onLost: {
      policy: request.onLost?.policy || OnLost_Policy.FAIL,
      maxAttempts: request.onLost?.maxAttempts || DEFAULT_MAX_ATTEMPTS,
      resumePrompt: request.onLost?.resumePrompt ?? "",
    },
  });
  Object.assign(summary, {
    demands: made.demands,
    timeout: request.timeout,
    idleTimeout: request.idleTimeout,
    lostAfter: request.lostAfter,
  });
  const content = create(RunSchema, { prompt: made.prompt });
  Object.assign(content, { parameters: request.parameters, metadata: request.metadata });
  const bytes = encode(RunSchema, content);
  const agentBytes = blueprint === undefined ? 0 : snapshotSize(blueprint);
  const size = bytes.length + agentBytes + (summary.onLost?.resumePrompt.length ?? 0);
  if (size > INVOCATION_MAX_BYTES) {
    throw new Refusal(
      "INVALID_ARGUMENT",
      `prompt, parameters, metadata and blueprint are ${size} bytes together; at most ${INVOCATION_MAX_BYTES} fit in an invocation. ` +
        "Put large content in a file and name it in the prompt.",
    );
  }
  return { summary, content: bytes };
}

/** The run with prompt, parameters, metadata and result. */
export function wholeRun(sql: Sql, row: RunRow): Run {
  const spec = sql("SELECT summary, content FROM run_specs WHERE run_seq = ?").get(row.seq);
  const ended = sql("SELECT exit, result FROM run_results WHERE run_seq = ?").get(row.seq);
  return runMessage(
    row,
    { summary: spec?.["summary"], content: spec?.["content"] },
    { exit: ended?.["exit"], result: ended?.["result"] },
  );
}

export function getRun(sql: Sql, runId: string): FoundRun | undefined {
  const row = runById(sql, runId);
  if (row === undefined) return undefined;
  const run = wholeRun(sql, row);
  const attempts = sql("SELECT * FROM attempts WHERE run_seq = ? ORDER BY attempt").all(row.seq);
  run.attempts = (attempts as unknown as AttemptRow[]).map(attemptMessage);
  const head = sql("SELECT run_id FROM runs WHERE session_seq = ? AND at_head = 1 AND ended_at IS NULL");
  return {
    run,
    requirements: row.at_head === 1 && row.demand_class !== null ? requirementsOf(row.demand_class) : undefined,
    waitsFor:
      row.at_head === 0 && row.ended_at === null
        ? (head.get(row.session_seq)?.["run_id"] as string | undefined)
        : undefined,
    refusals: JSON.parse(row.refusal_reasons) as string[],
  };
}

export function hasEnded(sql: Sql, runId: string): boolean | undefined {
  const row = sql("SELECT ended_at FROM runs WHERE run_id = ?").get(runId);
  return row && row["ended_at"] !== null;
}

export function listRuns(sql: Sql, storeId: string, query: RunQuery): Page<Run> {
  const where: string[] = ["r.seq < ?"];
  const values: (string | number)[] = [pageStart(storeId, query.pageToken)];
  if (query.states.length > 0) {
    where.push(`r.state IN (${query.states.map(() => "?").join(", ")})`);
    values.push(...query.states.map(stateName));
    if (query.states.every((state) => state < FIRST_FINAL)) where.push("r.ended_at IS NULL");
  }
  if (query.sessionId !== "") {
    where.push("r.session_seq = (SELECT seq FROM sessions WHERE session_id = ?)");
    values.push(query.sessionId);
  }
  if (query.runnerId !== "") {
    where.push("r.runner_id = ?");
    values.push(query.runnerId);
  }
  if (query.withinSessionId !== undefined) {
    where.push(`r.session_seq IN ${WITHIN}`);
    values.push(query.withinSessionId);
  }
  const rows = sql(`SELECT ${RUN_COLUMNS} WHERE ${where.join(" AND ")} ORDER BY r.seq DESC LIMIT ?`).all(
    ...values,
    query.pageSize + 1,
  ) as unknown as RunRow[];
  const summary = sql("SELECT summary FROM run_specs WHERE run_seq = ?");
  const page = pageOf(storeId, rows, query.pageSize, (row) => row.seq);
  return {
    items: page.items.map((row) => runMessage(row, { summary: summary.get(row.seq)?.["summary"] })),
    next: page.next,
  };
}

/** States from COMPLETED on are final. */
const FIRST_FINAL = 6;

const STATE_NAMES = [
  "",
  "PENDING",
  "OFFERED",
  "CLAIMED",
  "RUNNING",
  "STOPPING",
  "COMPLETED",
  "FAILED",
  "STOPPED",
] as const;

function stateName(state: RunState): string {
  return STATE_NAMES[state] ?? "";
}

/** @throws Refusal NOT_FOUND. */
export function stopRun(tx: Tx, runId: string, stop: Stop, cascade: boolean): { run: Run; stoppedRunIds: string[] } {
  const row = runById(tx.sql, runId);
  if (row === undefined) throw new Refusal("NOT_FOUND", `no run ${runId}`);
  const stoppedRunIds: string[] = [];
  if (cascade) {
    forgiveCallbacks(tx, row.session_id);
    const below = tx
      .sql(
        `SELECT ${RUN_COLUMNS} WHERE r.ended_at IS NULL AND r.session_seq <> ? AND r.session_seq IN ${WITHIN} ORDER BY r.seq DESC`,
      )
      .all(row.session_seq, row.session_id) as unknown as RunRow[];
    for (const child of below) {
      apply(tx, child, { type: "STOP", stop });
      stoppedRunIds.push(child.run_id);
    }
    // A session that had ended its turn and waited for callbacks has nothing to wait for any more.
    if (row.ended_at !== null) tx.endedRuns.push(row);
  }
  apply(tx, row, { type: "STOP", stop });
  return { run: wholeRun(tx.sql, row), stoppedRunIds };
}

/** What still needs a run that has ended: a callback that its session owes or waits for, and one that is under way. */
const OWED = `
  (SELECT 1 FROM sessions s WHERE s.seq = runs.session_seq AND s.callback_owed = 1
   UNION ALL SELECT 1 FROM sessions p JOIN sessions c ON c.parent_session_id = p.session_id
     WHERE p.seq = runs.session_seq AND c.callback_owed = 1
   UNION ALL SELECT 1 FROM notifications n WHERE n.parent_seq = runs.session_seq AND n.state = 'WAITING'
   UNION ALL SELECT 1 FROM notifications n WHERE n.child_run_seq = runs.seq AND n.state IN ('WAITING', 'BOUND'))`;

/**
 * Deletes runs that ended before `before`, and sessions that are left without runs. At most `limit` runs.
 * @returns how many runs were, or with `dryRun` would be, deleted.
 */
export function pruneRuns({ sql }: Pick<Tx, "sql">, before: number, dryRun: boolean, limit: number): number {
  const prunable = `FROM runs WHERE ended_at <= ? AND NOT EXISTS ${OWED}`;
  if (dryRun) return Number(sql(`SELECT count(*) AS n ${prunable}`).get(before)?.["n"]);
  const ended = sql(`SELECT seq, session_seq ${prunable} LIMIT ?`).all(before, limit);
  for (const { seq, session_seq } of ended) {
    sql("DELETE FROM events WHERE session_seq = ? AND run_seq = ?").run(session_seq as number, seq as number);
    sql("DELETE FROM runs WHERE seq = ?").run(seq as number);
  }
  for (const sessionSeq of new Set(ended.map((row) => row["session_seq"] as number))) deleteEmpty(sql, sessionSeq);
  return ended.length;
}

/** Deletes a session without runs and children, and then those above it that this leaves the same. */
function deleteEmpty(sql: Sql, sessionSeq: number): void {
  const deletion = sql(
    `DELETE FROM sessions WHERE seq = ? AND NOT EXISTS (SELECT 1 FROM runs WHERE session_seq = sessions.seq)
       AND NOT EXISTS (SELECT 1 FROM sessions c WHERE c.parent_session_id = sessions.session_id)
     RETURNING (SELECT p.seq FROM sessions p WHERE p.session_id = sessions.parent_session_id) AS parent`,
  );
  for (let seq: number | null = sessionSeq; seq !== null;) {
    seq = (deletion.get(seq)?.["parent"] ?? null) as number | null;
  }
}
