import { randomUUID } from "node:crypto";
import type { JsonObject, MessageInitShape } from "@bufbuild/protobuf";
import { ExecutionMode, RunState, RunStateSchema } from "../gen/agentrunner/v1/run_pb.ts";
import type { Run } from "../gen/agentrunner/v1/run_pb.ts";
import type { CreateRunRequestSchema } from "../gen/agentrunner/v1/run_service_pb.ts";
import { isFinalState } from "../lib/protocol/final.ts";
import type { ToolCaller } from "./caller.ts";
import { ToolError } from "./errors.ts";
import { facts, nameOf, resultView, runView, word } from "./views.ts";
import { firstOf, runEnd, runStuck } from "./waiting.ts";

/** How the caller learns of the end of what it starts. */
export const MODES = ["sync", "async_poll", "async_callback"] as const;
export type Mode = (typeof MODES)[number];

const EXECUTION_MODES: Readonly<Record<Mode, ExecutionMode>> = {
  sync: ExecutionMode.SYNC,
  async_poll: ExecutionMode.ASYNC_POLL,
  async_callback: ExecutionMode.ASYNC_CALLBACK,
};

type NewRun = Omit<MessageInitShape<typeof CreateRunRequestSchema>, "$typeName">;

/** Creates a run, and with mode sync waits for its end, but not for one that no runner can take now. */
export async function begin(
  caller: ToolCaller,
  request: NewRun,
  { mode, requestId }: { mode: Mode; requestId: string | undefined },
  signal: AbortSignal,
): Promise<JsonObject> {
  const { services, sessionId, waits, waitMs } = caller;
  if (mode === "async_callback" && sessionId === undefined) {
    throw new ToolError(
      "mode async_callback resumes the session that calls, and this caller has none. " +
        "Use async_poll and then wait_for_agent_sessions.",
    );
  }
  const waiting = AbortSignal.any([signal, AbortSignal.timeout(waitMs)]);
  const { run } = await services.runs.createRun(
    {
      ...request,
      // Ids of different callers must not meet.
      requestId: `mcp:${sessionId ?? ""}:${requestId ?? randomUUID()}`,
      executionMode: EXECUTION_MODES[mode],
      parentSessionId: sessionId ?? "",
    },
    { signal },
  );
  if (run === undefined) throw new ToolError("the coordinator did not say which run it made; see list_agent_sessions");
  if (mode !== "sync") return started(run, NEXT[mode]);
  const { runId } = run;
  const known = await waits.within(1, () => firstOf([runEnd(services, runId), runStuck(services, runId)], waiting));
  const last = known ?? (await services.runs.getRun({ runId }, { signal })).run ?? run;
  return isFinalState(last.state) ? outcome(last) : { ...started(last, nextOf(last)), ...runView(last) };
}

const NEXT = {
  async_poll: "Go on. wait_for_agent_sessions waits for its end and shows its result.",
  async_callback: "When all you need is started, end your turn: you are resumed with the result when it has ended.",
};

function nextOf({ state, sessionId }: Run): string {
  const wait = `wait_for_agent_sessions with session_ids ["${sessionId}"] waits on`;
  if (state !== RunState.PENDING) return `It has not ended yet. Nothing is lost: ${wait}.`;
  return (
    `It stays queued; pending_reasons says why. If it waits for the slot that you hold, waiting does not help: ` +
    `stop_agent_session gives it up, and a start with mode async_callback begins when you end your turn. Else ${wait}.`
  );
}

function started(run: Run, next: string): JsonObject {
  const { sessionId, runId, state } = run;
  return {
    ...facts({ session_id: sessionId, session_name: nameOf(run), run_id: runId }),
    state: word(RunStateSchema, state),
    next,
  };
}

function outcome(run: Run): JsonObject {
  return facts({ session_id: run.sessionId, session_name: nameOf(run), ...runView(run), ...resultView(run.result) });
}
