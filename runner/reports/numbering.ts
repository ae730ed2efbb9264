import { ReportVerdict_Kind } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import type { Report, ReportVerdict } from "../../gen/agentrunner/v1/runner_service_pb.ts";

/** Times that reports of one lease get other numbers: a counter that is behind is set right by the first. */
export const MAX_RENUMBERED = 8;

/** The numbers that the reports of one lease have. */
export interface Numbering {
  /** The last that was given. */
  readonly seq: bigint;
  /** Times that a report got another one. */
  readonly renumbered: number;
}

export const UNNUMBERED: Numbering = { seq: 0n, renumbered: 0 };

/** The number of the next report. */
export function numbered({ seq, renumbered }: Numbering): Numbering {
  return { seq: seq + 1n, renumbered };
}

/**
 * The numbering with a free number for a report, when the coordinator says that the report's own was used by another one: the
 * counter of this process is behind, as after an older copy of the state directory came back. Undefined for every other
 * verdict, and when that was said too often.
 */
export function renumbered(
  before: Numbering,
  report: Pick<Report, "seq">,
  { kind, nextSeq }: Pick<ReportVerdict, "kind" | "nextSeq">,
): Numbering | undefined {
  if (kind !== ReportVerdict_Kind.INVALID || nextSeq <= report.seq) return undefined;
  if (before.renumbered === MAX_RENUMBERED) return undefined;
  // Later reports may have taken numbers meanwhile.
  const seq = before.seq < nextSeq ? nextSeq : before.seq + 1n;
  return { seq, renumbered: before.renumbered + 1 };
}
