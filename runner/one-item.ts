import type { Log } from "../lib/log.ts";

/**
 * Handles one item of many: an offer, an order, a verdict. What it throws is this item's trouble: it is logged with the
 * item's run, and neither the other items nor the stream or call that brought it notice.
 */
export function oneItem(log: Log, what: string, item: { runId?: string; leaseId?: string }, handle: () => void): void {
  try {
    handle();
  } catch (error) {
    log.error({ err: error, run_id: item.runId, lease_id: item.leaseId }, `${what} could not be handled`);
  }
}
