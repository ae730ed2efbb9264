/** A wait that somebody ends, or that ends by itself when nothing has happened for a while. */
export interface Waiting {
  readonly promise: Promise<void>;
  /** Ends it. */
  readonly resolve: () => void;
  /** Something happened: the wait begins anew. */
  readonly refresh: () => void;
}

/** Begins a wait that ends by itself `idleMs` after its last refresh; `onOver` is called at its end. */
export function waiting(idleMs: number, onOver: () => void = () => undefined): Waiting {
  const { promise, resolve } = Promise.withResolvers<void>();
  const over = () => {
    clearTimeout(timer);
    onOver();
    resolve();
  };
  const timer = setTimeout(over, idleMs);
  return { promise, resolve: over, refresh: () => void timer.refresh() };
}
