import { createHash } from "node:crypto";
import { AgentBlueprintSchema } from "../../../gen/agentrunner/v1/blueprint_pb.ts";
import type { AgentBlueprint } from "../../../gen/agentrunner/v1/blueprint_pb.ts";
import { bug } from "../../../lib/bug.ts";
import { decodeOptional, encode } from "./rows.ts";
import type { Sql } from "./tx.ts";

/*
 * Blueprints as they were when runs were made with them. Each content is stored once and shared by its runs; the store
 * deletes it with the last of them (a trigger in schema.ts).
 */

/** Stores the blueprint unless it is there. @returns its number, for `RunSpec.agentSeq`. */
export function keepSnapshot(sql: Sql, blueprint: AgentBlueprint): number {
  const body = encode(AgentBlueprintSchema, blueprint);
  const hash = createHash("sha256").update(body).digest();
  sql("INSERT OR IGNORE INTO agent_snapshots (hash, name, body) VALUES (?, ?, ?)").run(hash, blueprint.name, body);
  const kept = sql<{ seq: number }>("SELECT seq FROM agent_snapshots WHERE hash = ?").first(hash);
  if (kept === undefined) throw bug("SNAPSHOT1", `the blueprint ${blueprint.name} was not kept`);
  return kept.seq;
}

/** The blueprint that a run was made with. */
export function snapshotOf(sql: Sql, runSeq: number): AgentBlueprint | undefined {
  const row = sql<{ body: Uint8Array }>(
    "SELECT a.body FROM run_specs p JOIN agent_snapshots a ON a.seq = p.agent_seq WHERE p.run_seq = ?",
  ).first(runSeq);
  return decodeOptional(AgentBlueprintSchema, row?.body);
}

/** Runs of a session among which a blueprint is looked for that has gone from its directory. */
const LOOKED_AT = 1000;

/** The blueprint of that name that the newest run of the session with one was made with, of its newest 1,000 runs. */
export function lastSnapshot(sql: Sql, sessionSeq: number, name: string): AgentBlueprint | undefined {
  const row = sql<{ body: Uint8Array }>(
    `SELECT a.body FROM (SELECT seq FROM runs WHERE session_seq = ? ORDER BY seq DESC LIMIT ${LOOKED_AT}) r
     JOIN run_specs p ON p.run_seq = r.seq JOIN agent_snapshots a ON a.seq = p.agent_seq
     WHERE a.name = ? ORDER BY r.seq DESC LIMIT 1`,
  ).first(sessionSeq, name);
  return decodeOptional(AgentBlueprintSchema, row?.body);
}
