import type { SessionEvent } from "../../gen/agentrunner/v1/session_pb.ts";
import type { Coordinator } from "../coordinator.ts";

/** Events, and bytes of them, that are read for a follower at a time. No more is ever held for one that reads slowly. */
const PAGE = 200;
const PAGE_MAX_BYTES = 1024 * 1024;

/**
 * Events of a session, or of one of its runs (`runId` is not empty), after the place `after`, as they happen; undefined
 * when none happened for `streamKeepaliveMs`. Ends when `isOver` returns true and every event was yielded; throws the
 * reason of the signal when the call was ended.
 *
 * It subscribes to changes before it reads, so it misses none, and reads after the last one yielded, so it repeats none.
 */
export async function* followEvents(
  { store, watchers, config }: Coordinator,
  { sessionId, runId, after }: { sessionId: string; runId: string; after: number },
  isOver: () => Promise<boolean>,
  signal: AbortSignal,
): AsyncGenerator<SessionEvent | undefined> {
  const subscription = watchers.subscribe(sessionId);
  try {
    for (let place = after; ;) {
      signal.throwIfAborted();
      const over = await isOver();
      const page = await store.listEvents({ sessionId, runId, after: place, limit: PAGE, maxBytes: PAGE_MAX_BYTES });
      place = page.next;
      yield* page.events;
      if (page.more) continue;
      if (over) return;
      if (page.events.length > 0) continue;
      if (!(await subscription.changed(config.streamKeepaliveMs, signal)) && !signal.aborted) yield undefined;
    }
  } finally {
    subscription.close();
  }
}
