import { create } from "@bufbuild/protobuf";
import { notFound } from "../../lib/rpc/error-info.ts";
import type { ConnectRouter } from "@connectrpc/connect";
import type { Session } from "../../gen/agentrunner/v1/session_pb.ts";
import { SessionService, WatchSessionResponseSchema } from "../../gen/agentrunner/v1/session_service_pb.ts";
import type { WatchSessionRequest, WatchSessionResponse } from "../../gen/agentrunner/v1/session_service_pb.ts";
import { treeOf } from "../access/caller.ts";
import type { Coordinator } from "../coordinator.ts";
import { followEvents } from "../follow/follow-events.ts";
import { pageSizeOf } from "./page-size.ts";

/** Most bytes of events in one response: well below the largest message. */
const EVENTS_MAX_BYTES = 2 * 1024 * 1024;

/** What clients call to read and follow sessions. Comments and errors are in session_service.proto. */
export function mountSessionService(router: ConnectRouter, coordinator: Coordinator): void {
  const { store } = coordinator;

  const found = async (key: Parameters<typeof store.getSession>[0]): Promise<Session> => {
    const session = await store.getSession(key);
    if (session === undefined) throw notFound("SESSION_NOT_FOUND", `no session ${Object.values(key).join("")}`);
    return session;
  };

  router.service(SessionService, {
    async getSession({ sessionId, sessionName }) {
      return { session: await found(sessionId === "" ? { sessionName } : { sessionId }) };
    },

    async listSessions(request, context) {
      const { statuses, parentSessionId, pageToken } = request;
      const withinSessionId = treeOf(context);
      const query = { statuses, parentSessionId, pageSize: pageSizeOf(request), pageToken, withinSessionId };
      const page = await store.listSessions(query);
      return { sessions: page.items, nextPageToken: page.next };
    },

    async listSessionEvents(request) {
      const { sessionId, runId, cursor } = request;
      const page = await store.listEvents({
        sessionId,
        runId,
        after: store.cursors.placeOf(cursor),
        limit: pageSizeOf(request),
        maxBytes: EVENTS_MAX_BYTES,
      });
      return { events: page.events, nextCursor: store.cursors.cursorOf(page.next), more: page.more };
    },

    async *watchSession(request, { signal }) {
      await found({ sessionId: request.sessionId });
      yield* watchSession(coordinator, request, signal);
    },

    async updateSession(request) {
      return { session: await coordinator.command(store.updateSession(request)) };
    },

    async deleteSession({ sessionId }) {
      await coordinator.deleteSession(sessionId);
      return {};
    },

    async getSessionResult({ sessionId, runId: wanted }) {
      const { runId, state, failure, message, result } = await store.sessionResult(sessionId, wanted);
      return { runId, state, failure, message, ...(result === undefined ? {} : { result }) };
    },
  });
}

/** Ends only when the client leaves. */
async function* watchSession(
  coordinator: Coordinator,
  { sessionId, cursor }: WatchSessionRequest,
  signal: AbortSignal,
): AsyncGenerator<WatchSessionResponse> {
  const { cursors } = coordinator.store;
  const after = cursors.placeOf(cursor);
  let last = cursors.cursorOf(after);
  const never = (): Promise<boolean> => Promise.resolve(false);
  for await (const event of followEvents(coordinator, { sessionId, runId: "", after }, never, signal)) {
    if (event !== undefined) last = event.cursor;
    const update =
      event === undefined ? ({ case: "keepalive", value: {} } as const) : ({ case: "event", value: event } as const);
    yield create(WatchSessionResponseSchema, { cursor: last, update });
  }
}
