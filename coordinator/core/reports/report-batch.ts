/** What a batch of reports is refused for: what follows an accept has to wait for its answer (ADR 3). */
export function leaseWithReportAfterAccept(
  reports: readonly { readonly leaseId: string; readonly isAccept: boolean }[],
): string | undefined {
  const accepted = new Set<string>();
  for (const { leaseId, isAccept } of reports) {
    if (accepted.has(leaseId)) return leaseId;
    if (isAccept) accepted.add(leaseId);
  }
  return undefined;
}
