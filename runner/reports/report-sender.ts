import { clone, create, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { boundResult } from "../../lib/protocol/bound-result.ts";
import {
  ReportSchema,
  ReportVerdictSchema,
  ReportVerdict_Kind,
  Report_Kind,
} from "../../gen/agentrunner/v1/runner_service_pb.ts";
import type { Report, ReportStatusResponse, ReportVerdict } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import { CLIENT_WRITE_MAX_BYTES, cutText } from "../../lib/protocol/limits.ts";
import type { Log } from "../../lib/log.ts";
import { oneItem } from "../one-item.ts";
import { BatchSender } from "./batch-sender.ts";
import { BatchSize } from "./batch-size.ts";
import { reactionTo } from "./send-failure.ts";
import { SendTrouble } from "./send-trouble.ts";
import type { Uplink } from "./uplink.ts";

/** The protocol's limit of one ReportStatus. */
const BATCH_MAX_REPORTS = 500;

/** Larger reports, which carry results, have a lane of their own. */
const SMALL_MAX_BYTES = 16 * 1024;

/** Largest report that fits in a message, with what the request says beside it. */
const REPORT_MAX_BYTES = CLIENT_WRITE_MAX_BYTES - 1024;

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

/** Sends a batch of about `bytes`; `large` ones must not stand in the way of others. Rejects with ConnectError. */
export type SendReports = (reports: Report[], bytes: number, large: boolean) => Promise<ReportStatusResponse>;

/** Small reports overtake large ones: each kind has one call in flight. */
interface Lane {
  readonly large: boolean;
  readonly batches: BatchSender<OutgoingReport[]>;
  readonly size: BatchSize;
  readonly trouble: SendTrouble;
  inFlight: readonly OutgoingReport[];
}

/**
 * Sends the reports of all leases, each until it is answered. One ReportStatus of small and one of large reports is in
 * flight; what comes meanwhile goes together in the next. The reports of one lease keep their order, and what follows an
 * ACCEPT waits for its answer. What is refused because the coordinator, or the way to it, is in trouble is sent again as it
 * was; a report is cut only when it is larger than a message may be.
 *
 * The queue is bounded by its callers: a lease has at most a handful of reports that are not answered.
 */
export class ReportSender {
  readonly #uplink: Uplink;
  readonly #send: SendReports;
  readonly #log: Log;
  readonly #lanes: readonly Lane[];
  #queue: OutgoingReport[] = [];
  readonly #dropped = new WeakSet<OutgoingReport>();

  constructor(uplink: Uplink, send: SendReports, log: Log) {
    this.#uplink = uplink;
    this.#send = send;
    this.#log = log;
    this.#lanes = [this.#lane(false, "reports"), this.#lane(true, "large reports")];
  }

  #lane(large: boolean, what: string): Lane {
    const lane: Lane = {
      large,
      batches: new BatchSender(this.#uplink, {
        take: (storeId) => this.#take(lane, storeId),
        attempt: (batch) => this.#attempt(lane, batch),
      }),
      size: new BatchSize(BATCH_MAX_REPORTS),
      trouble: new SendTrouble(what, this.#log),
      inFlight: [],
    };
    return lane;
  }

  send(outgoing: OutgoingReport): void {
    this.#queue.push(outgoing);
    this.wake();
  }

  /** Takes back every unanswered report of a lease; one that is in flight may still arrive, and is not repeated. */
  drop(leaseId: string): void {
    this.#queue = this.#queue.filter(({ report }) => report.leaseId !== leaseId);
    for (const one of this.#inFlight()) if (one.report.leaseId === leaseId) this.#dropped.add(one);
  }

  /** Looks again whether something can be sent: the coordinator may have another store now. */
  wake(): void {
    for (const { batches } of this.#lanes) batches.wake();
  }

  /**
   * Sends what waits of a lease now, instead of at the end of a pause. What is in flight is not repeated. False when
   * nothing of the lease waits or is in flight.
   */
  hurry(leaseId: string): boolean {
    const ofLease = ({ report }: OutgoingReport) => report.leaseId === leaseId;
    if (this.#queue.some(ofLease)) for (const { batches } of this.#lanes) batches.hurry();
    return this.#queue.some(ofLease) || this.#inFlight().some(ofLease);
  }

  #inFlight(): OutgoingReport[] {
    return this.#lanes.flatMap(({ inFlight }) => inFlight);
  }

  async #attempt(lane: Lane, taken: readonly OutgoingReport[]): Promise<boolean> {
    const batch = this.#fitting(taken);
    const bytes = sum(batch);
    const sentAtMs = performance.now();
    lane.inFlight = batch;
    let progress = false;
    try {
      const reports = batch.map(({ report }) => report);
      const answer = await this.#send(reports, bytes, lane.large);
      lane.inFlight = [];
      lane.size.answered(bytes, performance.now() - sentAtMs);
      progress = this.#deliver(lane, batch, answer);
    } catch (error) {
      lane.inFlight = [];
      this.#putBack(this.#afterFailure(lane, batch, ConnectError.from(error)));
    }
    // What waits in the other lane may have waited for this answer.
    this.wake();
    return progress;
  }

  /** The next batch: in order, within the limits, for the coordinator's present store. */
  #take({ large, size }: Lane, storeId: string): OutgoingReport[] | undefined {
    const batch: OutgoingReport[] = [];
    const left: OutgoingReport[] = [];
    const accepts = new Set<string>();
    // A later report of a lease must not overtake one that waits, or one on its way in the other lane.
    const held = new Set(this.#inFlight().map(({ report }) => report.leaseId));
    let bytes = 0;
    for (const one of this.#queue) {
      const { leaseId, kind } = one.report;
      const foreign = one.storeId !== storeId || one.bytes > SMALL_MAX_BYTES !== large;
      const full = batch.length >= size.maxItems || (batch.length > 0 && bytes + one.bytes > size.maxBytes);
      if (foreign || full || held.has(leaseId) || accepts.has(leaseId)) {
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

  /** The batch, its only report cut when that is too large for a message. */
  #fitting(batch: readonly OutgoingReport[]): readonly OutgoingReport[] {
    const [only] = batch;
    if (batch.length > 1 || only === undefined || only.bytes <= REPORT_MAX_BYTES) return batch;
    // `bytes` may be an upper bound.
    const bytes = toBinary(ReportSchema, only.report).length;
    if (bytes <= REPORT_MAX_BYTES) return batch;
    return [this.#cut(only, `it has ${bytes} bytes, and a message at most ${REPORT_MAX_BYTES}`) ?? only];
  }

  /** False when it answered none of the batch. */
  #deliver(lane: Lane, batch: readonly OutgoingReport[], answer: ReportStatusResponse): boolean {
    const verdicts = new Map(answer.verdicts.map((verdict) => [keyOf(verdict), verdict]));
    const unanswered = batch.filter(({ report }) => !verdicts.has(keyOf(report)));
    this.#putBack(unanswered);
    for (const one of batch) {
      const verdict = verdicts.get(keyOf(one.report));
      if (verdict === undefined || this.#dropped.has(one)) continue;
      oneItem(this.#log, "the answer to a report", one.report, () => one.onVerdict(verdict));
    }
    this.#uplink.obey(answer.directives);
    if (unanswered.length === 0) {
      lane.trouble.over();
      return true;
    }
    const reason = `the coordinator answered ${batch.length - unanswered.length} of ${batch.length} reports`;
    lane.trouble.failed(Code.Unknown, reason, sum(batch));
    return unanswered.length < batch.length;
  }

  #putBack(reports: readonly OutgoingReport[]): void {
    this.#queue = [...reports.filter((one) => !this.#dropped.has(one)), ...this.#queue];
  }

  /** What of a batch that failed as a whole is to be sent again. */
  #afterFailure(lane: Lane, batch: readonly OutgoingReport[], error: ConnectError): readonly OutgoingReport[] {
    const bytes = sum(batch);
    lane.trouble.failed(error.code, error.rawMessage, bytes);
    const { type } = reactionTo(error);
    if (type === "smaller") lane.size.failed(bytes);
    if (type === "too-large") lane.size.tooLarge(bytes);
    if (type === "refused") lane.size.refused(batch.length);
    const [only] = batch;
    if (type === "repeat" || type === "smaller" || batch.length > 1 || only === undefined) return batch;
    const cut = this.#cut(only, error.rawMessage);
    if (cut !== undefined) return [cut];
    // Something on the way that takes not even this may be taken away from there.
    if (type === "too-large") return batch;
    this.#refused(only, error.rawMessage);
    return [];
  }

  #refused({ report, onVerdict }: OutgoingReport, message: string): void {
    const { runId: run_id, leaseId, seq, kind } = report;
    this.#log.error({ run_id, lease_id: leaseId, kind, reason: message }, "report refused; it is not repeated");
    onVerdict(create(ReportVerdictSchema, { leaseId, seq, kind: ReportVerdict_Kind.INVALID, message }));
  }

  /** The report cut to what surely fits; undefined when there is nothing to cut. */
  #cut(one: OutgoingReport, reason: string): OutgoingReport | undefined {
    const report = cutReport(one.report);
    if (report === undefined) return undefined;
    const { runId: run_id, leaseId: lease_id } = one.report;
    this.#log.warn({ run_id, lease_id, bytes: one.bytes, reason }, "report cut and sent again");
    return { ...one, report, bytes: Math.min(one.bytes, 4 * CUT_TEXT_BYTES) };
  }
}

function sum(batch: readonly OutgoingReport[]): number {
  return batch.reduce((total, { bytes }) => total + bytes, 0);
}

/** A verdict is of the report that it names, wherever it stands in the answer. */
function keyOf({ leaseId, seq }: { readonly leaseId: string; readonly seq: bigint }): string {
  return `${leaseId} ${seq}`;
}

/** The report with its texts, and its result's data, cut to 16 KiB; undefined when that changes nothing. */
function cutReport(report: Report): Report | undefined {
  const cut = clone(ReportSchema, report);
  cut.message = cutText(report.message, CUT_TEXT_BYTES);
  const resultChanged = cut.result !== undefined && boundResult(cut.result, CUT_TEXT_BYTES);
  return resultChanged || cut.message !== report.message ? cut : undefined;
}
