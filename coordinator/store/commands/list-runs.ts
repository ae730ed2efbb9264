import { bug } from "../../../lib/bug.ts";
import { RunStateSchema } from "../../../gen/agentrunner/v1/run_pb.ts";
import type { Run, RunState } from "../../../gen/agentrunner/v1/run_pb.ts";
import { cursorOf, pageOf, pageStart } from "../cursors.ts";
import type { Page, RunQuery } from "../store.ts";
import { RUN_COLUMNS, runMessage } from "./rows.ts";
import type { RunRow, SpecRow } from "./rows.ts";
import { isBeingDeleted, WITHIN } from "./session-tree.ts";
import type { Sql } from "./tx.ts";

/** Runs looked at for one page before it is returned short, when sessions with many of them are just being deleted. */
const MAX_LOOKED_AT = 10_000;

export function listRuns(sql: Sql, storeId: string, query: RunQuery): Page<Run> {
  const found: RunRow[] = [];
  let below = pageStart(storeId, query.pageToken);
  for (let lookedAt = 0; ;) {
    const rows = runsBelow(sql, query, below);
    found.push(...rows.filter((row) => !isBeingDeleted(row)));
    lookedAt += rows.length;
    const last = rows.at(-1);
    const page = pageOf(storeId, found, query.pageSize, (row) => row.seq);
    if (last === undefined || rows.length <= query.pageSize || page.next !== "" || lookedAt >= MAX_LOOKED_AT) {
      const isShort = page.next === "" && rows.length > query.pageSize && last !== undefined;
      return {
        items: page.items.map((row) => runMessage(row, { summary: encodedSummary(sql, row) })),
        next: isShort ? cursorOf(storeId, last.seq) : page.next,
      };
    }
    below = last.seq;
  }
}

/** One row more than a page. */
function runsBelow(sql: Sql, query: RunQuery, below: number): RunRow[] {
  const { sessionId, withinSessionId, runnerId } = query;
  const limit = query.pageSize + 1;
  const inSessions = sessionId !== "" || withinSessionId !== undefined;
  const { where, values } = inSessions ? ofSessions(query, below) : ofStates(query, below, limit);
  if (inSessions && runnerId !== "") {
    where.push("+r.runner_id = ?");
    values.push(runnerId);
  }
  const select = sql<RunRow>(`SELECT ${RUN_COLUMNS} WHERE ${where.join(" AND ")} ORDER BY r.seq DESC LIMIT ?`);
  return select.all(...values, limit);
}

interface Where {
  readonly where: string[];
  readonly values: (string | number)[];
}

/** The `+` keeps SQLite from reading every run of a state, or every run, when a session has few. */
function ofSessions({ states, sessionId, withinSessionId }: RunQuery, below: number): Where {
  const where = [sessionId === "" ? "+r.seq < ?" : "r.seq < ?"];
  const values: (string | number)[] = [below];
  if (sessionId !== "") {
    where.push("r.session_seq = (SELECT seq FROM sessions WHERE session_id = ?)");
    values.push(sessionId);
  }
  if (withinSessionId !== undefined) {
    where.push(`${sessionId === "" ? "" : "+"}r.session_seq IN ${WITHIN}`);
    values.push(withinSessionId);
  }
  if (states.length > 0) {
    where.push(`+r.state IN (${states.map(() => "?").join(", ")})`);
    values.push(...states.map(stateName));
  }
  return { where, values };
}

/** Reads the newest of each state from an index, so that a rare one costs what a common one does. */
function ofStates({ states, runnerId }: RunQuery, below: number, limit: number): Where {
  if (states.length === 0 && runnerId === "") return { where: ["r.seq < ?"], values: [below] };
  const names =
    states.length > 0 ? [...new Set(states)].map(stateName) : RunStateSchema.values.map(({ localName }) => localName);
  const runner = runnerId === "" ? "" : "runner_id = ? AND ";
  const newest = `SELECT * FROM (SELECT seq FROM runs WHERE ${runner}state = ? AND seq < ? ORDER BY seq DESC LIMIT ?)`;
  return {
    where: [`r.seq IN (${names.map(() => newest).join(" UNION ALL ")})`],
    values: names.flatMap((name) => [...(runnerId === "" ? [] : [runnerId]), name, below, limit]),
  };
}

/** What is stored of a run for lists, as bytes. */
export function encodedSummary(sql: Sql, row: RunRow): Uint8Array {
  const spec = sql<Pick<SpecRow, "summary">>("SELECT summary FROM run_specs WHERE run_seq = ?").first(row.seq);
  if (spec === undefined) throw bug("SPEC2", `run ${row.run_id} has no spec`);
  return spec.summary;
}

function stateName(state: RunState): string {
  return RunStateSchema.value[state]?.localName ?? "";
}
