import type { JsonObject } from "@bufbuild/protobuf";
import type { Services } from "../client/connect.ts";
import { RunStateSchema } from "../gen/agentrunner/v1/run_pb.ts";
import { SessionStatusSchema } from "../gen/agentrunner/v1/session_pb.ts";
import type { ToolCaller } from "./caller.ts";
import { refuseOwn, sessionsOf } from "./session-ref.ts";
import { endView, facts, RESULT_SHOWN_CHARS, resultView, runView, word } from "./views.ts";
import { firstOf, hasSettled, sessionSettled } from "./waiting.ts";
import type { Wait } from "./waiting.ts";

/** Arguments of wait_for_agent_sessions. */
interface WaitArguments {
  readonly session_ids: readonly string[];
  readonly session_names: readonly string[];
  readonly until: "all" | "any";
  readonly timeout_seconds: number;
}

/** What wait_for_agent_sessions does. */
export async function waitForSessions(
  args: WaitArguments,
  caller: ToolCaller,
  signal: AbortSignal,
): Promise<JsonObject> {
  const { services, waits, waitMs } = caller;
  const names = await sessionsOf(args, caller, signal);
  const sessionIds = [...names.keys()];
  for (const sessionId of sessionIds) refuseOwn(caller, sessionId, "waiting for it would never end");
  const waiting = AbortSignal.any([signal, AbortSignal.timeout(Math.min(waitMs, args.timeout_seconds * 1_000))]);
  const look = () => settledOf(services, sessionIds, signal);
  const enough = (settled: ReadonlySet<string>): boolean =>
    args.until === "any" ? settled.size > 0 : settled.size === sessionIds.length;
  let settled = await look();
  if (!enough(settled)) {
    const each = sessionIds.map((sessionId): Wait<string> => async (signal) => {
      const done = await sessionSettled(services, sessionId, waits)(signal);
      return args.until === "any" ? done : undefined;
    });
    await waits.within(sessionIds.length, () => firstOf(each, waiting));
    settled = await look();
  }
  const shownChars = Math.floor(RESULT_SHOWN_CHARS / Math.max(1, settled.size));
  const open = sessionIds.filter((sessionId) => !settled.has(sessionId));
  const named = (sessionId: string) => facts({ session_id: sessionId, session_name: names.get(sessionId) });
  return {
    settled: await Promise.all(
      [...settled].map(async (id) => ({ ...named(id), ...(await settledView(caller, id, shownChars, signal)) })),
    ),
    open: await Promise.all(open.map(async (id) => ({ ...named(id), ...(await openView(caller, id, signal)) }))),
    ...facts({ next: open.length === 0 ? undefined : WAIT_AGAIN }),
  };
}

async function settledOf(services: Services, sessionIds: readonly string[], signal: AbortSignal): Promise<Set<string>> {
  const answers = await Promise.all(sessionIds.map((sessionId) => hasSettled(services, sessionId, signal)));
  return new Set(sessionIds.filter((_, i) => answers[i]));
}

const WAIT_AGAIN =
  "Call wait_for_agent_sessions again with the open ones. One that is pending because you hold the slot it needs starts " +
  "only when you end your turn.";

async function settledView({ services }: ToolCaller, sessionId: string, maxChars: number, signal: AbortSignal) {
  const { runId, state, result, ...end } = await services.sessions.getSessionResult({ sessionId }, { signal });
  return { run_id: runId, state: word(RunStateSchema, state), ...endView(end), ...resultView(result, maxChars) };
}

async function openView({ services }: ToolCaller, sessionId: string, signal: AbortSignal): Promise<JsonObject> {
  const { session } = await services.sessions.getSession({ sessionId }, { signal });
  const runId = session?.activeRunId ?? "";
  const run = runId === "" ? undefined : (await services.runs.getRun({ runId }, { signal })).run;
  const status = session && word(SessionStatusSchema, session.status);
  const why = run === undefined ? "no run is open; it waits to be called back by sessions that it started" : undefined;
  return facts({ status, why, ...(run === undefined ? {} : runView(run)) });
}
