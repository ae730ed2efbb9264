import { setTimeout as delay } from "node:timers/promises";
import { Code, ConnectError } from "@connectrpc/connect";
import { Backoff } from "../lib/rpc/backoff.ts";
import { PAUSE_MIN_MS } from "./retry.ts";
import { isOfAnotherStore, isTransient } from "./transient.ts";

/** How long a watch waits for a coordinator that cannot be reached. */
export interface Patience {
  /** Before it has answered once. */
  readonly firstMs: number;
  /** After the watch was cut off: a restart of the coordinator must fit in. */
  readonly againMs: number;
  /** Longest wait between two attempts. */
  readonly pauseMaxMs: number;
}

/** For a person, who sees an error at once when the URL is wrong, and follows a run across a restart. */
export const PATIENCE: Patience = { firstMs: 1_500, againMs: 300_000, pauseMaxMs: 2_000 };

/** For a watch that only its signal ends. */
export const ENDLESS: Patience = { firstMs: Infinity, againMs: Infinity, pauseMaxMs: 1_000 };

/** A message of a watch. */
interface Cursored {
  /** The place after which a next stream begins; empty on a message that has none. */
  readonly cursor: string;
  readonly update: { readonly case: string | undefined };
}

/** A message, and whether it is the first of the stream that brought it. */
export interface Received<M> {
  readonly message: M;
  readonly first: boolean;
}

export interface WatchOptions<M> {
  /** Opens the stream after a cursor; empty is the beginning. */
  readonly open: (cursor: string, signal: AbortSignal) => AsyncIterable<M>;
  /** Ends the watch without an error. */
  readonly signal: AbortSignal;
  /**
   * True for the message after which nothing comes; a stream that ends before it is opened again. Without this the watch ends
   * with the first stream that ends without an error.
   */
  readonly isLast?: (item: Received<M>) => boolean;
  /** The coordinator has just answered another call: a stream that does not open was cut off. Default: this is the first call. */
  readonly connected?: boolean;
  /** Cursor after which the first stream begins. Default: the beginning. */
  readonly from?: string;
  /** True to be given keep-alives too, which else only move the cursor on. */
  readonly keepalives?: boolean;
  /**
   * What becomes of a watch whose cursor the coordinator refuses with OUT_OF_RANGE, because it was made by another store:
   * `throw` (default), or `begin-again` at the beginning, which may show what was shown before.
   */
  readonly otherStore?: "throw" | "begin-again";
  /** Called once each time that the coordinator is gone, with the reason when there is one. */
  readonly onAway?: (error: ConnectError | undefined) => void;
  /** Called once when it is back. */
  readonly onBack?: () => void;
  /** Default: PATIENCE. */
  readonly patience?: Patience;
}

/**
 * The messages of a watch, over as many streams as it takes: a stream that breaks is opened again after the last cursor, so
 * that nothing is missed or repeated.
 *
 * @throws ConnectError one that repeating does not change, or the last one when patience ends.
 */
export async function* watch<M extends Cursored>(options: WatchOptions<M>): AsyncGenerator<Received<M>, void> {
  const { open, signal, isLast, keepalives = false, otherStore = "throw", patience = PATIENCE } = options;
  const backoff = new Backoff(PAUSE_MIN_MS, patience.pauseMaxMs);
  let cursor = options.from ?? "";
  let connected = options.connected ?? false;
  let away = false;
  let giveUpAt = performance.now() + patience.firstMs;
  while (!signal.aborted) {
    let failure: ConnectError | undefined;
    let first = true;
    try {
      for await (const message of open(cursor, signal)) {
        if (away) options.onBack?.();
        connected = true;
        away = false;
        backoff.reset();
        if (message.cursor !== "") ({ cursor } = message);
        if (message.update.case === "keepalive" && !keepalives) continue;
        const item = { message, first };
        first = false;
        yield item;
        if (isLast?.(item) === true) return;
      }
      if (isLast === undefined) return;
    } catch (error) {
      if (signal.aborted) return;
      if (otherStore === "begin-again" && cursor !== "" && isOfAnotherStore(error)) cursor = "";
      else if (!isTransient(error)) throw error;
      failure = error;
    }
    if (signal.aborted) return;
    if (!away && connected) {
      away = true;
      giveUpAt = performance.now() + patience.againMs;
      options.onAway?.(failure);
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
