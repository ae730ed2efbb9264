import { setTimeout as delay } from "node:timers/promises";
import type { Services } from "../client/connect.ts";
import { Cursors } from "../client/cursors.ts";
import { untilSettled } from "../client/settled.ts";
import { ENDLESS } from "../client/watch.ts";
import { watchRun } from "../client/watch-run.ts";
import { RunState } from "../gen/agentrunner/v1/run_pb.ts";
import type { Run } from "../gen/agentrunner/v1/run_pb.ts";
import { isFinalState } from "../lib/protocol/final.ts";
import { ToolError } from "./errors.ts";

export { hasSettled } from "../client/settled.ts";

/** Time in which a free runner is offered a new run, many times over. */
const OFFER_MS = 250;

/** What the waits of one caller share: how many there are, and where in the events of a session the last one stopped. */
export class Waits {
  readonly #max: number;
  readonly cursors = new Cursors();
  #open = 0;

  /** At most `max` runs and sessions are waited for at a time. */
  constructor(max: number) {
    this.#max = max;
  }

  /** Runs `wait`, which watches `streams` runs or sessions. @throws ToolError when that would be too many. */
  async within<T>(streams: number, wait: () => Promise<T>): Promise<T> {
    if (this.#open + streams > this.#max) {
      throw new ToolError(
        `${this.#open} runs and sessions are waited for already, and ${this.#max} may be. ` +
          "Call again when one of the other waits has returned, and wait for several sessions in one call.",
      );
    }
    this.#open += streams;
    try {
      return await wait();
    } finally {
      this.#open -= streams;
    }
  }
}

/** What is waited for. Resolves to undefined when `signal` aborts before it has come. */
export type Wait<T> = (signal: AbortSignal) => Promise<T | undefined>;

/** The first value of the waits; the others end. Undefined when all of them ended without one. @throws what the first that fails throws. */
export async function firstOf<T>(waits: readonly Wait<T>[], signal: AbortSignal): Promise<T | undefined> {
  const enough = new AbortController();
  const either = AbortSignal.any([signal, enough.signal]);
  const first = Promise.withResolvers<T | undefined>();
  const each = waits.map(async (wait) => {
    try {
      const answer = await wait(either);
      if (answer !== undefined) first.resolve(answer);
    } catch (error) {
      // A call that was under way when the time was over says so with an error of its own.
      if (!either.aborted) throw error;
    }
  });
  Promise.all(each).then(() => first.resolve(undefined), first.reject);
  try {
    return await first.promise;
  } finally {
    enough.abort();
  }
}

/** Waits for the end of a run. */
export function runEnd(services: Services, runId: string): Wait<Run> {
  return async (signal) => {
    const options = { signal, otherStore: "begin-again", patience: ENDLESS } as const;
    for await (const update of watchRun(services, runId, options)) {
      if (update.type !== "event" && isFinalState(update.run.state)) return update.run;
    }
    return undefined;
  };
}

/** Returns the run when it was offered to no runner although there was time for it. */
export function runStuck({ runs }: Services, runId: string): Wait<Run> {
  return async (signal) => {
    await delay(OFFER_MS, undefined, { signal }).catch(() => undefined);
    if (signal.aborted) return undefined;
    const { run } = await runs.getRun({ runId }, { signal });
    return run?.state === RunState.PENDING ? run : undefined;
  };
}

/** Waits until the session has settled, and returns its id. */
export function sessionSettled(services: Services, sessionId: string, waits: Waits): Wait<string> {
  return async (signal) => {
    const settled = await untilSettled(services, sessionId, {
      signal,
      cursors: waits.cursors,
      patience: ENDLESS,
    });
    return settled ? sessionId : undefined;
  };
}
