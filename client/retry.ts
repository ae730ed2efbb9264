import { setTimeout as delay } from "node:timers/promises";
import type { Transport } from "@connectrpc/connect";
import { Backoff } from "../lib/rpc/backoff.ts";
import { isTransient } from "./transient.ts";

/** Ceiling of the first pause between two attempts; it doubles. */
export const PAUSE_MIN_MS = 50;
const PAUSE_MAX_MS = 1_000;

export interface RetryOptions {
  /** Time from the first attempt after which no other is made. */
  readonly patienceMs: number;
  /** Ends the pauses; the calls have to obey it by themselves. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Repeats a unary call that is safe to repeat while the coordinator cannot be reached. `call` is told how many milliseconds
 * of patience are left, at least 1, which it may use as its deadline.
 *
 * @throws the last error, or at once one that repeating does not change.
 */
export async function retry<T>(call: (leftMs: number) => Promise<T>, { patienceMs, signal }: RetryOptions): Promise<T> {
  const backoff = new Backoff(PAUSE_MIN_MS, PAUSE_MAX_MS);
  const giveUpAt = performance.now() + patienceMs;
  const leftMs = (): number => Math.ceil(giveUpAt - performance.now());
  for (;;) {
    try {
      return await call(Math.max(1, leftMs()));
    } catch (error) {
      const pauseMs = backoff.next();
      if (signal?.aborted === true || !isTransient(error) || pauseMs >= leftMs()) throw error;
      await delay(pauseMs, undefined, { signal });
    }
  }
}

/**
 * The transport, whose unary calls are repeated for `patienceMs`, or until the deadline that the caller sets. Every unary call
 * of the services is safe to repeat, CreateRun by its request_id.
 */
export function withPatience(transport: Transport, patienceMs: number): Transport {
  return {
    unary: (method, signal, timeoutMs, header, input, values) =>
      retry((leftMs) => transport.unary(method, signal, leftMs, header, input, values), {
        patienceMs: Math.min(timeoutMs ?? patienceMs, patienceMs),
        signal,
      }),
    stream: (...call) => transport.stream(...call),
  };
}
