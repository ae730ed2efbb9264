import { formatDurationMs } from "../lib/config/kinds.ts";

/** So few runs that each further end of one in a drain is a line of the log. */
export const FEW = 3;

/** Most runs that one line names. */
const MAX_NAMED = 20;

/** What a drain says when it begins: for how long it waits, and how it is hurried. Somebody waits for it. */
export function drainText(busy: number, drainTimeoutMs: number): string {
  if (busy === 0) return `draining, ${runs(busy)} left`;
  const limit = drainTimeoutMs === 0 ? "for as long as they take" : `for at most ${formatDurationMs(drainTimeoutMs)}`;
  return `draining, ${runs(busy)} left: waiting ${limit}; a second signal (Ctrl+C, SIGTERM) stops them at once`;
}

/** The runs as a field of a line; none when there are none. */
export function named(runIds: readonly string[]): { run_ids?: string[] } {
  if (runIds.length === 0) return {};
  const more = runIds.length - MAX_NAMED;
  return { run_ids: more <= 0 ? [...runIds] : [...runIds.slice(0, MAX_NAMED), `and ${more} more`] };
}

export function runs(count: number): string {
  return `${count} ${count === 1 ? "run" : "runs"}`;
}
