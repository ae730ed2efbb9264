import { isDeepStrictEqual } from "node:util";
import type { RunnerSettings } from "./settings.ts";

/** What a profile decides, and can decide anew while the runner runs. */
export type Profiled = Pick<RunnerSettings, "executor" | "tags">;

/** What reading the profile again came to. */
export interface Reloaded {
  readonly settings: RunnerSettings;
  /** The coordinator has to hear of it: what it knows of the runner is different now. */
  readonly told: boolean;
  readonly changed: boolean;
}

/**
 * The settings with what the profile says now. Everything else stays as it was at the start, whatever `fresh` says: the
 * identity of a runner, its connection and its directories belong to its process.
 */
export function reloaded(before: RunnerSettings, { executor, tags }: Profiled): Reloaded {
  const settings = { ...before, executor, tags };
  // The variables that executors get, and how long they may be silent, are this machine's affair.
  const toldOf = ({ executor, tags }: Profiled) => ({ ...executor, passEnv: [], idleTimeout: undefined, tags });
  return {
    settings,
    told: !isDeepStrictEqual(toldOf(before), toldOf(settings)),
    changed: !isDeepStrictEqual({ executor: before.executor, tags: before.tags }, { executor, tags }),
  };
}
