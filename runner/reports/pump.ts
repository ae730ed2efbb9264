import type { Line } from "./uplink.ts";

/** What a pump sends, and how. */
export interface Load<Batch> {
  /** The next batch for the store that answers now; undefined when nothing waits. */
  take(storeId: string): Batch | undefined;
  /** Sends a batch. False when nothing came of it and it is to be tried again after a pause. Must not reject. */
  attempt(batch: Batch): Promise<boolean>;
}

/** Sends what waits, one call at a time: what comes meanwhile goes in the next one. Ends with the connection. */
export class Pump<Batch> {
  readonly #line: Line;
  readonly #load: Load<Batch>;
  #running = false;

  constructor(line: Line, load: Load<Batch>) {
    this.#line = line;
    this.#load = load;
  }

  /** Looks whether something can be sent. */
  wake(): void {
    if (this.#running || this.#line.closing.aborted) return;
    this.#running = true;
    // One round of the event loop collects what many leases have to say at the same moment.
    setImmediate(() => void this.#run());
  }

  async #run(): Promise<void> {
    let failures = 0;
    try {
      for (;;) {
        const batch = this.#load.take(await this.#line.ready());
        if (batch === undefined) break;
        failures = (await this.#load.attempt(batch)) ? 0 : failures + 1;
        if (failures > 0) await this.#line.pause(failures);
      }
    } catch (error) {
      // Waiting ends with the connection; what was not answered then is in the outbox, or counted as missing.
      if (!this.#line.closing.aborted) throw error;
    } finally {
      this.#running = false;
    }
  }
}
