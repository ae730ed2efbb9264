import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { ReportSchema } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import type { Report } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import { clockAtStart } from "../../lib/clock-note.ts";
import type { ClockNote } from "../../lib/clock-note.ts";
import { isFinalKind } from "../../lib/protocol/final.ts";
import type { StateDir } from "../leases/state-dir.ts";

/** How long reports for a store that does not come back are kept (ADR 3). */
const FOREIGN_KEPT_MS = 7 * 86_400_000;

/** A report on disk. */
export interface OutboxEntry {
  readonly storeId: string;
  readonly report: Report;
  /** Encoded size of the report. */
  readonly bytes: number;
  readonly final: boolean;
}

/** What was deleted for its age. */
export interface Expired {
  readonly reports: number;
  /** What the wall clock was at the last look, when it may have jumped since; undefined when it has not. */
  readonly clockWasMs: number | undefined;
}

type OutboxRow = { store_id: string; final: 0 | 1; report: Uint8Array };

/** Reports that must not get lost: on disk before they are sent, until they are answered (ADR 3). */
export class Outbox {
  readonly #state: StateDir;

  constructor(state: StateDir) {
    this.#state = state;
  }

  /**
   * Puts a report on disk. A final one takes the place of every earlier one of its lease, whose executor_session_id it
   * repeats. Returns its encoded size. Rejects when it cannot be written; it may then go from memory.
   */
  async put(storeId: string, report: Report): Promise<number> {
    const body = toBinary(ReportSchema, report);
    const final = isFinalKind(report.kind);
    await this.#state.writeSynced(() => {
      if (final) this.#state.sql("DELETE FROM outbox WHERE lease_id = ?").run(report.leaseId);
      this.#state
        .sql("INSERT OR REPLACE INTO outbox VALUES (?, ?, ?, ?, ?, ?)")
        .run(report.leaseId, Number(report.seq), storeId, Number(final), Date.now(), body);
    });
    return body.length;
  }

  /** The report was answered: it is not sent again. */
  remove(leaseId: string, seq: bigint): void {
    this.#state.writeLazily(() =>
      this.#state.sql("DELETE FROM outbox WHERE lease_id = ? AND seq = ?").run(leaseId, Number(seq)),
    );
  }

  /** The lease is over: none of its reports is sent again. */
  removeLease(leaseId: string): void {
    this.#state.writeLazily(() => this.#state.sql("DELETE FROM outbox WHERE lease_id = ?").run(leaseId));
  }

  /** Every report that is not answered, in the order of each lease. */
  entries(): OutboxEntry[] {
    const rows = this.#state.sql<OutboxRow>("SELECT store_id, final, report FROM outbox ORDER BY lease_id, seq").all();
    return rows.map(({ store_id, final, report }) => ({
      storeId: store_id,
      report: fromBinary(ReportSchema, report),
      bytes: report.length,
      final: final === 1,
    }));
  }

  /**
   * Deletes what was kept for other stores than `storeId` for seven days; nothing in the day after the wall clock was found to
   * be elsewhere than at the last call, which may have been one of an earlier process.
   */
  async expire(storeId: string, nowMs: number): Promise<Expired> {
    const last = this.#clockNote(nowMs);
    const note = clockAtStart(last, nowMs, FOREIGN_KEPT_MS);
    let reports = 0;
    await this.#state.write(() => {
      this.#state.sql("INSERT OR REPLACE INTO meta VALUES ('clock', ?)").run(JSON.stringify(note));
      if (nowMs < note.pruneFrom) return;
      const { changes } = this.#state
        .sql("DELETE FROM outbox WHERE store_id <> ? AND written_at_ms < ?")
        .run(storeId, nowMs - FOREIGN_KEPT_MS);
      reports = Number(changes);
    });
    return { reports, clockWasMs: note.pruneFrom > last.pruneFrom ? last.seenAt : undefined };
  }

  #clockNote(nowMs: number): ClockNote {
    const kept = this.#state.sql<{ value: string }>("SELECT value FROM meta WHERE key = 'clock'").first();
    if (kept !== undefined) return JSON.parse(kept.value) as ClockNote;
    const newest = this.#state.sql<{ at: number | null }>("SELECT max(written_at_ms) AS at FROM outbox").first();
    return { seenAt: newest?.at ?? nowMs, pruneFrom: 0 };
  }
}
