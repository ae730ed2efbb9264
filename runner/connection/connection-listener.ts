import type { HeldLease, LeaseVerdict, StopDirective } from "../../gen/agentrunner/v1/runner_pb.ts";
import type { RunOffer } from "../../gen/agentrunner/v1/runner_service_pb.ts";

/** What a connection and its heartbeat ask and tell. Nothing here may throw or block. */
export interface ConnectionListener {
  /** Leases for `held`, at most 2,000. */
  held(): HeldLease[];
  readonly freeSlots: number;
  readonly draining: boolean;
  /** Registered with a coordinator of this store, for the first time or again; before the stream is opened. */
  registered(storeId: string): void;
  offered(offer: RunOffer): void;
  stopped(stop: StopDirective): void;
  /** The coordinator wants the runner to take no more runs, and to end when it has none. */
  drained(reason: string): void;
  verdicts(verdicts: readonly LeaseVerdict[]): void;
}
