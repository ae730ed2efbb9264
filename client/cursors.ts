/** Sessions whose place in their events is remembered. */
const MAX_CURSORS = 1_000;

/** Where waits have got to in the events of sessions: the next wait for one of them is sent only what has happened since. */
export class Cursors {
  readonly #bySession = new Map<string, string>();

  /** The cursor that was reached last; empty when there is none. */
  of(sessionId: string): string {
    return this.#bySession.get(sessionId) ?? "";
  }

  reached(sessionId: string, cursor: string): void {
    this.#bySession.delete(sessionId);
    this.#bySession.set(sessionId, cursor);
    for (const [oldest] of this.#bySession) {
      if (this.#bySession.size <= MAX_CURSORS) return;
      this.#bySession.delete(oldest);
    }
  }
}
