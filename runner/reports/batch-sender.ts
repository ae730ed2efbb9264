import type { Uplink } from "./uplink.ts";

/** What a sender sends, and how. */
export interface Source<Batch> {
  /** The next batch for the store `storeId`; undefined when nothing waits. */
  take(storeId: string): Batch | undefined;
  /** Sends a batch. False when nothing came of it and it is to be tried again after a pause. Must not reject. */
  attempt(batch: Batch): Promise<boolean>;
}

type State =
  | { readonly type: "idle" }
  | { readonly type: "sending" }
  /** Waits after a failure; `cut` ends the wait. */
  | { readonly type: "pausing"; readonly cut: AbortController };

const IDLE: State = { type: "idle" };
const SENDING: State = { type: "sending" };

/** Sends what waits, one call at a time: what comes meanwhile goes in the next one. Ends with the connection. */
export class BatchSender<Batch> {
  readonly #uplink: Uplink;
  readonly #source: Source<Batch>;
  #state: State = IDLE;

  constructor(uplink: Uplink, source: Source<Batch>) {
    this.#uplink = uplink;
    this.#source = source;
  }

  /** Looks whether something can be sent. A pause after a failure goes on. */
  wake(): void {
    if (this.#state.type !== "idle" || this.#uplink.closing.aborted) return;
    this.#state = SENDING;
    // One round of the event loop collects what many leases have to say at the same moment.
    setImmediate(() => void this.#run());
  }

  /** Sends now what waits, also when it waits after a failure. A call that is in flight is not repeated. */
  hurry(): void {
    if (this.#state.type === "pausing") this.#state.cut.abort();
    this.wake();
  }

  async #run(): Promise<void> {
    let failures = 0;
    try {
      for (;;) {
        const batch = this.#source.take(await this.#uplink.ready());
        if (batch === undefined) break;
        failures = (await this.#source.attempt(batch)) ? 0 : failures + 1;
        if (failures > 0) await this.#pause(failures);
      }
    } catch (error) {
      // Waiting ends with the connection; what was not answered then is in the outbox, or counted as missing.
      if (!this.#uplink.closing.aborted) throw error;
    } finally {
      this.#state = IDLE;
    }
  }

  async #pause(failures: number): Promise<void> {
    const cut = new AbortController();
    this.#state = { type: "pausing", cut };
    await this.#uplink.pause(failures, cut.signal);
    this.#state = SENDING;
  }
}
