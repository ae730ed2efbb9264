import type { Directive } from "../../gen/agentrunner/v1/runner_pb.ts";

/** What the senders of reports and events need of the connection, beside the call itself. */
export interface Uplink {
  /** Resolves once registered, with the identity of the coordinator's store. Rejects when the connection ends. */
  ready(): Promise<string>;
  /** Carries out the standing orders of an answer. */
  obey(directives: readonly Directive[]): void;
  /** Waits before the next attempt, after `failures` in a row; `cut` ends the wait. Rejects when the connection ends. */
  pause(failures: number, cut: AbortSignal): Promise<void>;
  /** Aborted when the connection has ended. */
  readonly closing: AbortSignal;
}
