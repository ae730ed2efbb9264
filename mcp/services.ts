import type { Transport } from "@connectrpc/connect";
import { servicesOver, withToken } from "../client/connect.ts";
import type { Services } from "../client/connect.ts";
import { withPatience } from "../client/retry.ts";

/** How a coordinator is reached. Watches may have a connection of their own, so that no call waits for a stream to be free. */
export interface Links {
  readonly calls: Transport;
  readonly watches: Transport;
}

/** Time in which a restarting coordinator comes back without the tool noticing; with 45 s of waiting it stays under 60 s. */
const PATIENCE_MS = 10_000;

/** The services, called with this token, or as a local user without one. A call that meets no coordinator is repeated for `patienceMs`. */
export function servicesOf(
  { calls, watches }: Links,
  token: string | undefined,
  patienceMs: number = PATIENCE_MS,
): Services {
  const both: Transport = {
    unary: (...call) => calls.unary(...call),
    stream: (...call) => watches.stream(...call),
  };
  return servicesOver(withPatience(withToken(both, token), patienceMs));
}
