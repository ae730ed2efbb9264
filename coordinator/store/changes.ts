import type { FinalState } from "../../lib/protocol/final.ts";
import { isFinalName } from "../../lib/protocol/final.ts";
import type { Effect, RunStateName } from "../core/run-transitions.ts";

export type OpenState = Exclude<RunStateName, FinalState>;

/** What the outside has to be told after a command was committed. Collected by the command, acted on by the shell. */
export interface Changes {
  readonly effects: readonly (Effect & { readonly runId: string })[];
  /** Sessions that have new events. */
  readonly sessionIds: ReadonlySet<string>;
  /** Demand classes in which a run became pending. */
  readonly demandClasses: ReadonlySet<string>;
  /** Runners that let an offer lapse. */
  readonly lapsedRunnerIds: ReadonlySet<string>;
  /** Runners that may be able to take more runs. */
  readonly freedRunnerIds: ReadonlySet<string>;
  /** Runners whose row appeared, changed or went. */
  readonly runnerIds: ReadonlySet<string>;
  /** Runs that became final. */
  readonly ended: readonly FinalState[];
  /** Leases that were lost. */
  readonly lostLeases: number;
  /** Offers that were accepted: time from offer to accept. */
  readonly acceptMs: readonly number[];
}

/** Changes while a command collects them. */
export class ChangeSet implements Changes {
  readonly effects: (Effect & { runId: string })[] = [];
  readonly sessionIds = new Set<string>();
  readonly demandClasses = new Set<string>();
  readonly lapsedRunnerIds = new Set<string>();
  readonly freedRunnerIds = new Set<string>();
  readonly runnerIds = new Set<string>();
  readonly ended: FinalState[] = [];
  readonly acceptMs: number[] = [];
  /** How many runs more, or less, are in the states that are not final. */
  readonly moved = new Map<OpenState, number>();
  lostLeases = 0;

  /** A run came from one state into another; undefined: it was made. */
  move(from: RunStateName | undefined, to: RunStateName): void {
    for (const [state, more] of [
      [from, -1],
      [to, 1],
    ] as const) {
      if (state !== undefined && !isFinalName(state)) this.moved.set(state, (this.moved.get(state) ?? 0) + more);
    }
  }
}
