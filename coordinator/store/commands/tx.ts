import type { Sql } from "../../../lib/sqlite.ts";
import type { ChangeSet } from "../changes.ts";
import type { RunRow } from "./rows.ts";

export type { Sql };

/** What a command works with inside its transaction. */
export interface Tx {
  readonly sql: Sql;
  readonly changes: ChangeSet;
  /** Epoch milliseconds. */
  readonly now: number;
  /** Runs that have ended and whose consequences for their sessions are still to be drawn. */
  readonly endedRuns: RunRow[];
}
