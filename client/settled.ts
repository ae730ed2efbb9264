import { isFinalState } from "../lib/protocol/final.ts";
import { RunState } from "../gen/agentrunner/v1/run_pb.ts";
import { Notification_State, SessionStatus } from "../gen/agentrunner/v1/session_pb.ts";
import type { Session, SessionEvent } from "../gen/agentrunner/v1/session_pb.ts";
import type { Services } from "./connect.ts";
import { Cursors } from "./cursors.ts";
import { PAGE_MAX, pages } from "./pages.ts";
import { retry } from "./retry.ts";
import { PATIENCE, watch } from "./watch.ts";
import type { WatchOptions } from "./watch.ts";

/** How the functions below wait. */
export interface WaitOptions extends Pick<WatchOptions<never>, "signal" | "onAway" | "onBack" | "patience"> {
  /** Shared by waits that follow each other, so that none is sent what one before it has been sent. */
  readonly cursors?: Cursors;
}

interface LookOptions extends WaitOptions {
  /** True for an event after which it is worth looking again. */
  readonly wakes: (event: SessionEvent) => boolean;
  /** A run of the session that was there at the first look. Events from before its first need not be seen. */
  readonly since: () => string;
}

/**
 * Looks now, and again after what may have changed the answer, until `look` returns one. Undefined only when the signal aborts.
 *
 * @throws ConnectError as `watch` does.
 */
async function lookUntil<T>(
  { sessions }: Pick<Services, "sessions">,
  sessionId: string,
  look: (signal: AbortSignal) => Promise<T | undefined>,
  { wakes, since, cursors = new Cursors(), ...options }: LookOptions,
): Promise<T | undefined> {
  const { signal, patience = PATIENCE } = options;
  const again = <A>(call: (signal: AbortSignal) => Promise<A>, patienceMs: number): Promise<A | undefined> =>
    repeated(() => call(signal), patienceMs, signal);
  const first = await again(look, patience.firstMs);
  if (first !== undefined || signal.aborted) return first;
  if (cursors.of(sessionId) === "") {
    const page = { sessionId, runId: since(), pageSize: 1 };
    const begin = await again((signal) => sessions.listSessionEvents(page, { signal }), patience.firstMs);
    if (begin === undefined) return undefined;
    cursors.reached(sessionId, begin.nextCursor);
  }
  const messages = watch({
    ...options,
    from: cursors.of(sessionId),
    connected: true,
    open: (cursor, signal) => sessions.watchSession({ sessionId, cursor }, { signal }),
    // Not everything that is waited for is an event of this session.
    keepalives: true,
    isLast: () => false,
    otherStore: "begin-again",
  });
  for await (const { message } of messages) {
    const { cursor, update } = message;
    cursors.reached(sessionId, cursor);
    if (update.case === "event" && !wakes(update.value)) continue;
    const found = await again(look, patience.againMs);
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
function endsRun({ event }: SessionEvent): boolean {
  return event.case === "transition" && isFinalState(event.value.state);
}

/** Waits until the session has settled. False when the signal aborts before. @throws ConnectError as `watch` does. */
export async function untilSettled(
  { sessions }: Pick<Services, "sessions">,
  sessionId: string,
  options: WaitOptions,
): Promise<boolean> {
  let newest = "";
  const look = async (signal: AbortSignal) => {
    const { session } = await sessions.getSession({ sessionId }, { signal });
    newest = session?.activeRunId || (session?.lastRunId ?? "");
    return (await isSettled({ sessions }, session, signal)) || undefined;
  };
  return (await lookUntil({ sessions }, sessionId, look, { ...options, wakes: endsRun, since: () => newest })) ?? false;
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
  given: WaitOptions,
): Promise<boolean> {
  // One for all rounds: a session that gets work again is not read from its beginning once more.
  const options = { ...given, cursors: given.cursors ?? new Cursors() };
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
async function openBelow(services: Pick<Services, "sessions">, top: string, signal: AbortSignal): Promise<string[]> {
  const open: string[] = [];
  const parents = [top];
  for (let parent = parents.pop(); parent !== undefined; parent = parents.pop()) {
    for await (const { sessions } of childPages(services, parent, signal)) {
      parents.push(...sessions.map(({ sessionId }) => sessionId));
      open.push(...sessions.flatMap(({ sessionId, activeRunId }) => (activeRunId === "" ? [] : [sessionId])));
    }
  }
  return open;
}

function childPages({ sessions }: Pick<Services, "sessions">, parentSessionId: string, signal: AbortSignal) {
  return pages((pageToken) => sessions.listSessions({ parentSessionId, pageSize: PAGE_MAX, pageToken }, { signal }));
}

/**
 * Whether nothing more is to come of a session: no run is open, and after a completed one no notification waits and no
 * session that it started is to call it back (ADR 11).
 */
export async function hasSettled(
  services: Pick<Services, "sessions">,
  sessionId: string,
  signal: AbortSignal,
): Promise<boolean> {
  const { session } = await services.sessions.getSession({ sessionId }, { signal });
  return isSettled(services, session, signal);
}

async function isSettled(
  services: Pick<Services, "sessions">,
  session: Session | undefined,
  signal: AbortSignal,
): Promise<boolean> {
  if (session === undefined || session.activeRunId !== "") return false;
  return session.status !== SessionStatus.IDLE || !(await awaitsCallback(services, session, signal));
}

/** Whether the callback of a child is still to resume the session. */
async function awaitsCallback(
  services: Pick<Services, "sessions">,
  session: Session,
  signal: AbortSignal,
): Promise<boolean> {
  const { WAITING, BOUND } = Notification_State;
  if (session.notifications.some(({ state }) => state === WAITING || state === BOUND)) return true;
  if (session.childSessionIds.length === 0) return false;
  for await (const { sessions } of childPages(services, session.sessionId, signal)) {
    if (sessions.some(({ callbackOwed }) => callbackOwed)) return true;
  }
  return false;
}

/** What comes after a run: the run that tells its session of children that have ended, or nothing. */
export type AfterRun = { readonly type: "resumed"; readonly runId: string } | { readonly type: "nothing" };

/** A run, and its session. */
interface RunOfSession {
  readonly sessionId: string;
  readonly runId: string;
}

/**
 * Waits for the end of a run, and for the run that callbacks make after it. Runs that others queue in the session are none of it.
 * Undefined when the signal aborts before.
 *
 * @throws ConnectError as `watch` does.
 */
export async function afterRun(
  services: Pick<Services, "sessions" | "runs">,
  of: RunOfSession,
  options: WaitOptions,
): Promise<AfterRun | undefined> {
  const { sessionId, runId } = of;
  const look = async (signal: AbortSignal): Promise<AfterRun | undefined> => {
    const { run } = await services.runs.getRun({ runId }, { signal });
    if (run === undefined || !isFinalState(run.state)) return undefined;
    if (run.state !== RunState.COMPLETED) return { type: "nothing" };
    const { session } = await services.sessions.getSession({ sessionId }, { signal });
    if (session === undefined || session.status === SessionStatus.STOPPED) return { type: "nothing" };
    const tellers = new Set(session.notifications.map((told) => told.runId));
    const next = await firstAfter(services, of, tellers, signal);
    if (next !== undefined) return { type: "resumed", runId: next };
    return (await awaitsCallback(services, session, signal)) ? undefined : { type: "nothing" };
  };
  const wakes = ({ event }: SessionEvent): boolean =>
    event.case === "transition" && (isFinalState(event.value.state) || event.value.state === RunState.PENDING);
  return lookUntil(services, sessionId, look, { ...options, wakes, since: () => runId });
}

/** Runs of a session that are asked for at a time: few follow the one that was waited for. */
const NEWEST_RUNS = 100;

/**
 * The first of `candidates` that was made after a run. The coordinator's list says what came after what; ids do not, because the
 * clock that they are made from can be set back.
 */
async function firstAfter(
  { runs }: Pick<Services, "runs">,
  { sessionId, runId }: RunOfSession,
  candidates: ReadonlySet<string>,
  signal: AbortSignal,
): Promise<string | undefined> {
  if (candidates.size === 0) return undefined;
  let first: string | undefined;
  const newestFirst = pages((pageToken) => runs.listRuns({ sessionId, pageSize: NEWEST_RUNS, pageToken }, { signal }));
  for await (const page of newestFirst) {
    for (const run of page.runs) {
      if (run.runId === runId) return first;
      if (candidates.has(run.runId)) first = run.runId;
    }
  }
  // The run is gone, and with it the place that it had.
  return undefined;
}
