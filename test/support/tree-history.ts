/** How a run of a tree ended. */
export interface RunEnd {
  readonly runId: string;
  /** State that GetRun answers in the end. */
  readonly state: string;
  /** Why it did not complete; "" for no reason. */
  readonly failure: string;
  /** Whether its last attempt was reported as started. */
  readonly started: boolean;
  /** Child sessions whose end it tells. */
  readonly delivers: readonly string[];
}

/** What was seen of one session of a tree, when nothing moved any more. */
export interface SessionHistory {
  readonly sessionId: string;
  readonly parentSessionId: string;
  /** Oldest first. */
  readonly runs: readonly RunEnd[];
  readonly callbackOwed: boolean;
  /** Whether it was started, or resumed, with a callback. */
  readonly withCallback: boolean;
  /** Whether it is below a session whose tree was stopped: its parent need not be told. */
  readonly treeStopped: boolean;
  readonly notifications: readonly {
    readonly childSessionId: string;
    /** Run of the child whose result is told. */
    readonly childRunId: string;
    readonly state: string;
    /** Run that delivers it. */
    readonly runId: string;
    readonly deliveries: number;
  }[];
}

const FINAL = new Set(["COMPLETED", "FAILED", "STOPPED"]);

/** Failures of a run whose executor came to no end of its own. */
const LOSSES = new Set(["LOST", "NO_MATCH", "REFUSED", "AFFINITY", "SPAWN"]);

const MAX_LOSSES = 3;

/**
 * The promises about callbacks that no kill may break (ADR 11), each broken one in words: every session settles,
 * every child with a callback is told to its parent, a completed one not before its last run, and what is told is part of
 * exactly one run that came to an outcome of its executor; of a second run only when the first was lost.
 */
export function treeViolations(sessions: readonly SessionHistory[]): string[] {
  const notifications = new Map(sessions.map((session) => [session.sessionId, session.notifications]));
  return sessions.flatMap((session) => {
    const toParent = notifications.get(session.parentSessionId) ?? [];
    const told = toParent.filter(({ childSessionId }) => childSessionId === session.sessionId);
    const found = [
      ...unsettled(session),
      ...telling(session, told),
      ...session.notifications.flatMap((one) => delivery(session, one)),
      ...madeUp(session),
    ];
    return found.map((text) => `${session.sessionId}: ${text}`);
  });
}

/** What is wrong with how a session's end was told to its parent. */
function telling(session: SessionHistory, told: SessionHistory["notifications"]): string[] {
  const owed = session.withCallback && !session.treeStopped && session.parentSessionId !== "";
  if (told.length > 1) return [`was told to its parent ${told.length} times`];
  if (told.length === 0) return owed ? ["was never told to its parent"] : [];
  const run = session.runs.find(({ runId }) => runId === told[0]?.childRunId);
  const early = run?.state === "COMPLETED" && run !== session.runs.at(-1);
  return early ? [`was told to its parent with ${run.runId}, before it had settled`] : [];
}

function madeUp({ runs, notifications }: SessionHistory): string[] {
  const known = new Set(notifications.map(({ childSessionId }) => childSessionId));
  return runs.flatMap(({ runId, delivers }) =>
    delivers.filter((child) => !known.has(child)).map((child) => `${runId} tells of ${child}, which did not settle`),
  );
}

function unsettled({ runs, callbackOwed }: SessionHistory): string[] {
  const open = runs.filter(({ state }) => !FINAL.has(state));
  return [
    ...open.map(({ runId, state }) => `${runId} never ended; it is ${state}`),
    ...(callbackOwed ? ["its end is still to be told"] : []),
  ];
}

/** What is wrong with how one notification was delivered. */
function delivery({ runs }: SessionHistory, told: SessionHistory["notifications"][number]): string[] {
  const { childSessionId, state, runId, deliveries } = told;
  const part = runs.filter(({ delivers }) => delivers.includes(childSessionId));
  const losses = part.filter(({ failure }) => LOSSES.has(failure));
  const unstarted = part.filter((run) => run.state === "STOPPED" && !run.started);
  const outcomes = part.filter((run) => !losses.includes(run) && !unstarted.includes(run));
  const found: string[] = [];
  if (outcomes.length !== (state === "CONSUMED" ? 1 : 0))
    found.push(`is part of ${outcomes.length} runs with an outcome`);
  else if (state === "CONSUMED" && outcomes[0]?.runId !== runId) found.push(`was not delivered by ${runId}`);
  if (deliveries !== losses.length + outcomes.length) found.push(`counts ${deliveries} deliveries`);
  if (state === "GIVEN_UP" && losses.length !== MAX_LOSSES) found.push(`was given up after ${losses.length} losses`);
  if (state === "WAITING" && runs.at(-1)?.state !== "STOPPED") found.push("waits for nobody");
  if (state === "BOUND") found.push(`is bound to ${runId}, which has ended`);
  const lives = part.map((run) => `${run.runId} ${run.state} ${run.failure}`.trim()).join(", ");
  return found.map((text) => `the end of ${childSessionId} (${state}) ${text}: ${lives}`);
}
