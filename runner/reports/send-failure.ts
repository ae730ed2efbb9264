import { Code } from "@connectrpc/connect";
import type { ConnectError } from "@connectrpc/connect";
import { isStoreTrouble } from "../../lib/rpc/error-info.ts";
import { httpStatusOf } from "../../lib/rpc/foreign-answers.ts";

/**
 * What a sender does after a batch that failed as a whole. It cuts or drops something only after `too-large` and `refused`,
 * and only when it was alone in its batch: every other failure says nothing about what was sent.
 */
export type Reaction =
  /** Sent again as it was. */
  | { readonly type: "repeat" }
  /** Sent again, in smaller batches: it took too long, or the connection broke under it. */
  | { readonly type: "smaller" }
  /** Something on the way takes no message of this size: smaller batches, now and later. */
  | { readonly type: "too-large" }
  /** One of the batch makes no sense to the coordinator: smaller batches find it. */
  | { readonly type: "refused" };

/** Decides by the error alone. RESOURCE_EXHAUSTED has many meanings, so it is none of the last two. */
export function reactionTo(error: ConnectError): Reaction {
  if (isStoreTrouble(error)) return { type: "repeat" };
  if (httpStatusOf(error) === 413) return { type: "too-large" };
  if (error.code === Code.InvalidArgument) return { type: "refused" };
  return { type: "smaller" };
}
