import type { Run } from "../gen/agentrunner/v1/run_pb.ts";
import type { WatchRunResponse } from "../gen/agentrunner/v1/run_service_pb.ts";
import type { SessionEvent } from "../gen/agentrunner/v1/session_pb.ts";
import { isFinalState } from "../lib/protocol/final.ts";
import type { Services } from "./connect.ts";
import type { Cursors } from "./cursors.ts";
import { watch } from "./watch.ts";
import type { Received, WatchOptions } from "./watch.ts";

/** What a follower of a run sees: the run as it was found, each event once, and the run as it ended. */
export type RunUpdate =
  | { readonly type: "found"; readonly run: Run; readonly message: WatchRunResponse }
  | { readonly type: "event"; readonly event: SessionEvent; readonly message: WatchRunResponse }
  | { readonly type: "ended"; readonly run: Run; readonly message: WatchRunResponse };

export interface RunWatchOptions extends Pick<
  WatchOptions<never>,
  "signal" | "otherStore" | "onAway" | "onBack" | "patience"
> {
  /** Told of the place at which the run ended, so that a wait for its session goes on from there. */
  readonly cursors?: Cursors;
}

/**
 * Follows a run to its end, across restarts of the coordinator. Ends earlier only when the signal aborts.
 *
 * @throws ConnectError as `watch` does.
 */
export async function* watchRun(
  { runs }: Pick<Services, "runs">,
  runId: string,
  { cursors, ...options }: RunWatchOptions,
): AsyncGenerator<RunUpdate, void> {
  let found = false;
  const open = (cursor: string, signal: AbortSignal) => runs.watchRun({ runId, cursor }, { signal });
  for await (const item of watch({ ...options, open, isLast: isEnd })) {
    const { message } = item;
    const { update } = message;
    if (update.case === "event") yield { type: "event", event: update.value, message };
    if (update.case !== "run") continue;
    if (isEnd(item)) {
      cursors?.reached(update.value.sessionId, message.cursor);
      yield { type: "ended", run: update.value, message };
    } else if (!found) yield { type: "found", run: update.value, message };
    found = true;
  }
}

/** The first message of every stream is the run as it is; a later one says that it is over. */
function isEnd({ message: { update }, first }: Received<WatchRunResponse>): boolean {
  return update.case === "run" && !first && isFinalState(update.value.state);
}
