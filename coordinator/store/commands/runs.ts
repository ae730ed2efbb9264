import { unmatchedSince } from "../../core/no-match.ts";
import { classUnmatchedSince } from "./no-match.ts";
import { createHash } from "node:crypto";
import { create, toBinary } from "@bufbuild/protobuf";
import { bug } from "../../../lib/bug.ts";
import { INVOCATION_MAX_BYTES } from "../../../lib/protocol/limits.ts";
import { RunSummarySchema } from "../../../gen/agentrunner/store/v1/store_pb.ts";
import type { AgentBlueprint } from "../../../gen/agentrunner/v1/blueprint_pb.ts";
import { InvocationBlueprintSchema } from "../../../gen/agentrunner/v1/executor_pb.ts";
import { InvocationMode, OnLost_Policy } from "../../../gen/agentrunner/v1/run_pb.ts";
import type { Run } from "../../../gen/agentrunner/v1/run_pb.ts";
import { CreateRunRequestSchema } from "../../../gen/agentrunner/v1/run_service_pb.ts";
import type { CreateRunRequest } from "../../../gen/agentrunner/v1/run_service_pb.ts";
import { agentRun } from "../../core/blueprints/blueprint-run.ts";
import { invocationBlueprint, newInvocation } from "../../core/invocation.ts";
import { HOOKS_CAPABILITY } from "../../core/blueprints/hooks.ts";
import { requirementsOf } from "../../core/match.ts";
import type { Stop } from "../../core/run-transitions.ts";
import { Refusal } from "../refusal.ts";
import { keepSnapshot, lastSnapshot } from "./blueprint-snapshots.ts";
import { encodeSpec, insertRun } from "./insert-run.ts";
import type { RunSpec } from "./insert-run.ts";
import { attemptMessage, encode, encodeMetadata, runColumnsBy, runMessage } from "./rows.ts";
import type { AttemptRow, ResultRow, RunRow, SpecRow } from "./rows.ts";
import { cancelCallbacks, childDepth, isBeingDeleted, OPEN_WITHIN, oweCallback } from "./session-tree.ts";
import { mustBeNewName } from "./session-name.ts";
import { apply, runById, runBySeq } from "./transition.ts";
import type { Sql, Tx } from "./tx.ts";
import type { AgentLookup, FoundRun, JudgedAgent, TreeLimits } from "../store.ts";

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
  limits: TreeLimits,
): Run {
  const requestHash = createHash("sha256").update(toBinary(CreateRunRequestSchema, request)).digest();
  const repeated = repeatedRun(tx.sql, request, requestHash);
  if (repeated !== undefined) return repeated;
  const session = sessionFor(tx, request, ids.sessionId, limits);
  oweCallback(tx, session.seq, request);
  const agent = agentFor(request.agentName || session.agent_name, lookup);
  const { summary, invocation } = specOf(request, session, agent, ids.runId);
  const agentSeq = agent === undefined ? null : keepSnapshot(tx.sql, agent.blueprint);
  const spec: RunSpec = { summary, invocation, requestId: request.requestId, requestHash, agentSeq };
  const encoded = encodeSpec(spec);
  mustFit(encoded.content.length + blueprintSize(agent?.blueprint));
  const atHead = !session.existed || !hasOpenRun(tx.sql, session.seq);
  return runMessage(insertRun(tx, session, spec, encoded, atHead), encoded);
}

function hasOpenRun(sql: Sql, sessionSeq: number): boolean {
  return (
    sql("SELECT 1 FROM runs INDEXED BY runs_open_of_session WHERE session_seq = ? AND ended_at IS NULL LIMIT 1").first(
      sessionSeq,
    ) !== undefined
  );
}

function repeatedRun(sql: Sql, { requestId }: CreateRunRequest, requestHash: Buffer): Run | undefined {
  if (requestId === "") return undefined;
  const found = sql<{ seq: number; request_hash: Uint8Array }>(
    "SELECT r.seq, p.request_hash FROM runs r JOIN run_specs p ON p.run_seq = r.seq WHERE r.request_id = ?",
  ).first(requestId);
  if (found === undefined) return undefined;
  const row = runBySeq(sql, found.seq);
  if (isBeingDeleted(row)) {
    sql("UPDATE runs SET request_id = NULL WHERE seq = ?").run(row.seq);
    return undefined;
  }
  if (!requestHash.equals(found.request_hash)) {
    throw new Refusal("ALREADY_EXISTS", `request_id ${requestId} was used for another run; choose a new one`);
  }
  return wholeRun(sql, row);
}

function sessionFor(tx: Tx, request: CreateRunRequest, newSessionId: string, limits: TreeLimits): SessionKeyRow {
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
  if (sessionId !== "") throw new Refusal("NOT_FOUND", `no session ${sessionId}`, "SESSION_NOT_FOUND");
  if (mode === InvocationMode.RESUME) {
    const text = key === "" ? "RESUME needs session_id or session_name" : `no session named ${key}`;
    throw new Refusal("NOT_FOUND", text, "SESSION_NOT_FOUND");
  }
  if (sessionName !== "") mustBeNewName(sessionName);
  const depth = parentSessionId === "" ? 0 : childDepth(tx, parentSessionId, limits);
  const { lastInsertRowid } = tx
    .sql(
      `INSERT INTO sessions (session_id, session_name, parent_session_id, depth, agent_name, project_dir, created_at,
         metadata)
       VALUES (:sessionId, :sessionName, :parentSessionId, :depth, :agentName, :projectDir, :now, :metadata)`,
    )
    .run({
      sessionId: newSessionId,
      sessionName: sessionName || newSessionId,
      parentSessionId,
      depth,
      agentName: request.agentName,
      projectDir: request.projectDir,
      now: tx.now,
      metadata: encodeMetadata(request.metadata),
    });
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
  const found = sql<SessionKeyRow>(`SELECT ${SESSION_KEY} FROM sessions WHERE ${where} = ?`);
  return found.first(sessionId || sessionName);
}

export function agentNameOf(
  sql: Sql,
  session: Pick<CreateRunRequest, "sessionId" | "sessionName">,
): string | undefined {
  return findSession(sql, session)?.agent_name;
}

export function lastBlueprint(
  sql: Sql,
  session: Pick<CreateRunRequest, "sessionId" | "sessionName">,
  name: string,
): AgentBlueprint | undefined {
  const found = findSession(sql, session);
  return found && lastSnapshot(sql, found.seq, name);
}

/** @throws Refusal that the lookup holds. */
function agentFor(name: string, lookup: AgentLookup): JudgedAgent | undefined {
  if (name === "") return undefined;
  if (lookup instanceof Refusal) throw lookup;
  if (lookup?.blueprint.name === name) return lookup;
  throw new Refusal("NOT_FOUND", `no agent blueprint ${name}`, "BLUEPRINT_NOT_FOUND");
}

/** @throws Refusal INVALID_ARGUMENT. */
function specOf(
  request: CreateRunRequest,
  session: SessionKeyRow,
  agent: JudgedAgent | undefined,
  runId: string,
): Pick<RunSpec, "summary" | "invocation"> {
  const blueprint = agent?.blueprint;
  const made = agentRun(request, blueprint, session.existed, agent?.violations);
  if (made.type === "refused") throw new Refusal("INVALID_ARGUMENT", made.message);
  const { parentSessionId, parameters, metadata } = request;
  const projectDir = request.projectDir || session.project_dir;
  const summary = create(RunSummarySchema, {
    mode: session.existed ? InvocationMode.RESUME : InvocationMode.START,
    agentName: request.agentName || session.agent_name,
    projectDir,
    executionMode: request.executionMode,
    parentSessionId,
    anyRunner: request.anyRunner,
    onLost: {
      policy: request.onLost?.policy || OnLost_Policy.FAIL,
      maxAttempts: request.onLost?.maxAttempts || DEFAULT_MAX_ATTEMPTS,
      resumePrompt: request.onLost?.resumePrompt ?? "",
    },
  });
  Object.assign(summary, {
    needs: blueprint?.hooks === undefined ? [] : [HOOKS_CAPABILITY],
    demands: made.demands,
    timeout: request.timeout,
    idleTimeout: request.idleTimeout,
    lostAfter: request.lostAfter,
  });
  const run = { runId, sessionId: session.session_id, resumes: session.existed, prompt: made.prompt };
  return {
    summary,
    invocation: newInvocation({ ...run, projectDir, parentSessionId, parameters, metadata }),
  };
}

function blueprintSize(blueprint: AgentBlueprint | undefined): number {
  return blueprint === undefined ? 0 : encode(InvocationBlueprintSchema, invocationBlueprint(blueprint)).length;
}

function mustFit(bytes: number): void {
  if (bytes <= INVOCATION_MAX_BYTES) return;
  throw new Refusal(
    "INVALID_ARGUMENT",
    `prompt, parameters, metadata and blueprint are ${bytes} bytes together; at most ${INVOCATION_MAX_BYTES} fit in an invocation. ` +
      "Put large content in a file and name it in the prompt.",
  );
}

/** The run with prompt, parameters, metadata and result. */
export function wholeRun(sql: Sql, row: RunRow): Run {
  const spec = sql<SpecRow>("SELECT summary, content FROM run_specs WHERE run_seq = ?").first(row.seq);
  if (spec === undefined) throw bug("SPEC1", `run ${row.run_id} has no spec`);
  return runMessage(row, spec, sql<ResultRow>("SELECT exit, result FROM run_results WHERE run_seq = ?").first(row.seq));
}

/** Attempts that are returned with a run, the newest: one that runners hand back for their own trouble has no end of them. */
const MAX_ATTEMPTS_SHOWN = 100;

export function getRun(sql: Sql, runId: string): FoundRun | undefined {
  const row = runById(sql, runId);
  if (row === undefined) return undefined;
  const run = wholeRun(sql, row);
  const attempts = sql<AttemptRow>(
    `SELECT * FROM attempts WHERE run_seq = ? ORDER BY attempt DESC LIMIT ${MAX_ATTEMPTS_SHOWN}`,
  ).all(row.seq);
  run.attempts = attempts.toReversed().map(attemptMessage);
  const head = sql<{ run_id: string }>(
    "SELECT run_id FROM runs WHERE session_seq = ? AND at_head = 1 AND ended_at IS NULL",
  );
  return {
    run,
    requirements: row.at_head === 1 && row.demand_class !== null ? requirementsOf(row.demand_class) : undefined,
    waitsFor: row.at_head === 0 && row.ended_at === null ? head.first(row.session_seq)?.run_id : undefined,
    refusals: JSON.parse(row.refusal_reasons) as string[],
    unmatchedSince: row.state === "PENDING" && row.at_head === 1 ? noMatchSince(sql, row) : undefined,
  };
}

function noMatchSince(sql: Sql, row: RunRow): number | undefined {
  if (row.demand_class === null) return undefined;
  const stored = sql<{ at: number | null }>("SELECT unmatched_since AS at FROM runs WHERE seq = ?").first(row.seq);
  return unmatchedSince(classUnmatchedSince(sql, row.demand_class), stored?.at ?? row.created_at);
}

export function hasEnded(sql: Sql, runId: string): boolean | undefined {
  const row = sql<{ ended_at: number | null }>("SELECT ended_at FROM runs WHERE run_id = ?").first(runId);
  return row && row.ended_at !== null;
}

/** @throws Refusal NOT_FOUND. */
export function stopRun(tx: Tx, runId: string, stop: Stop, cascade: boolean): { run: Run; stoppedRunIds: string[] } {
  const row = runById(tx.sql, runId);
  if (row === undefined) throw new Refusal("NOT_FOUND", `no run ${runId}`, "RUN_NOT_FOUND");
  const stoppedRunIds: string[] = [];
  if (cascade) {
    cancelCallbacks(tx, row.session_id);
    const below = tx
      .sql<RunRow>(
        `SELECT ${runColumnsBy("runs_open_of_session")}
         WHERE r.ended_at IS NULL AND r.session_seq <> ? AND r.session_seq IN ${OPEN_WITHIN} ORDER BY r.seq DESC`,
      )
      .all(row.session_seq, row.session_id);
    for (const child of below) {
      apply(tx, child, { type: "STOP", stop });
      stoppedRunIds.push(child.run_id);
    }
    // Its session may have waited for callbacks that were just cancelled: then it settles now.
    if (row.ended_at !== null) tx.endedRuns.push(row);
  }
  apply(tx, row, { type: "STOP", stop });
  return { run: wholeRun(tx.sql, row), stoppedRunIds };
}
