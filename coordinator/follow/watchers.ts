/** Wakes those who follow sessions. Holds no events: a woken watcher reads them from the store. */
export class Watchers {
  readonly #bySession = new Map<string, Set<Subscription>>();

  subscribe(sessionId: string): Subscription {
    const subscription = new Subscription(() => {
      const others = this.#bySession.get(sessionId);
      others?.delete(subscription);
      if (others?.size === 0) this.#bySession.delete(sessionId);
    });
    const all = this.#bySession.get(sessionId) ?? new Set();
    all.add(subscription);
    this.#bySession.set(sessionId, all);
    return subscription;
  }

  notify(sessionIds: ReadonlySet<string>): void {
    if (this.#bySession.size === 0) return;
    for (const sessionId of sessionIds) {
      for (const subscription of this.#bySession.get(sessionId) ?? []) subscription.wake();
    }
  }

  get size(): number {
    return this.#bySession.size;
  }
}

/** Wakes one follower: once for any number of changes since it last waited. */
export class Subscription {
  readonly #onClose: () => void;
  #changed = false;
  #wake: (() => void) | undefined;

  constructor(onClose: () => void) {
    this.#onClose = onClose;
  }

  wake(): void {
    this.#changed = true;
    this.#wake?.();
  }

  /** Resolves with true at the next change, or at once when there was one; with false after `timeoutMs` or when aborted. */
  async changed(timeoutMs: number, signal: AbortSignal): Promise<boolean> {
    if (!this.#changed && !signal.aborted) {
      await new Promise<void>((resolve) => {
        const done = (): void => {
          clearTimeout(timer);
          signal.removeEventListener("abort", done);
          resolve();
        };
        const timer = setTimeout(done, timeoutMs);
        this.#wake = done;
        signal.addEventListener("abort", done);
      });
    }
    this.#wake = undefined;
    const changed = this.#changed;
    this.#changed = false;
    return changed;
  }

  close(): void {
    this.#onClose();
  }
}
