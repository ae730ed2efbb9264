import { setTimeout as delay } from "node:timers/promises";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import type { Client, Transport } from "@connectrpc/connect";
import { bearer } from "../lib/rpc/bearer.ts";
import { BlueprintService } from "../gen/agentrunner/v1/blueprint_service_pb.ts";
import { RunService } from "../gen/agentrunner/v1/run_service_pb.ts";
import { SessionService } from "../gen/agentrunner/v1/session_service_pb.ts";
import { Backoff } from "../lib/rpc/backoff.ts";

/** What the tools call of a coordinator, as one caller. */
export interface Services {
  readonly runs: Client<typeof RunService>;
  readonly sessions: Client<typeof SessionService>;
  readonly blueprints: Client<typeof BlueprintService>;
}

/** How a coordinator is reached. Watches may have a connection of their own, so that no call waits behind them for a stream. */
export interface Links {
  readonly calls: Transport;
  readonly watches: Transport;
}

/** Time in which a restarting coordinator comes back without the tool noticing; with 45 s of waiting it stays under 60 s. */
const PATIENCE_MS = 10_000;
const PAUSE_MIN_MS = 50;
const PAUSE_MAX_MS = 1_000;

/** As connect-node calls a connection that breaks, or a coordinator that ends. */
const TRANSIENT: ReadonlySet<Code> = new Set([Code.Unavailable, Code.Canceled, Code.Aborted]);

/** True when the same call may succeed a moment later. */
export function isTransient(error: unknown): boolean {
  return error instanceof ConnectError && TRANSIENT.has(error.code);
}

/**
 * The services, called with this token, or as a local user without one. Every unary call is safe to repeat (CreateRun by
 * its request_id), so one that meets no coordinator is repeated for `patienceMs`.
 */
export function servicesOf(
  { calls, watches }: Links,
  token: string | undefined,
  patienceMs: number = PATIENCE_MS,
): Services {
  const signed = (header: ConstructorParameters<typeof Headers>[0]): Headers => {
    const headers = new Headers(header);
    if (token !== undefined) headers.set("authorization", bearer(token));
    return headers;
  };
  const transport: Transport = {
    unary: (method, signal, timeoutMs, header, input, values) =>
      patiently(
        (leftMs) => calls.unary(method, signal, timeoutMs ?? leftMs, signed(header), input, values),
        signal ?? new AbortController().signal,
        patienceMs,
      ),
    stream: (method, signal, timeoutMs, header, input, values) =>
      watches.stream(method, signal, timeoutMs, signed(header), input, values),
  };
  return {
    runs: createClient(RunService, transport),
    sessions: createClient(SessionService, transport),
    blueprints: createClient(BlueprintService, transport),
  };
}

async function patiently<T>(call: (leftMs: number) => Promise<T>, signal: AbortSignal, patienceMs: number): Promise<T> {
  const backoff = new Backoff(PAUSE_MIN_MS, PAUSE_MAX_MS);
  const giveUpAt = performance.now() + patienceMs;
  for (;;) {
    const leftMs = Math.max(1, Math.ceil(giveUpAt - performance.now()));
    try {
      return await call(leftMs);
    } catch (error) {
      const pauseMs = backoff.next();
      if (signal.aborted || !isTransient(error) || pauseMs >= leftMs) throw error;
      await delay(pauseMs, undefined, { signal });
    }
  }
}
