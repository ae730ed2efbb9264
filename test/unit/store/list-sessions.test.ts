import { DatabaseSync } from "node:sqlite";
import { afterEach, describe, expect, it } from "vitest";
import { listSessions } from "../../../coordinator/store/commands/list-sessions.ts";
import { MIGRATIONS } from "../../../coordinator/store/sqlite/schema.ts";
import type { SessionQuery } from "../../../coordinator/store/store.ts";
import { SessionStatus } from "../../../gen/agentrunner/v1/session_pb.ts";
import { statements } from "../../../lib/sqlite.ts";
import type { Sql } from "../../../lib/sqlite.ts";
import { Random } from "../../support/random.ts";

const { PENDING, RUNNING, STOPPING, IDLE, FAILED, STOPPED } = SessionStatus;
const STATUSES: readonly SessionStatus[] = [PENDING, RUNNING, STOPPING, IDLE, FAILED, STOPPED];
const OPEN_STATES = ["PENDING", "OFFERED", "CLAIMED", "RUNNING", "STOPPING"];
const ANY = { statuses: [], parentSessionId: "", pageSize: 100, pageToken: "", withinSessionId: undefined };

/** A store that is filled with rows and not with commands, because it has many. */
class Rows {
  readonly db = new DatabaseSync(":memory:");
  /** Rows that statements returned. */
  read = 0;
  #sessions = 0;
  #runs = 0;
  readonly #session;
  readonly #run;

  constructor() {
    for (const step of MIGRATIONS) this.db.exec(typeof step === "string" ? step : step(this.db));
    this.#session = this.db.prepare(
      `INSERT INTO sessions (session_id, session_name, parent_session_id, agent_name, project_dir, created_at)
       VALUES (?, ?, ?, '', '', 0)`,
    );
    this.#run = this.db.prepare(
      `INSERT INTO runs (run_id, session_seq, state, at_head, on_lost, max_attempts, created_at, ended_at, first_event)
       VALUES (?, ?, ?, ?, 'FAIL', 1, 0, ?, 0)`,
    );
  }

  /** A session with runs in these states; of those that are open the first is at the head. */
  add(states: readonly string[], parentId = "", id = `ses_${this.#sessions + 1}`): void {
    this.#sessions += 1;
    this.#session.run(id, id, parentId);
    const head = states.findIndex((state) => OPEN_STATES.includes(state));
    for (const [i, state] of states.entries()) {
      this.#runs += 1;
      const open = OPEN_STATES.includes(state);
      this.#run.run(`run_${this.#runs}`, this.#sessions, state, !open || i === head ? 1 : 0, open ? null : 1);
    }
  }

  readonly sql: Sql = (
    (sql) =>
    <Row>(text: string) => {
      const statement = sql<Row>(text);
      const counted = <T>(rows: T[]): T[] => {
        this.read += rows.length;
        return rows;
      };
      return {
        ...statement,
        first: (...values: Parameters<typeof statement.first>) => counted([statement.first(...values)])[0],
        all: (...values: Parameters<typeof statement.all>) => counted(statement.all(...values)),
      };
    }
  )(statements(this.db));

  async page(query: Partial<SessionQuery>): Promise<{ ids: string[]; next: string }> {
    const { items, next } = await listSessions(this.sql, "store", { ...ANY, ...query });
    return { ids: items.map(({ sessionId }) => sessionId), next };
  }

  async all(query: Partial<SessionQuery>): Promise<string[]> {
    const ids: string[] = [];
    let pageToken = "";
    do {
      const page = await this.page({ ...query, pageToken });
      ids.push(...page.ids);
      pageToken = page.next;
    } while (pageToken !== "");
    return ids;
  }
}

let rows: Rows;
afterEach(() => rows.db.close());

function oneOfEach(): void {
  for (const state of ["PENDING", "RUNNING", "STOPPING", "COMPLETED", "FAILED", "STOPPED"]) rows.add([state]);
}

describe("a list of sessions of some status", () => {
  it.each([
    [[FAILED]],
    [[STOPPED]],
    [[RUNNING]],
    [[STOPPING]],
    [[PENDING]],
    [[PENDING, RUNNING, STOPPING, FAILED, STOPPED]],
  ])("(%s) reads no more rows as sessions grow many", async (statuses) => {
    rows = new Rows();
    oneOfEach();
    const few = await rows.all({ statuses });
    expect(few).toHaveLength(statuses.length);
    const readOfFew = rows.read;
    for (let i = 0; i < 3_000; i += 1) rows.add(["COMPLETED"]);
    rows.read = 0;
    expect(await rows.all({ statuses })).toEqual(few);
    expect(rows.read).toBe(readOfFew);
  });

  it("reads one entry of a session that failed any number of times, or has any number of runs that wait", async () => {
    rows = new Rows();
    rows.add(["FAILED"]);
    const failed = Array.from({ length: 3_000 }, () => "FAILED");
    const pending = Array.from({ length: 3_000 }, () => "PENDING");
    rows.add(failed);
    rows.add([...failed, "RUNNING", ...pending]);
    expect(await rows.all({ statuses: [FAILED] })).toEqual(["ses_2", "ses_1"]);
    expect(await rows.all({ statuses: [PENDING] })).toEqual([]);
    expect(await rows.all({ statuses: [RUNNING] })).toEqual(["ses_3"]);
    expect(rows.read).toBeLessThan(50);
  });

  it("returns a short page with a token when most of those that failed were resumed", async () => {
    rows = new Rows();
    rows.add(["FAILED"]);
    for (let i = 0; i < 12_000; i += 1) rows.add(["FAILED", "COMPLETED"]);
    const first = await rows.page({ statuses: [FAILED] });
    expect(first.ids).toEqual([]);
    expect(first.next).not.toBe("");
    expect(rows.read).toBeLessThan(10_100);
    expect(await rows.page({ statuses: [FAILED], pageToken: first.next })).toEqual({ ids: ["ses_1"], next: "" });
  });

  it("is empty for a status that this program does not know", async () => {
    rows = new Rows();
    oneOfEach();
    expect(await rows.page({ statuses: [99 as SessionStatus] })).toEqual({ ids: [], next: "" });
    expect(await rows.all({ statuses: [99 as SessionStatus, FAILED] })).toEqual(["ses_5"]);
  });

  it("has every session of it once, in the order of the whole list, whatever is combined and however it is paged", async () => {
    const random = new Random(20_261_125);
    rows = new Rows();
    for (let i = 0; i < 260; i += 1) {
      const ended = Array.from({ length: random.int(0, 2) }, () => random.pick(["COMPLETED", "FAILED", "STOPPED"]));
      const open = Array.from({ length: random.int(0, 2) }, (_, j) => (j === 0 ? random.pick(OPEN_STATES) : "PENDING"));
      const states = [...ended, ...open];
      const parentId = i % 3 === 0 ? "ses_1" : i % 3 === 1 ? `ses_${i}` : "";
      const id = i % 50 === 7 ? `deleted_${i}` : undefined;
      rows.add(states.length === 0 ? ["COMPLETED"] : states, parentId, id);
    }
    for (const place of [{}, { parentSessionId: "ses_1" }, { withinSessionId: "ses_1" }]) {
      const { items } = await listSessions(rows.sql, "store", { ...ANY, ...place, pageSize: 1_000 });
      expect(items.length).toBeGreaterThan(50);
      for (let bits = 1; bits < 64; bits += 1) {
        const statuses = STATUSES.filter((_, i) => (bits >> i) % 2 === 1);
        const wanted = items.filter(({ status }) => statuses.includes(status)).map(({ sessionId }) => sessionId);
        for (const pageSize of [30, 101]) {
          expect(await rows.all({ ...place, statuses, pageSize }), `${statuses.join()} by ${pageSize}`).toEqual(wanted);
        }
      }
    }
  });
});
