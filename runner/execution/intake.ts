import type { Readable } from "node:stream";

/** Says whether more output may be read: undefined when it may, else what resolves as soon as it may. Never rejects. */
export type Room = () => Promise<void> | undefined;

/**
 * Reads what an executor prints only while its receiver has room. While it has none the pipes fill up and hold the
 * executor up, as every pipe of a shell does.
 */
export class Intake {
  readonly #streams: readonly Readable[];
  readonly #room: Room;
  readonly #onResume: () => void;
  #heldSinceMs: number | undefined;
  #heldMs = 0;
  #unlimited = false;

  constructor(streams: readonly Readable[], room: Room, onResume: () => void) {
    this.#streams = streams;
    this.#room = room;
    this.#onResume = onResume;
  }

  /** True while nothing is read. */
  get held(): boolean {
    return this.#heldSinceMs !== undefined;
  }

  /** How long nothing was read until now, in all. */
  get heldMs(): number {
    return this.#heldMs + (this.#heldSinceMs === undefined ? 0 : performance.now() - this.#heldSinceMs);
  }

  /** Stops reading when there is no room. Called after everything that was read. */
  check(): void {
    if (this.#unlimited) return;
    // Node resumes the pipes of a process that has exited.
    if (this.held) return this.#pause();
    const room = this.#room();
    if (room === undefined) return;
    this.#heldSinceMs = performance.now();
    this.#pause();
    void room.then(() => this.#resume());
  }

  /** Reads everything from now on, with or without room. */
  readAll(): void {
    this.#unlimited = true;
    this.#resume();
  }

  #pause(): void {
    for (const stream of this.#streams) stream.pause();
  }

  #resume(): void {
    if (this.#heldSinceMs === undefined) return;
    this.#heldMs = this.heldMs;
    this.#heldSinceMs = undefined;
    for (const stream of this.#streams) stream.resume();
    this.#onResume();
  }
}
