import { create } from "@bufbuild/protobuf";
import { durationMs, timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { ConnectRouter } from "@connectrpc/connect";
import { bug } from "../../lib/bug.ts";
import { newId } from "../../lib/ids.ts";
import { notFound } from "../../lib/rpc/error-info.ts";
import { REFUSED_BY } from "../../lib/protocol/pending.ts";
import { RunState } from "../../gen/agentrunner/v1/run_pb.ts";
import type { Run } from "../../gen/agentrunner/v1/run_pb.ts";
import { RunService, WatchRunResponseSchema } from "../../gen/agentrunner/v1/run_service_pb.ts";
import type { WatchRunRequest, WatchRunResponse } from "../../gen/agentrunner/v1/run_service_pb.ts";
import { callerOf, treeOf } from "../access/caller.ts";
import type { BlueprintDir } from "../blueprints/blueprint-dir.ts";
import type { Coordinator } from "../coordinator.ts";
import { followEvents } from "../follow/follow-events.ts";
import { judgedAgent } from "./judged.ts";
import { pageSizeOf } from "./page-size.ts";

/** Runs that FindRuns returns when it is not told how many. */
const FOUND_RUNS = 10;

const ABBREVIATED = { runId: "run-id", sessionId: "session-id", requestId: "request-id" } as const;

/** What clients call to make and follow runs. Comments and errors are in run_service.proto. */
export function mountRunService(router: ConnectRouter, coordinator: Coordinator, blueprints: BlueprintDir): void {
  const { store, config, dispatcher } = coordinator;

  const found = async (runId: string): Promise<Run> => {
    const stored = await store.getRun(runId);
    if (stored === undefined) throw notFound("RUN_NOT_FOUND", `no run ${runId}`);
    const { run, requirements, waitsFor, refusals, unmatchedSince } = stored;
    if (waitsFor !== undefined) run.pendingReasons = [`waits for ${waitsFor} of its session`];
    else if (run.state === RunState.PENDING && requirements !== undefined) {
      const refused = refusals.map((reason) => REFUSED_BY + reason);
      run.pendingReasons = [...refused, ...(await dispatcher.explain(requirements))];
      // The clock of a run that was made this moment is still to be stored.
      const since = unmatchedSince ?? (dispatcher.suitsNobody(requirements) ? coordinator.now() : undefined);
      if (since !== undefined && config.noMatchTimeoutMs > 0)
        run.noMatchAt = timestampFromMs(since + config.noMatchTimeoutMs);
    }
    return run;
  };

  router.service(RunService, {
    async createRun(request) {
      const agent = await judgedAgent(coordinator, blueprints, request);
      const ids = { runId: newId("run"), sessionId: newId("ses") };
      return { run: await coordinator.command(store.createRun(request, agent, ids, config, coordinator.now())) };
    },

    async getRun({ runId }) {
      return { run: await found(runId) };
    },

    async listRuns(request, context) {
      const { states, sessionId, runnerId, pageToken } = request;
      const withinSessionId = treeOf(context);
      const query = { states, sessionId, runnerId, pageSize: pageSizeOf(request), pageToken, withinSessionId };
      const page = await store.listRuns(query);
      return { runs: page.items, nextPageToken: page.next };
    },

    async findRuns({ prefix, limit }, context) {
      const type = prefix.case === undefined ? undefined : ABBREVIATED[prefix.case];
      if (type === undefined) throw bug("FIND1", "validation let a request without a prefix pass");
      const query = { type, prefix: prefix.value ?? "", limit: limit || FOUND_RUNS, withinSessionId: treeOf(context) };
      return store.findRuns(query);
    },

    async stopRun({ runId, reason, grace, cascade }, context) {
      const caller = callerOf(context);
      const stop = {
        graceMs: grace === undefined ? config.stopGraceMs : durationMs(grace),
        reason: reason || (caller.type === "run" ? `stopped by ${caller.runId}` : "stopped by a user"),
      };
      return coordinator.command(store.stopRun(runId, stop, cascade, coordinator.now()));
    },

    async *watchRun(request, context) {
      yield* watchRun(coordinator, request, await found(request.runId), context.signal);
    },

    async pruneRuns({ olderThan, dryRun }, { signal }) {
      const before = Math.max(0, coordinator.now() - (olderThan === undefined ? 0 : durationMs(olderThan)));
      return { runs: BigInt(await coordinator.prune(before, dryRun, signal)), before: timestampFromMs(before) };
    },

    async backupStore({ path }) {
      const bytes = await store.backup(path);
      coordinator.log.info({ path, bytes }, "the store was copied");
      return { path, bytes: BigInt(bytes) };
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
  const after = store.cursors.placeOf(cursor);
  let last = cursor || store.cursors.cursorOf(after);
  yield create(WatchRunResponseSchema, { cursor: last, update: { case: "run", value: run } });
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
  if (final === undefined) throw notFound("RUN_NOT_FOUND", `${runId} was deleted`);
  yield create(WatchRunResponseSchema, { cursor: last, update: { case: "run", value: final.run } });
}
