import type { SessionEvent } from "../../gen/agentrunner/v1/session_pb.ts";
import type { Coordinator } from "../coordinator.ts";

/** Events, and bytes of them, that are read for a follower at a time: all that is ever held for one that reads slowly. */
const PAGE = 200;
const PAGE_MAX_BYTES = 1024 * 1024;

/**
 * Events of a session, or of one of its runs, behind `after`, as they come; undefined where nothing came for a
 * keep-alive. Ends when `isOver` says so and every event was given; throws what ended the call.
 *
 * It is told of changes before it reads, so none is missed, and reads behind the last one given, so none is repeated.
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
