/**
 * Reports that were applied under a lease, oldest first, each with its number and the number of its kind. Kind 0 is what
 * a store knows that did not keep kinds: any report up to that number.
 */
export type Recorded = readonly (readonly [seq: number, kind: number])[];

/** Reports of one kind that are remembered: repeats come soon after the report, and progress has no end. */
const REMEMBERED_OF_A_KIND = 4;

/** Adds a report that was applied. */
export function remember(recorded: Recorded, seq: number, kind: number): Recorded {
  const same = recorded.filter((one) => one[1] === kind);
  const forgotten = same.length < REMEMBERED_OF_A_KIND ? undefined : same[0];
  return [...recorded.filter((one) => one !== forgotten), [seq, kind]];
}

/** A report whose number is not above the last one applied, as far as numbers say. */
export type Low = "repeat" | "other";

/**
 * Tells the repeat of a report from another report with a low number (ADR 3). A final report under a lease that counts
 * was never applied: what applied it would have ended the lease.
 */
export function lowReport(recorded: Recorded, seq: number, kind: number, finalUnderLiveLease: boolean): Low {
  const applied = recorded.some(([of, was]) => {
    if (was === 0) return seq <= of && !finalUnderLiveLease;
    return of === seq && was === kind;
  });
  return applied ? "repeat" : "other";
}

/** What a runner is told whose report has a low number and was not applied before. */
export function lowSeqMessage(seq: bigint, lastSeq: number): string {
  return `seq ${seq} is not above ${lastSeq}, and no report of this kind was applied under it; send ${lastSeq + 1}`;
}
