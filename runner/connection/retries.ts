import { asTyped } from "../../lib/own-command.ts";
import { setTimeout as delay } from "node:timers/promises";
import { Code, ConnectError } from "@connectrpc/connect";
import type { Log } from "../../lib/log.ts";
import { Backoff } from "../../lib/rpc/backoff.ts";
import type { Timing } from "./timing.ts";

/** The pauses between the attempts of one connection, and what the log says of them. */
export class Retries {
  readonly #backoff: Backoff;
  readonly #log: Log;
  readonly #closing: AbortSignal;

  constructor({ reconnectMinMs, reconnectMaxMs }: Timing, log: Log, closing: AbortSignal, random?: () => number) {
    this.#backoff = new Backoff(reconnectMinMs, reconnectMaxMs, random);
    this.#log = log;
    this.#closing = closing;
  }

  adopt({ reconnectMinMs, reconnectMaxMs }: Timing): void {
    this.#backoff.minMs = reconnectMinMs;
    this.#backoff.maxMs = reconnectMaxMs;
  }

  /** It worked: the next pause is a short one again. */
  reset(): void {
    this.#backoff.reset();
  }

  /** Waits before the next attempt; the end of the connection ends the wait, and the loop that waits sees it. */
  async pause(): Promise<void> {
    await delay(this.#backoff.next(), undefined, { signal: this.#closing }).catch(() => undefined);
  }

  /** Logs the 1st, 2nd, 4th, 8th … failure in a row, so that a long absence does not fill the log. */
  warn(text: string): void {
    const { failures } = this.#backoff;
    if ((failures & (failures - 1)) === 0) this.#log.warn({ failures: failures + 1 }, text);
  }

  /** Repeats `attempt` for `patienceMs` while another process has the identity, and lets every other error out. */
  async whileTaken<T>(attempt: () => Promise<T>, patienceMs: number): Promise<T> {
    let giveUpAtMs: number | undefined;
    for (;;) {
      try {
        return await attempt();
      } catch (error) {
        const { code, rawMessage } = ConnectError.from(error);
        if (code !== Code.AlreadyExists || this.#closing.aborted) throw error;
        giveUpAtMs ??= performance.now() + patienceMs;
        if (performance.now() > giveUpAtMs) throw error;
        this.warn(`${rawMessage}; trying again for ${Math.round(patienceMs / 1000)} s`);
        await this.pause();
      }
    }
  }
}

/** What went wrong, and what to do about it. */
export function withHint({ text, hint }: { text: string; hint: string | undefined }): string {
  return asTyped(hint === undefined ? text : `${text}; ${hint}`, process.env);
}
