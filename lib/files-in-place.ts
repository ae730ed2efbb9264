import { statSync } from "node:fs";

/** The file, or its log, was deleted or replaced while it is open: what is written reaches nobody. */
export class FileGoneError extends Error {
  override readonly name = "FileGoneError";
}

/** Remembers which files stand at the path of an open database and beside it, and whether they still do. */
export class FilesInPlace {
  readonly #known = new Map<string, string>();

  constructor(path: string) {
    this.#known.set(path, identityOf(path));
    // SQLite makes it with the first write.
    this.#known.set(`${path}-wal`, identityOf(`${path}-wal`));
  }

  /** @throws FileGoneError */
  check(): void {
    for (const [file, known] of this.#known) {
      const now = identityOf(file);
      if (known === "") this.#known.set(file, now);
      else if (known !== now) throw new FileGoneError(`${file} was deleted or replaced while it is open`);
    }
  }
}

/** Which file stands at the path; empty for none. */
function identityOf(path: string): string {
  const found = statSync(path, { throwIfNoEntry: false });
  return found === undefined ? "" : `${found.dev}.${found.ino}`;
}
