import type { Socket } from "node:net";
import { abortable } from "./abortable.ts";

/** Opens connections ahead, because an HTTP/2 session wants its own at once. */
export class Way {
  readonly #open: (signal: AbortSignal) => Promise<Socket>;
  #ready: Socket | undefined;
  #opening: { readonly done: Promise<void>; readonly abort: AbortController } | undefined;

  /** `open` gives up when its signal is aborted. */
  constructor(open: (signal: AbortSignal) => Promise<Socket>) {
    this.#open = open;
  }

  /** The connection that was opened. Throws NoWayYet when there is none. */
  take(): Socket {
    const socket = this.#ready;
    this.#ready = undefined;
    if (socket === undefined || socket.destroyed) throw new NoWayYet("no connection is open");
    return socket;
  }

  /** Opens one; those who call meanwhile wait for the same. Rejects with what `open` does. */
  async prepare(): Promise<void> {
    if (this.#opening === undefined) {
      const abort = new AbortController();
      this.#opening = { done: this.#openNext(abort.signal), abort };
    }
    const { done, abort } = this.#opening;
    await abortable(done, abort.signal);
  }

  /** Gives up what is being opened: those who wait for it are rejected with `reason`. The next `prepare` opens another. */
  abort(reason: unknown): void {
    const opening = this.#opening;
    this.#opening = undefined;
    this.#ready?.destroy();
    this.#ready = undefined;
    opening?.abort.abort(reason);
  }

  async #openNext(signal: AbortSignal): Promise<void> {
    try {
      const socket = await this.#open(signal);
      // It was opened in spite of that, and nobody waits for it.
      if (signal.aborted) return void socket.destroy();
      this.#ready?.destroy();
      this.#ready = socket;
    } finally {
      if (!signal.aborted) this.#opening = undefined;
    }
  }
}

/** A connection is wanted before `prepare` has opened one. */
export class NoWayYet extends Error {
  override name = "NoWayYet";
}
