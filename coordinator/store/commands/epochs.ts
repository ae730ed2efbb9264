import { randomBytes } from "node:crypto";
import type { Epoch } from "../event-cursors.ts";
import type { Sql } from "./tx.ts";

/** Starts that are remembered; cursors that are older are refused as those of another history are. */
const KEPT = 10_000;

/** Begins the epoch of this process. Returns all of them, oldest first. */
export function beginEpoch(sql: Sql): Epoch[] {
  // Not the last event that is there: it may have been deleted, and its place is taken all the same.
  const last = sql<{ seq: number }>("SELECT seq FROM sqlite_sequence WHERE name = 'events'").first()?.seq ?? 0;
  sql("INSERT INTO epochs (epoch, after) VALUES (?, ?)").run(randomBytes(6).toString("hex"), last);
  sql(`DELETE FROM epochs WHERE seq <= (SELECT max(seq) FROM epochs) - ${KEPT}`).run();
  return sql<Epoch>("SELECT epoch, after FROM epochs ORDER BY seq").all();
}
