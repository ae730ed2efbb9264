import type { Effect } from "../core/run.ts";
import type { FinalState } from "../../lib/final.ts";
import type { Changes } from "./store.ts";

/** Collects, while a command runs, what the outside has to be told once it is committed. */
export class ChangeSet implements Changes {
  readonly effects: (Effect & { runId: string })[] = [];
  readonly sessionIds = new Set<string>();
  readonly demandClasses = new Set<string>();
  readonly lapsedRunnerIds = new Set<string>();
  readonly freedRunnerIds = new Set<string>();
  readonly runnerIds = new Set<string>();
  readonly ended: FinalState[] = [];
  readonly acceptMs: number[] = [];
  lostLeases = 0;
}
