import { Code, ConnectError } from "@connectrpc/connect";
import { reasonOf } from "../lib/rpc/error-info.ts";
import type { ErrorReason } from "../lib/rpc/error-info.ts";

/**
 * What a caller receives when a connection breaks or a coordinator ends. Every other code is an answer, which repeating does
 * not change.
 *
 * CANCELED is what connect-node makes of the reset that a killed process leaves behind; a caller that cancels knows so from
 * its own signal. DEADLINE_EXCEEDED belongs to the set because no caller puts a deadline on a watch: a watch that receives it
 * was ended by a proxy on the way. It makes no unary call longer: there the deadline is what is left of the caller's
 * patience, and `retry` gives up when that is over.
 */
const TRANSIENT: ReadonlySet<Code> = new Set([Code.Unavailable, Code.Canceled, Code.Aborted, Code.DeadlineExceeded]);

/** True when the same call may succeed a moment later. A full disk is not of that kind: a person has to make room. */
export function isTransient(error: unknown): error is ConnectError {
  if (!(error instanceof ConnectError) || !TRANSIENT.has(error.code)) return false;
  return reasonOf(error) !== ("STORE_FULL" satisfies ErrorReason);
}

/** True when a cursor was made by another store than the coordinator has now. Events after it are not there any more. */
export function isOfAnotherStore(error: unknown): error is ConnectError {
  return error instanceof ConnectError && error.code === Code.OutOfRange;
}
