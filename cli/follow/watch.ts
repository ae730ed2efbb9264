import { Code, ConnectError } from "@connectrpc/connect";
import { setTimeout as delay } from "node:timers/promises";
import type { Run } from "../../gen/agentrunner/v1/run_pb.ts";
import type { WatchRunResponse } from "../../gen/agentrunner/v1/run_service_pb.ts";
import type { SessionEvent } from "../../gen/agentrunner/v1/session_pb.ts";
import { Backoff } from "../../lib/rpc/backoff.ts";
import type { Cli } from "../cli.ts";
import { isFinalState } from "../../lib/final.ts";

/** How long to wait for a coordinator that does not answer. */
export interface Patience {
  /** Before it has answered once. */
  readonly firstMs: number;
  /** After it was cut off: a restart of the coordinator must fit in. */
  readonly againMs: number;
  /** Longest wait between two attempts. */
  readonly pauseMaxMs: number;
}

export const PATIENCE: Patience = { firstMs: 1_500, againMs: 300_000, pauseMaxMs: 2_000 };
const PAUSE_MIN_MS = 100;

/**
 * What a connection that breaks, or a coordinator that ends, is heard as. CANCELED too: that is what connect-node makes of
 * the reset that a killed process leaves behind.
 */
const TRANSIENT: ReadonlySet<Code> = new Set([Code.Unavailable, Code.Canceled, Code.Aborted, Code.DeadlineExceeded]);

/** True when the same call may succeed a moment later. Everything else is an answer, which repeating does not change. */
function isTransient(error: unknown): error is ConnectError {
  return error instanceof ConnectError && TRANSIENT.has(error.code);
}

/**
 * Repeats a unary call that is safe to repeat while the coordinator cannot be reached, at most `firstMs` long.
 *
 * @throws the last error, or at once one that repeating does not mend.
 */
export async function persist<T>(call: () => Promise<T>, patience: Patience = PATIENCE): Promise<T> {
  const backoff = new Backoff(PAUSE_MIN_MS, patience.pauseMaxMs);
  const giveUpAt = performance.now() + patience.firstMs;
  for (;;) {
    try {
      return await call();
    } catch (error) {
      if (!(error instanceof ConnectError) || error.code !== Code.Unavailable || performance.now() > giveUpAt)
        throw error;
      await delay(backoff.next());
    }
  }
}

interface Cursored {
  readonly cursor: string;
  readonly update: { readonly case: string | undefined };
}

/** A message, and whether it is the first of the stream that brought it. */
interface Received<M> {
  readonly message: M;
  readonly first: boolean;
}

/** What `resumed` needs. */
export interface Resumed<M> {
  /** Opens the stream behind a cursor; empty is the beginning. */
  readonly open: (cursor: string, signal: AbortSignal) => AsyncIterable<M>;
  /** True for the message after which nothing comes. */
  readonly isLast: (item: Received<M>) => boolean;
  /** Ends the watch without an error. */
  readonly signal: AbortSignal;
  /** Called once each time that the coordinator is gone, with the reason, and once when it is back. */
  readonly onAway: (error: ConnectError | undefined) => void;
  readonly onBack: () => void;
  readonly patience?: Patience;
}

/**
 * The messages of a watch, over as many streams as it takes: a stream that breaks is opened again behind the last
 * cursor, so that nothing is missed or repeated. Keep-alives are left out.
 *
 * @throws ConnectError one that repeating does not mend, or the last one when patience ends.
 */
export async function* resumed<M extends Cursored>(watch: Resumed<M>): AsyncGenerator<Received<M>, void> {
  const { signal, patience = PATIENCE } = watch;
  const backoff = new Backoff(PAUSE_MIN_MS, patience.pauseMaxMs);
  let cursor = "";
  let connected = false;
  let away = false;
  let giveUpAt = performance.now() + patience.firstMs;
  for (;;) {
    let failure: ConnectError | undefined;
    let first = true;
    try {
      for await (const message of watch.open(cursor, signal)) {
        if (away) watch.onBack();
        connected = true;
        away = false;
        backoff.reset();
        if (message.cursor !== "") ({ cursor } = message);
        if (message.update.case === "keepalive") continue;
        const item = { message, first };
        first = false;
        yield item;
        if (watch.isLast(item)) return;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (!isTransient(error)) throw error;
      failure = error;
    }
    if (signal.aborted) return;
    if (!away && connected) {
      away = true;
      giveUpAt = performance.now() + patience.againMs;
      watch.onAway(failure);
    }
    if (performance.now() > giveUpAt) throw failure ?? new ConnectError("the stream ends too early", Code.Unavailable);
    await pause(backoff.next(), signal);
  }
}

async function pause(waitMs: number, signal: AbortSignal): Promise<void> {
  try {
    await delay(waitMs, undefined, { signal });
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}

/** What a follower of a run sees: the run as it was found, each event once, and the run as it ended. */
export type RunUpdate =
  | { readonly type: "found"; readonly run: Run; readonly message: WatchRunResponse }
  | { readonly type: "event"; readonly event: SessionEvent; readonly message: WatchRunResponse }
  | { readonly type: "ended"; readonly run: Run; readonly message: WatchRunResponse };

/** Follows a run to its end, across restarts of the coordinator; ends early only when `signal` says so. */
export async function* watchRun(cli: Cli, runId: string, signal: AbortSignal): AsyncGenerator<RunUpdate, void> {
  let found = false;
  const messages = resumed({
    open: (cursor, signal) => cli.runs.watchRun({ runId, cursor }, { signal }),
    isLast: isEnd,
    signal,
    ...awayTalk(cli),
  });
  for await (const item of messages) {
    const { message } = item;
    const { update } = message;
    if (update.case === "event") yield { type: "event", event: update.value, message };
    if (update.case !== "run") continue;
    if (isEnd(item)) yield { type: "ended", run: update.value, message };
    else if (!found) yield { type: "found", run: update.value, message };
    found = true;
  }
}

/** The first message of every stream is the run as it is; a later one says that it is over. */
function isEnd({ message: { update }, first }: Received<WatchRunResponse>): boolean {
  return update.case === "run" && !first && isFinalState(update.value.state);
}

/** Says on stderr that the coordinator is away, and that it is back. */
export function awayTalk(cli: Cli): Pick<Resumed<never>, "onAway" | "onBack"> {
  return {
    onAway: (error) =>
      cli.say(
        cli.paintTalk(
          "yellow",
          `… the coordinator is away${cli.options.verbose && error ? ` (${error.message})` : ""}; waiting for it`,
        ),
      ),
    onBack: () => cli.say(cli.paintTalk("yellow", "… the coordinator is back")),
  };
}
