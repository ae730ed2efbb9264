/** Exit codes of every program (ADR 13). */
export const EXIT = {
  ok: 0,
  /** The run failed. */
  failed: 1,
  /** Wrong flags, variables or configuration. */
  usage: 2,
  /** The coordinator cannot be reached. */
  unreachable: 3,
  /** The coordinator, or a lock, refuses this process. */
  refused: 4,
  /** The run was stopped. */
  stopped: 5,
  /** An error of ours. */
  bug: 70,
} as const;

export type ExitCode = (typeof EXIT)[keyof typeof EXIT];
