import { setImmediate } from "node:timers/promises";
import type { Session } from "../../../gen/agentrunner/v1/session_pb.ts";
import { SessionStatusSchema } from "../../../gen/agentrunner/v1/session_pb.ts";
import type { RunStateName } from "../../core/run-transitions.ts";
import { sessionStatus } from "../../core/sessions/session.ts";
import { cursorOf, pageOf, pageStart } from "../cursors.ts";
import type { Page, SessionQuery } from "../store.ts";
import { sessionMessage } from "./session-queries.ts";
import type { SessionRow } from "./session-queries.ts";
import { isBeingDeleted, WITHIN } from "./session-tree.ts";
import type { Sql } from "./tx.ts";

/*
 * Sessions are listed in the order in which they were made, newest first. What a page of sessions of some status costs does
 * not depend on how many others there are: indexes know which sessions have a run in a state, and those are the candidates.
 * A candidate may have another status by now, as a session that failed and was resumed, so its runs decide.
 */

/** Time after which a read that can take long lets others in, and the sessions that it looks at at a time. */
const READ_BUDGET_MS = 10;
const SLICE = 100;

/** Sessions looked at for one page before it is returned short, when most candidates have another status by now. */
const MAX_LOOKED_AT = 10_000;

/** Lets others in between when it takes long. */
export async function listSessions(sql: Sql, storeId: string, query: SessionQuery): Promise<Page<Session>> {
  const next = query.statuses.length === 0 ? anySessions(sql, query) : sessionsWithStatus(sql, query);
  const found: { seq: number; session: Session }[] = [];
  let below = pageStart(storeId, query.pageToken);
  let until = performance.now() + READ_BUDGET_MS;
  for (let lookedAt = 0; lookedAt < MAX_LOOKED_AT && found.length <= query.pageSize;) {
    const slice = next(below);
    for (const candidate of slice) {
      below = candidate.seq;
      const row = isBeingDeleted(candidate) ? undefined : candidate.row();
      if (row !== undefined) found.push({ seq: row.seq, session: sessionMessage(sql, row) });
      if (found.length > query.pageSize) break;
    }
    lookedAt += slice.length;
    if (slice.length < SLICE && found.length <= query.pageSize) {
      return { items: found.map(({ session }) => session), next: "" };
    }
    if (performance.now() < until) continue;
    await setImmediate();
    until = performance.now() + READ_BUDGET_MS;
  }
  const page = pageOf(storeId, found, query.pageSize, ({ seq }) => seq);
  return { items: page.items.map(({ session }) => session), next: page.next || cursorOf(storeId, below) };
}

/** A session that was looked at. */
interface Candidate {
  readonly seq: number;
  readonly session_id: string;
  /** Undefined when it has none of the statuses that are asked for. */
  row(): SessionRow | undefined;
}

/** The newest SLICE candidates with a number below one, newest first; fewer when there are no more. */
type Slices = (below: number) => Candidate[];

function anySessions(sql: Sql, query: SessionQuery): Slices {
  const { where, values } = inSelection(query);
  const select = sql<SessionRow>(`SELECT * FROM sessions WHERE ${where} ORDER BY seq DESC LIMIT ?`);
  return (below) =>
    select.all(below, ...values, SLICE).map((row) => ({ seq: row.seq, session_id: row.session_id, row: () => row }));
}

interface StatesRow {
  seq: number;
  session_id: string;
  active: RunStateName | null;
  newest: RunStateName | null;
}

function sessionsWithStatus(sql: Sql, query: SessionQuery): Slices {
  const wanted = new Set(query.statuses.map((status) => SessionStatusSchema.value[status]?.localName));
  const { text, values } = candidates(wanted, query);
  // The state of the run whose turn it is is found without a look at those that wait behind it.
  const select = sql<StatesRow>(
    `SELECT s.seq, s.session_id,
       (SELECT state FROM runs INDEXED BY one_active_run_per_session
        WHERE session_seq = s.seq AND at_head = 1 AND ended_at IS NULL) AS active,
       (SELECT state FROM runs INDEXED BY runs_by_session WHERE session_seq = s.seq ORDER BY seq DESC LIMIT 1) AS newest
     FROM sessions s WHERE s.seq IN (${text}) ORDER BY s.seq DESC`,
  );
  const whole = sql<SessionRow>("SELECT * FROM sessions WHERE seq = ?");
  return (below) =>
    select.all(...values(below)).map(({ seq, session_id, active, newest }) => ({
      ...{ seq, session_id },
      row: () => (wanted.has(sessionStatus(active ?? undefined, newest ?? "COMPLETED")) ? whole.first(seq) : undefined),
    }));
}

/** The text of a select of session numbers, and its values for those below a number. */
interface Select {
  readonly text: string;
  readonly values: (below: number) => (string | number)[];
}

/** Selects the newest SLICE sessions among which are all that have one of the statuses. */
function candidates(wanted: ReadonlySet<string | undefined>, query: SessionQuery): Select {
  // The children of a session, and those in a tree, have an index of their own. Idle is what most sessions are in the end.
  if (query.parentSessionId !== "" || query.withinSessionId !== undefined || wanted.has("IDLE")) {
    const { where, values } = inSelection(query);
    return {
      text: `SELECT seq FROM sessions WHERE ${where} ORDER BY seq DESC LIMIT ?`,
      values: (below) => [below, ...values, SLICE],
    };
  }
  const sources: Select[] = [];
  if (wanted.has("FAILED")) sources.push(eachOnce(FAILED_OR_STOPPED, "FAILED"));
  if (wanted.has("STOPPED")) sources.push(eachOnce(FAILED_OR_STOPPED, "STOPPED"));
  if (wanted.has("PENDING")) sources.push(eachOnce(OPEN));
  else {
    if (wanted.has("RUNNING")) sources.push(held("CLAIMED"), held("RUNNING"));
    if (wanted.has("STOPPING")) sources.push(held("STOPPING"));
  }
  // The last one is for statuses that this program does not know.
  const texts = [...sources.map(({ text }) => `SELECT seq FROM (${text})`), "SELECT 0 AS seq WHERE 0"];
  return {
    text: `${texts.join(" UNION ")} ORDER BY seq DESC LIMIT ?`,
    values: (below) => [...sources.flatMap(({ values }) => values(below)), SLICE],
  };
}

const FAILED_OR_STOPPED =
  "FROM runs INDEXED BY runs_failed_or_stopped WHERE state IN ('FAILED', 'STOPPED') AND state = ?";
/** Sessions with runs that wait; the others of them are as many as runners hold runs. */
const OPEN = "FROM runs INDEXED BY runs_open_of_session WHERE ended_at IS NULL";

/** From an index by sessions: goes from one to the next, however many entries each has. */
function eachOnce(from: string, ...given: readonly string[]): Select {
  const before = `(SELECT session_seq ${from} AND session_seq < step.seq ORDER BY session_seq DESC LIMIT 1)`;
  return {
    text: `WITH RECURSIVE step (seq) AS (
        SELECT ? UNION ALL SELECT ${before} FROM step WHERE step.seq IS NOT NULL LIMIT ?
      ) SELECT seq FROM step WHERE seq < ?`,
    values: (below) => [below, ...given, SLICE + 1, below],
  };
}

/** As many as runners hold runs, at most: they are read as a whole. */
function held(state: RunStateName): Select {
  return {
    text: `SELECT DISTINCT session_seq AS seq FROM runs INDEXED BY runs_by_state
      WHERE state = ? AND session_seq < ? ORDER BY session_seq DESC LIMIT ?`,
    values: (below) => [state, below, SLICE],
  };
}

/** What a session must fulfil besides its status, and the values after the first, below which its number is. */
function inSelection({ parentSessionId, withinSessionId }: SessionQuery): { where: string; values: string[] } {
  const where = ["seq < ?"];
  const values: string[] = [];
  if (parentSessionId !== "") {
    where.push("parent_session_id = ?");
    values.push(parentSessionId);
  }
  if (withinSessionId !== undefined) {
    where.push(`seq IN ${WITHIN}`);
    values.push(withinSessionId);
  }
  return { where: where.join(" AND "), values };
}
