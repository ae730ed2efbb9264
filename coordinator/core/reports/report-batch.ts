/**
 * For each report of a batch, whether it has to wait: what follows an accept has to wait for its answer, which says whether there
 * is a lease at all (ADR 3).
 */
export function mustWait(reports: readonly { readonly leaseId: string; readonly isAccept: boolean }[]): boolean[] {
  const accepted = new Set<string>();
  return reports.map(({ leaseId, isAccept }) => {
    const waits = accepted.has(leaseId);
    if (isAccept) accepted.add(leaseId);
    return waits;
  });
}
