import type { Directive } from "../../gen/agentrunner/v1/runner_pb.ts";

/** What a sender needs of a connection beside the call itself. */
export interface Line {
  /** Resolves once registered, with the identity of the store that answers. Rejects when the connection ends. */
  ready(): Promise<string>;
  /** Carries out the standing orders of an answer. */
  obey(directives: readonly Directive[]): void;
  /** Waits before the next attempt; `failures` in a row so far. */
  pause(failures: number): Promise<void>;
  /** Aborted when the connection has ended. */
  readonly closing: AbortSignal;
}
