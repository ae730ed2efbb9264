import type { DatabaseSync, StatementSync } from "node:sqlite";
import type { FilesInPlace } from "./files-in-place.ts";
import { CommitError, isWriteTrouble } from "./sqlite.ts";

interface Waiting {
  readonly run: () => unknown;
  readonly resolve: (value: never) => void;
  readonly reject: (reason: unknown) => void;
}

/**
 * Commits the operations of concurrent callers together, so that one fsync serves many (ADR 4).
 *
 * Operations run in the order given. One that throws is undone alone and its caller gets the error. A COMMIT that fails
 * undoes the whole group and every caller gets a `CommitError`. A caller gets its value only after the COMMIT. The queue is
 * bounded by its callers: each waits for its own operation.
 *
 * An operation must do nothing but read and write the database: when one of its group throws, it is undone and run again.
 */
export class GroupCommit {
  readonly #db: DatabaseSync;
  readonly #onCommit: ((commitMs: number, operations: number) => void) | undefined;
  readonly #onFailure: ((error: CommitError) => void) | undefined;
  readonly #inPlace: FilesInPlace | undefined;
  #queue: Waiting[] = [];
  readonly #begin: StatementSync;
  readonly #commit: StatementSync;
  readonly #savepoint: StatementSync;
  readonly #release: StatementSync;
  readonly #undo: StatementSync;

  /**
   * `onFailure` hears once of every group that could not be written. With `inPlace` nothing is acknowledged that would be written
   * into a file that nobody finds again.
   */
  constructor(
    db: DatabaseSync,
    onCommit?: (commitMs: number, operations: number) => void,
    onFailure?: (error: CommitError) => void,
    inPlace?: FilesInPlace,
  ) {
    this.#db = db;
    this.#onCommit = onCommit;
    this.#onFailure = onFailure;
    this.#inPlace = inPlace;
    this.#begin = db.prepare("BEGIN IMMEDIATE");
    this.#commit = db.prepare("COMMIT");
    this.#savepoint = db.prepare("SAVEPOINT operation");
    this.#release = db.prepare("RELEASE operation");
    this.#undo = db.prepare("ROLLBACK TO operation");
  }

  /** Runs `operation` inside the next transaction; returns what it returned once that is committed. */
  run<T>(operation: () => T): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (this.#queue.length === 0) setImmediate(() => this.#flush());
      this.#queue.push({ run: operation, resolve, reject });
    });
  }

  #flush(): void {
    const group = this.#queue;
    this.#queue = [];
    let settled: (() => void)[];
    let commitMs: number;
    try {
      this.#inPlace?.check();
      this.#begin.run();
      settled = this.#together(group) ?? this.#oneByOne(group);
      const start = performance.now();
      this.#commit.run();
      commitMs = performance.now() - start;
    } catch (cause) {
      this.#rollback();
      const error = cause instanceof CommitError ? cause : new CommitError(cause);
      this.#onFailure?.(error);
      for (const waiting of group) waiting.reject(error);
      return;
    }
    for (const settle of settled) settle();
    this.#onCommit?.(commitMs, group.length);
  }

  #rollback(): void {
    if (this.#db.isOpen && this.#db.isTransaction) this.#db.exec("ROLLBACK");
  }

  /** Runs a group of which no operation throws; undefined, with the transaction as at its beginning, when one does. */
  #together(group: readonly Waiting[]): (() => void)[] | undefined {
    try {
      return group.map(({ run, resolve }) => {
        const value = run();
        return () => resolve(value as never);
      });
    } catch {
      // Whose error it is, and whether the others stand without it, is found out one by one.
      this.#rollback();
      this.#begin.run();
      return undefined;
    }
  }

  /** Under savepoints, each of which copies the pages that change under it: a third of the cost of a small operation. */
  #oneByOne(group: readonly Waiting[]): (() => void)[] {
    return group.map((waiting) => this.#attempt(waiting));
  }

  #attempt({ run, resolve, reject }: Waiting): () => void {
    this.#savepoint.run();
    try {
      const value = run();
      this.#release.run();
      return () => resolve(value as never);
    } catch (cause) {
      const error = isWriteTrouble(cause) ? new CommitError(cause) : cause;
      // A full disk can end the whole transaction, and then there is no savepoint to go back to.
      if (!this.#db.isTransaction) throw error;
      this.#undo.run();
      this.#release.run();
      if (error instanceof CommitError) this.#onFailure?.(error);
      return () => reject(error);
    }
  }
}
