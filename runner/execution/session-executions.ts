import { FailureReason } from "../../gen/agentrunner/v1/run_pb.ts";
import { Report_Kind } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import { outcomeOf } from "./outcome.ts";
import type { Execution, ExecutorOutcome, StopReason } from "./supervisor.ts";

/** Executes at most one executor of a session at a time: two would write the same files (ADR 3). */
export class SessionExecutions {
  readonly #running = new Map<string, Execution>();

  /**
   * Begins an execution of a session. An earlier one is ended first, and `begin` is called when it is gone; `onWait` hears
   * of that. An execution that is stopped before comes to STOPPED, and `begin` is not called.
   */
  start(sessionId: string, begin: () => Execution, onWait: () => void): Execution {
    const earlier = () => this.#running.get(sessionId);
    const beginNow = () => this.#begin(sessionId, begin);
    return earlier() === undefined ? beginNow() : new WaitingExecution(earlier, beginNow, onWait);
  }

  #begin(sessionId: string, begin: () => Execution): Execution {
    const execution = begin();
    this.#running.set(sessionId, execution);
    void execution.done.then(() => this.#running.delete(sessionId));
    return execution;
  }
}

type State =
  | { readonly type: "waiting" }
  | { readonly type: "cancelled"; readonly reason: StopReason }
  | { readonly type: "begun"; readonly execution: Execution };

/** An execution that begins later, or not at all when it is stopped before. */
class WaitingExecution implements Execution {
  readonly done: Promise<ExecutorOutcome>;
  #state: State = { type: "waiting" };

  constructor(earlier: () => Execution | undefined, begin: () => Execution, onWait: () => void) {
    this.done = this.#run(earlier, begin, onWait);
  }

  get pid(): number | undefined {
    return this.#state.type === "begun" ? this.#state.execution.pid : undefined;
  }

  stop(graceMs: number, reason: StopReason = "requested"): void {
    if (this.#state.type === "begun") this.#state.execution.stop(graceMs, reason);
    else this.#state = { type: "cancelled", reason };
  }

  async #run(
    earlier: () => Execution | undefined,
    begin: () => Execution,
    onWait: () => void,
  ): Promise<ExecutorOutcome> {
    for (let one = earlier(); one !== undefined; one = earlier()) {
      onWait();
      one.stop(0);
      await one.done;
    }
    // No await between the last look and `begin`: another that waits would begin too.
    if (this.#state.type === "cancelled") return stoppedBefore(this.#state.reason);
    const execution = begin();
    this.#state = { type: "begun", execution };
    return await execution.done;
  }
}

/** The outcome of a run that was stopped before its executor was spawned. */
export function stoppedBefore(reason: StopReason): ExecutorOutcome {
  const message = "stopped before the executor was started";
  return {
    ...outcomeOf({ end: { type: "not-spawned", message, shortage: false }, outputTruncated: false, stderrTail: "" }),
    kind: Report_Kind.STOPPED,
    failure: reason === "runner-shutdown" ? FailureReason.RUNNER_SHUTDOWN : FailureReason.UNSPECIFIED,
    result: undefined,
    executorSessionId: "",
    outputBytes: 0,
    malformedEvents: 0,
    malformedReason: "",
  };
}
