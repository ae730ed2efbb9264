import { isFinalState } from "../lib/protocol/final.ts";
import { RunState } from "../gen/agentrunner/v1/run_pb.ts";
import { Notification_State, SessionStatus } from "../gen/agentrunner/v1/session_pb.ts";
import type { Session, SessionEvent } from "../gen/agentrunner/v1/session_pb.ts";
import type { Services } from "./connect.ts";
import { retry } from "./retry.ts";
import { PATIENCE, watch } from "./watch.ts";
import type { WatchOptions } from "./watch.ts";

export interface LookOptions extends Pick<WatchOptions<never>, "signal" | "onAway" | "onBack" | "patience" | "from"> {
  /** True for an event after which it is worth looking again. */
  readonly wakes: (event: SessionEvent) => boolean;
  /** Hears of the place that was reached in the events, after which another wait may go on. */
  readonly onCursor?: (cursor: string) => void;
}

/**
 * Looks now, and again after what may have changed the answer, until `look` returns one. Undefined only when the signal aborts.
 *
 * @throws ConnectError as `watch` does.
 */
export async function lookUntil<T>(
  { sessions }: Pick<Services, "sessions">,
  sessionId: string,
  look: (signal: AbortSignal) => Promise<T | undefined>,
  options: LookOptions,
): Promise<T | undefined> {
  const { signal, wakes, onCursor, patience = PATIENCE } = options;
  const again = (patienceMs: number): Promise<T | undefined> => repeated(() => look(signal), patienceMs, signal);
  const first = await again(patience.firstMs);
  if (first !== undefined || signal.aborted) return first;
  const messages = watch({
    ...options,
    open: (cursor, signal) => sessions.watchSession({ sessionId, cursor }, { signal }),
    // Not everything that is waited for is an event of this session.
    keepalives: true,
    isLast: () => false,
    otherStore: "begin-again",
  });
  for await (const { message } of messages) {
    const { cursor, update } = message;
    onCursor?.(cursor);
    if (update.case === "event" && !wakes(update.value)) continue;
    const found = await again(patience.againMs);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** `retry`, which is undefined when the signal aborts. */
async function repeated<T>(call: () => Promise<T>, patienceMs: number, signal: AbortSignal): Promise<T | undefined> {
  try {
    return await retry(call, { patienceMs, signal });
  } catch (error) {
    if (signal.aborted) return undefined;
    throw error;
  }
}

/** True for the end of a run. */
export function endsRun({ event }: SessionEvent): boolean {
  return event.case === "transition" && isFinalState(event.value.state);
}

/** Waits until the session has settled. False when the signal aborts before. @throws ConnectError as `watch` does. */
export async function untilSettled(
  services: Pick<Services, "sessions">,
  sessionId: string,
  options: Omit<LookOptions, "wakes">,
): Promise<boolean> {
  const look = async (signal: AbortSignal) => (await hasSettled(services, sessionId, signal)) || undefined;
  return (await lookUntil(services, sessionId, look, { ...options, wakes: endsRun })) ?? false;
}

/** Whether the session and every session below it have settled. */
export async function treeHasSettled(
  services: Pick<Services, "sessions">,
  sessionId: string,
  signal: AbortSignal,
): Promise<boolean> {
  if (!(await hasSettled(services, sessionId, signal))) return false;
  return (await openBelow(services, sessionId, signal)).length === 0;
}

/** Waits until the session and every session below it have settled. False when the signal aborts before. */
export async function untilTreeSettled(
  services: Pick<Services, "sessions">,
  sessionId: string,
  options: Omit<LookOptions, "wakes">,
): Promise<boolean> {
  const { signal, patience = PATIENCE } = options;
  for (;;) {
    if (!(await untilSettled(services, sessionId, options))) return false;
    // From the top downwards: only a session above one that has settled could give it work again.
    const open = await repeated(() => openBelow(services, sessionId, signal), patience.againMs, signal);
    if (open === undefined) return false;
    if (open.length === 0) return true;
    for (const below of open) if (!(await untilSettled(services, below, options))) return false;
  }
}

/** The sessions below a session that have a run which has not ended. */
async function openBelow(
  { sessions }: Pick<Services, "sessions">,
  top: string,
  signal: AbortSignal,
): Promise<string[]> {
  const open: string[] = [];
  const parents = [top];
  for (let parentSessionId = parents.pop(); parentSessionId !== undefined; parentSessionId = parents.pop()) {
    for (let pageToken = ""; ;) {
      const page = await sessions.listSessions({ parentSessionId, pageSize: 1_000, pageToken }, { signal });
      parents.push(...page.sessions.map(({ sessionId }) => sessionId));
      open.push(...page.sessions.flatMap(({ sessionId, activeRunId }) => (activeRunId === "" ? [] : [sessionId])));
      if (page.nextPageToken === "") break;
      pageToken = page.nextPageToken;
    }
  }
  return open;
}

/**
 * Whether nothing more is to come of a session: no run is open, and after a completed one no notification waits and no
 * session that it started is to call it back (ADR 11).
 */
export async function hasSettled(
  { sessions }: Pick<Services, "sessions">,
  sessionId: string,
  signal: AbortSignal,
): Promise<boolean> {
  const { session } = await sessions.getSession({ sessionId }, { signal });
  if (session === undefined || session.activeRunId !== "") return false;
  return session.status !== SessionStatus.IDLE || !(await awaitsCallback({ sessions }, session, signal));
}

/** Whether the callback of a child is still to resume the session. */
async function awaitsCallback(
  { sessions }: Pick<Services, "sessions">,
  session: Session,
  signal: AbortSignal,
): Promise<boolean> {
  const { WAITING, BOUND } = Notification_State;
  if (session.notifications.some(({ state }) => state === WAITING || state === BOUND)) return true;
  if (session.childSessionIds.length === 0) return false;
  const parentSessionId = session.sessionId;
  for (let pageToken = ""; ;) {
    const page = await sessions.listSessions({ parentSessionId, pageSize: 1_000, pageToken }, { signal });
    if (page.sessions.some(({ callbackOwed }) => callbackOwed)) return true;
    if (page.nextPageToken === "") return false;
    pageToken = page.nextPageToken;
  }
}

/** What comes after a run: the run that tells its session of children that have ended, or nothing. */
export type AfterRun = { readonly type: "resumed"; readonly runId: string } | { readonly type: "nothing" };

/**
 * Waits for the end of a run, and for the run that callbacks make after it. Runs that others queue in the session are none of it.
 * Undefined when the signal aborts before.
 *
 * @throws ConnectError as `watch` does.
 */
export async function afterRun(
  services: Pick<Services, "sessions" | "runs">,
  { sessionId, runId }: { readonly sessionId: string; readonly runId: string },
  options: Omit<LookOptions, "wakes">,
): Promise<AfterRun | undefined> {
  const look = async (signal: AbortSignal): Promise<AfterRun | undefined> => {
    const { run } = await services.runs.getRun({ runId }, { signal });
    if (run === undefined || !isFinalState(run.state)) return undefined;
    if (run.state !== RunState.COMPLETED) return { type: "nothing" };
    const { session } = await services.sessions.getSession({ sessionId }, { signal });
    if (session === undefined || session.status === SessionStatus.STOPPED) return { type: "nothing" };
    // Ids sort by the time at which they were made.
    const [next] = session.notifications
      .map((told) => told.runId)
      .filter((id) => id > runId)
      .toSorted();
    if (next !== undefined) return { type: "resumed", runId: next };
    return (await awaitsCallback(services, session, signal)) ? undefined : { type: "nothing" };
  };
  const wakes = ({ event }: SessionEvent): boolean =>
    event.case === "transition" && (isFinalState(event.value.state) || event.value.state === RunState.PENDING);
  return lookUntil(services, sessionId, look, { ...options, wakes });
}
