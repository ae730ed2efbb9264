import type { IncomingHttpHeaders } from "node:http";
import { TIMER_MAX_MS } from "../../lib/config/kinds.ts";

/** Milliseconds in the units of gRPC's `grpc-timeout`. */
const UNIT_MS: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1_000, m: 1, u: 1e-3, n: 1e-6 };

/**
 * Takes a deadline away that is longer than a timer can be (24.8 days): Node would make 1 ms of it. Nobody waits that long, and a
 * call without a deadline lasts as long as its connection.
 */
export function dropEndlessDeadlines(headers: IncomingHttpHeaders): void {
  const connectMs = Number(headers["connect-timeout-ms"] ?? 0);
  if (connectMs > TIMER_MAX_MS) delete headers["connect-timeout-ms"];
  const [, amount = "0", unit = "n"] = /^(\d{1,8})([HMSmun])$/.exec(String(headers["grpc-timeout"] ?? "")) ?? [];
  if (Number(amount) * (UNIT_MS[unit] ?? 0) > TIMER_MAX_MS) delete headers["grpc-timeout"];
}
