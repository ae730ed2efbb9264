import { create } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import type { ConnectRouter } from "@connectrpc/connect";
import { newId } from "../../lib/ids.ts";
import { RunState } from "../../gen/agentrunner/v1/run_pb.ts";
import type { Run } from "../../gen/agentrunner/v1/run_pb.ts";
import { RunService, WatchRunResponseSchema } from "../../gen/agentrunner/v1/run_service_pb.ts";
import type { CreateRunRequest, WatchRunRequest, WatchRunResponse } from "../../gen/agentrunner/v1/run_service_pb.ts";
import type { Caller } from "../access/auth.ts";
import { denied } from "../access/auth.ts";
import type { BlueprintDir } from "../blueprints/blueprint-dir.ts";
import type { Coordinator } from "../coordinator.ts";
import { cursorOf, placeOf } from "../store/cursors.ts";
import { durationMs, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { followEvents } from "../follow/follow-events.ts";

const DEFAULT_PAGE = 100;

/** What clients call to make and follow runs. Comments and errors are in run_service.proto. */
export function mountRunService(router: ConnectRouter, coordinator: Coordinator, blueprints: BlueprintDir): void {
  const { store, auth, config, dispatcher } = coordinator;

  const found = async (runId: string, caller: Caller): Promise<Run> => {
    const answer = await store.getRun(runId);
    if (answer === undefined) throw new ConnectError(`no run ${runId}`, Code.NotFound);
    await auth.mayUse(caller, answer.run.sessionId);
    const { run, requirements, waitsFor, refusals } = answer;
    if (waitsFor !== undefined) run.pendingReasons = [`waits for ${waitsFor} of its session`];
    else if (run.state === RunState.PENDING && requirements !== undefined) {
      const refused = refusals.map((reason) => `refused by ${reason}`);
      run.pendingReasons = [...(await dispatcher.explain(requirements)), ...refused];
    }
    return run;
  };

  /** An executor continues its own session's children and starts new ones; it does not act for others. */
  const mayCreate = async (caller: Caller, request: CreateRunRequest): Promise<void> => {
    if (caller.kind === "LOCAL") return;
    const { parentSessionId, sessionId, sessionName } = request;
    if (parentSessionId !== caller.sessionId) {
      throw denied(
        parentSessionId === "" ? "runs without parent_session_id" : `children of session ${parentSessionId}`,
      );
    }
    const named = sessionName === "" ? undefined : await store.getSession({ sessionName });
    const continued = named?.sessionId ?? sessionId;
    if (continued !== "") await auth.mayUse(caller, continued);
  };

  router.service(RunService, {
    async createRun(request, context) {
      await mayCreate(await auth.caller(context), request);
      const agentName = request.agentName || (await store.agentNameOf(request));
      const agent = agentName === "" ? undefined : await blueprints.lookUp(agentName);
      const ids = { runId: newId("run"), sessionId: newId("ses") };
      return { run: await coordinator.command(store.createRun(request, agent, ids, config, coordinator.now())) };
    },

    async getRun({ runId }, context) {
      return { run: await found(runId, await auth.caller(context)) };
    },

    async listRuns({ states, sessionId, runnerId, pageSize, pageToken }, context) {
      const caller = await auth.caller(context);
      const withinSessionId = caller.kind === "RUN" ? caller.sessionId : undefined;
      const size = pageSize || DEFAULT_PAGE;
      const page = await store.listRuns({ states, sessionId, runnerId, pageSize: size, pageToken, withinSessionId });
      return { runs: page.items, nextPageToken: page.next };
    },

    async stopRun({ runId, reason, grace, cascade }, context) {
      const caller = await auth.caller(context);
      if (caller.kind === "RUN") await found(runId, caller);
      const stop = {
        graceMs: grace === undefined ? config.stopGraceMs : durationMs(grace),
        reason: reason || (caller.kind === "RUN" ? `stopped by ${caller.runId}` : "stopped by a user"),
      };
      return coordinator.command(store.stopRun(runId, stop, cascade, coordinator.now()));
    },

    async *watchRun(request, context) {
      const run = await found(request.runId, await auth.caller(context));
      yield* watchRun(coordinator, request, run, context.signal);
    },

    async pruneRuns({ olderThan, dryRun }, context) {
      await auth.mustBeLocal(context);
      const before = coordinator.now() - (olderThan === undefined ? 0 : durationMs(olderThan));
      return { runs: BigInt(await coordinator.prune(before, dryRun)), before: timestampFromMs(before) };
    },
  });
}

async function* watchRun(
  coordinator: Coordinator,
  { runId, cursor }: WatchRunRequest,
  run: Run,
  signal: AbortSignal,
): AsyncGenerator<WatchRunResponse> {
  const { store } = coordinator;
  const { sessionId } = run;
  const after = placeOf(store.storeId, cursor);
  yield create(WatchRunResponseSchema, { cursor, update: { case: "run", value: run } });
  let last = cursor || cursorOf(store.storeId, after);
  const isOver = async (): Promise<boolean> => (await store.hasEnded(runId)) !== false;
  for await (const event of followEvents(coordinator, { sessionId, runId, after }, isOver, signal)) {
    if (event === undefined) {
      yield create(WatchRunResponseSchema, { cursor: last, update: { case: "keepalive", value: {} } });
      continue;
    }
    last = event.cursor;
    yield create(WatchRunResponseSchema, { cursor: last, update: { case: "event", value: event } });
  }
  const final = await store.getRun(runId);
  if (final === undefined) throw new ConnectError(`${runId} was deleted`, Code.NotFound);
  yield create(WatchRunResponseSchema, { cursor: last, update: { case: "run", value: final.run } });
}
