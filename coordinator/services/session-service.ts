import { create } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import type { ConnectRouter } from "@connectrpc/connect";
import type { Session } from "../../gen/agentrunner/v1/session_pb.ts";
import { SessionService, WatchSessionResponseSchema } from "../../gen/agentrunner/v1/session_service_pb.ts";
import type { Caller } from "../access/auth.ts";
import type { Coordinator } from "../coordinator.ts";
import { cursorOf, placeOf } from "../store/cursors.ts";
import { followEvents } from "../follow/follow-events.ts";

const DEFAULT_PAGE = 100;

/** Most bytes of events in one answer: well below a message. */
const EVENTS_MAX_BYTES = 2 * 1024 * 1024;

/** What clients call to read and follow sessions. Comments and errors are in session_service.proto. */
export function mountSessionService(router: ConnectRouter, coordinator: Coordinator): void {
  const { store, auth } = coordinator;
  const { method } = SessionService;

  const found = async (key: Parameters<typeof store.getSession>[0], caller: Caller): Promise<Session> => {
    const session = await store.getSession(key);
    if (session === undefined) throw new ConnectError(`no session ${Object.values(key).join("")}`, Code.NotFound);
    await auth.mayUse(caller, session.sessionId);
    return session;
  };

  router.rpc(method.getSession, async ({ sessionId, sessionName }, context) => {
    const key = sessionId === "" ? { sessionName } : { sessionId };
    return { session: await found(key, await auth.caller(context)) };
  });

  router.rpc(method.listSessions, async ({ statuses, parentSessionId, pageSize, pageToken }, context) => {
    const caller = await auth.caller(context);
    const withinSessionId = caller.kind === "RUN" ? caller.sessionId : undefined;
    const size = pageSize || DEFAULT_PAGE;
    const page = await store.listSessions({ statuses, parentSessionId, pageSize: size, pageToken, withinSessionId });
    return { sessions: page.items, nextPageToken: page.next };
  });

  router.rpc(method.listSessionEvents, async ({ sessionId, runId, cursor, pageSize }, context) => {
    await auth.mayUse(await auth.caller(context), sessionId);
    const page = await store.listEvents({
      sessionId,
      runId,
      after: placeOf(store.storeId, cursor),
      limit: pageSize || DEFAULT_PAGE,
      maxBytes: EVENTS_MAX_BYTES,
    });
    return { events: page.events, nextCursor: cursorOf(store.storeId, page.next), more: page.more };
  });

  router.rpc(method.watchSession, async function* ({ sessionId, cursor }, context) {
    await found({ sessionId }, await auth.caller(context));
    const after = placeOf(store.storeId, cursor);
    let last = cursorOf(store.storeId, after);
    const never = (): Promise<boolean> => Promise.resolve(false);
    for await (const event of followEvents(coordinator, { sessionId, runId: "", after }, never, context.signal)) {
      if (event !== undefined) last = event.cursor;
      const update =
        event === undefined ? ({ case: "keepalive", value: {} } as const) : ({ case: "event", value: event } as const);
      yield create(WatchSessionResponseSchema, { cursor: last, update });
    }
  });

  router.rpc(method.updateSession, async (request, context) => {
    await auth.mayUse(await auth.caller(context), request.sessionId);
    return { session: await coordinator.command(store.updateSession(request)) };
  });

  router.rpc(method.deleteSession, async ({ sessionId }, context) => {
    const caller = await auth.caller(context);
    await auth.mayUse(caller, sessionId);
    await coordinator.command(store.deleteSession(sessionId));
    return {};
  });

  router.rpc(method.getSessionResult, async ({ sessionId, runId }, context) => {
    await auth.mayUse(await auth.caller(context), sessionId);
    const run = await store.sessionResult(sessionId, runId);
    const { state, failure, message, result } = run;
    return { runId: run.runId, state, failure, message, ...(result === undefined ? {} : { result }) };
  });
}
