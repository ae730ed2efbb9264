import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { ReportSchema } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import type { Report } from "../../gen/agentrunner/v1/runner_service_pb.ts";
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

  /** Deletes what was kept for other stores than `storeId` for seven days, and returns how many reports that were. */
  async expire(storeId: string, nowMs: number): Promise<number> {
    let deleted = 0;
    await this.#state.write(() => {
      const { changes } = this.#state
        .sql("DELETE FROM outbox WHERE store_id <> ? AND written_at_ms < ?")
        .run(storeId, nowMs - FOREIGN_KEPT_MS);
      deleted = Number(changes);
    });
    return deleted;
  }
}
