import { clone, create } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { boundResult } from "../../lib/protocol/bound-result.ts";
import {
  ReportSchema,
  ReportVerdictSchema,
  ReportVerdict_Kind,
  Report_Kind,
} from "../../gen/agentrunner/v1/runner_service_pb.ts";
import type { Report, ReportStatusResponse, ReportVerdict } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import { cutText } from "../../lib/protocol/limits.ts";
import type { Log } from "../../lib/log.ts";
import { oneItem } from "../one-item.ts";
import { BatchSender } from "./batch-sender.ts";
import type { Uplink } from "./uplink.ts";

/** Limits of one ReportStatus: the protocol's 500, and well under the 4 MiB of a message. */
const BATCH_MAX_REPORTS = 500;
const BATCH_MAX_BYTES = 3.5 * 1024 * 1024;

/** What a report keeps of its texts when even alone it is too large. */
const CUT_TEXT_BYTES = 16 * 1024;

/** A report that waits for its answer. */
export interface OutgoingReport {
  readonly report: Report;
  /** Store of the lease: the report goes to no other. */
  readonly storeId: string;
  /** Encoded size, or an upper bound of it. */
  readonly bytes: number;
  /** Called once, unless the report is dropped first. */
  readonly onVerdict: (verdict: ReportVerdict) => void;
}

/** Sends a batch. Rejects with ConnectError. */
export type SendReports = (reports: Report[]) => Promise<ReportStatusResponse>;

/**
 * Sends the reports of all leases, each until it is answered. One ReportStatus is in flight; what comes meanwhile goes
 * together in the next. The reports of one lease keep their order, and what follows an ACCEPT waits for its answer.
 *
 * The queue is bounded by its callers: a lease has at most a handful of reports that are not answered.
 */
export class ReportSender {
  readonly #uplink: Uplink;
  readonly #batches: BatchSender<OutgoingReport[]>;
  readonly #send: SendReports;
  readonly #log: Log;
  #queue: OutgoingReport[] = [];
  readonly #dropped = new WeakSet<OutgoingReport>();
  #inFlight: readonly OutgoingReport[] = [];
  #maxReports = BATCH_MAX_REPORTS;

  constructor(uplink: Uplink, send: SendReports, log: Log) {
    this.#uplink = uplink;
    this.#batches = new BatchSender(uplink, {
      take: (storeId) => this.#take(storeId),
      attempt: (batch) => this.#attempt(batch),
    });
    this.#send = send;
    this.#log = log;
  }

  send(outgoing: OutgoingReport): void {
    this.#queue.push(outgoing);
    this.wake();
  }

  /** Takes back every unanswered report of a lease; one that is in flight may still arrive, and is not repeated. */
  drop(leaseId: string): void {
    this.#queue = this.#queue.filter(({ report }) => report.leaseId !== leaseId);
    for (const one of this.#inFlight) if (one.report.leaseId === leaseId) this.#dropped.add(one);
  }

  /** Looks again whether something can be sent: the coordinator may have another store now. */
  wake(): void {
    this.#batches.wake();
  }

  /**
   * Sends what waits of a lease now, instead of at the end of a pause. What is in flight is not repeated. False when
   * nothing of the lease waits or is in flight.
   */
  hurry(leaseId: string): boolean {
    const ofLease = ({ report }: OutgoingReport) => report.leaseId === leaseId;
    if (this.#queue.some(ofLease)) this.#batches.hurry();
    return this.#queue.some(ofLease) || this.#inFlight.some(ofLease);
  }

  async #attempt(batch: readonly OutgoingReport[]): Promise<boolean> {
    this.#inFlight = batch;
    try {
      const answer = await this.#send(batch.map(({ report }) => report));
      this.#inFlight = [];
      this.#maxReports = Math.min(BATCH_MAX_REPORTS, this.#maxReports * 2);
      this.#deliver(batch, answer);
      return true;
    } catch (error) {
      this.#inFlight = [];
      const again = this.#afterFailure(batch, ConnectError.from(error)).filter((one) => !this.#dropped.has(one));
      this.#queue = [...again, ...this.#queue];
      return false;
    }
  }

  /** The next batch: in order, within the limits, for the coordinator's present store. */
  #take(storeId: string): OutgoingReport[] | undefined {
    const batch: OutgoingReport[] = [];
    const left: OutgoingReport[] = [];
    const accepts = new Set<string>();
    const held = new Set<string>();
    let bytes = 0;
    for (const one of this.#queue) {
      const { leaseId, kind } = one.report;
      const foreign = one.storeId !== storeId;
      const full = batch.length >= this.#maxReports || (batch.length > 0 && bytes + one.bytes > BATCH_MAX_BYTES);
      if (foreign || full || held.has(leaseId) || accepts.has(leaseId)) {
        // A later report of the lease must not overtake this one.
        held.add(leaseId);
        left.push(one);
        continue;
      }
      if (kind === Report_Kind.ACCEPT) accepts.add(leaseId);
      batch.push(one);
      bytes += one.bytes;
    }
    this.#queue = left;
    return batch.length === 0 ? undefined : batch;
  }

  #deliver(batch: readonly OutgoingReport[], answer: ReportStatusResponse): void {
    for (const [i, one] of batch.entries()) {
      const verdict = answer.verdicts[i];
      if (verdict === undefined) this.#queue.push(one);
      else if (!this.#dropped.has(one))
        oneItem(this.#log, "the answer to a report", one.report, () => one.onVerdict(verdict));
    }
    this.#uplink.obey(answer.directives);
  }

  /** What of a batch that failed as a whole is to be sent again. */
  #afterFailure(batch: readonly OutgoingReport[], error: ConnectError): readonly OutgoingReport[] {
    const tooMuch = error.code === Code.ResourceExhausted || error.code === Code.InvalidArgument;
    if (!tooMuch) {
      this.#log.debug({ code: Code[error.code], reason: error.rawMessage }, "reports could not be sent");
      return batch;
    }
    const [only] = batch;
    if (batch.length > 1 || only === undefined) {
      // One of them may be the culprit: smaller batches find it.
      this.#maxReports = Math.max(1, Math.floor(batch.length / 2));
      return batch;
    }
    const cut = cutReport(only.report);
    const { runId: run_id, leaseId: lease_id, kind } = only.report;
    if (cut !== undefined) {
      this.#log.warn({ run_id, lease_id, bytes: only.bytes, reason: error.rawMessage }, "report cut and sent again");
      return [{ ...only, report: cut, bytes: Math.min(only.bytes, 4 * CUT_TEXT_BYTES) }];
    }
    if (error.code === Code.ResourceExhausted) return batch;
    this.#log.error({ run_id, lease_id, kind, reason: error.rawMessage }, "report refused; it is not repeated");
    only.onVerdict(
      create(ReportVerdictSchema, {
        leaseId: lease_id,
        seq: only.report.seq,
        kind: ReportVerdict_Kind.INVALID,
        message: error.rawMessage,
      }),
    );
    return [];
  }
}

/** The report with its texts, and its result's data, cut to 16 KiB; undefined when that changes nothing. */
function cutReport(report: Report): Report | undefined {
  const cut = clone(ReportSchema, report);
  cut.message = cutText(report.message, CUT_TEXT_BYTES);
  const resultChanged = cut.result !== undefined && boundResult(cut.result, CUT_TEXT_BYTES);
  return resultChanged || cut.message !== report.message ? cut : undefined;
}
