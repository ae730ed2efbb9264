import { Code } from "@connectrpc/connect";
import type { Log } from "../../lib/log.ts";
import { Rarely } from "../../lib/log-rarely.ts";

const INTERVAL_MS = 60_000;

/** Says that something cannot be sent: once for each kind of failure in a row, then once a minute; and that it is over. */
export class SendTrouble {
  readonly #what: string;
  readonly #log: Log;
  #failing: { readonly code: Code; readonly rarely: Rarely } | undefined;

  constructor(what: string, log: Log) {
    this.#what = what;
    this.#log = log;
  }

  failed(code: Code, reason: string, bytes: number): void {
    if (this.#failing?.code !== code) this.#failing = { code, rarely: new Rarely(INTERVAL_MS) };
    const times = this.#failing.rarely.again();
    const fields = { code: Code[code], reason, bytes };
    if (times === undefined) this.#log.debug(fields, `${this.#what} could not be sent`);
    else this.#log.warn({ ...fields, times }, `${this.#what} could not be sent; trying again`);
  }

  over(): void {
    if (this.#failing !== undefined) this.#log.info(`${this.#what} are sent again`);
    this.#failing = undefined;
  }
}
