/**
 * When leases may be lost (ADR 3, "Coordinator restart and grace"): not for `graceMs` after a start, after a pause of the
 * coordinator's own clock, after a jump of the wall clock, or while the store cannot be written; earlier once every runner that held leases was heard from.
 */
export type Grace =
  | { readonly state: "OVER" }
  | { readonly state: "GRANTED"; readonly until: number; readonly awaited: ReadonlySet<string> };

/** Two readings of the clocks: wall-clock epoch milliseconds, and milliseconds of a clock that never jumps. */
export interface Reading {
  readonly wallMs: number;
  readonly steadyMs: number;
}

/** Settings that decide how long a grace is. */
export interface GraceTerms {
  readonly leaseTtlMs: number;
  /** `--restart-grace`, when it is given. */
  readonly restartGraceMs: number | undefined;
}

/** After a start: runners have to notice it and connect again. 0, when somebody wants none. */
export function graceAfterStart({ leaseTtlMs, restartGraceMs }: GraceTerms): number {
  return restartGraceMs ?? Math.max(leaseTtlMs, 60_000);
}

/**
 * After a time in which this process could not hear or store renewals: no setting makes runners responsible for that, so
 * each has a whole lease to be heard again.
 */
export function graceAfterOutage(terms: GraceTerms): number {
  return Math.max(graceAfterStart(terms), terms.leaseTtlMs);
}

/** Begins a grace for the runners that hold leases; without any there is nothing to wait for. */
export function grant(holders: Iterable<string>, steadyMs: number, graceMs: number): Grace {
  const awaited = new Set(holders);
  return awaited.size === 0 ? { state: "OVER" } : { state: "GRANTED", until: steadyMs + graceMs, awaited };
}

/** A runner was heard from, and its leases are renewed. */
export function heard(grace: Grace, runnerId: string): Grace {
  if (grace.state === "OVER" || !grace.awaited.has(runnerId)) return grace;
  const awaited = new Set(grace.awaited);
  awaited.delete(runnerId);
  return awaited.size === 0 ? { state: "OVER" } : { ...grace, awaited };
}

export function isOver(grace: Grace, steadyMs: number): boolean {
  return grace.state === "OVER" || steadyMs >= grace.until;
}

/** True when the clocks between two ticks show that time was missed: more than a quarter of a lease. */
export function missedTime(before: Reading, now: Reading, tickMs: number, leaseTtlMs: number): boolean {
  const steady = now.steadyMs - before.steadyMs;
  const wall = now.wallMs - before.wallMs;
  const limit = leaseTtlMs / 4;
  return steady - tickMs > limit || Math.abs(wall - steady) > limit;
}

/** How far the wall clock jumped between two readings, in milliseconds; 0 for less than a quarter of a lease. */
export function wallJump(before: Reading, now: Reading, leaseTtlMs: number): number {
  const jump = now.wallMs - before.wallMs - (now.steadyMs - before.steadyMs);
  return Math.abs(jump) > leaseTtlMs / 4 ? jump : 0;
}

/** What lasts `ttlMs` from now at most is due no later than that, whatever the clock said when it began. */
export function clampedDue(dueAt: number, now: number, ttlMs: number): number {
  return Math.min(dueAt, now + ttlMs);
}
