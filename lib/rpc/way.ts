import type { Socket } from "node:net";

/** Opens connections ahead, because an HTTP/2 session wants its own at once. */
export class Way {
  readonly #open: () => Promise<Socket>;
  #ready: Socket | undefined;
  #opening: Promise<void> | undefined;

  constructor(open: () => Promise<Socket>) {
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
    this.#opening ??= this.#openNext();
    await this.#opening;
  }

  async #openNext(): Promise<void> {
    try {
      const socket = await this.#open();
      this.#ready?.destroy();
      this.#ready = socket;
    } finally {
      this.#opening = undefined;
    }
  }
}

/** A connection is wanted before `prepare` has opened one. */
export class NoWayYet extends Error {
  override name = "NoWayYet";
}
