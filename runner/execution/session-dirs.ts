import { createHash, randomBytes } from "node:crypto";
import { chmodSync, lstatSync, mkdirSync, readFileSync, readdirSync, renameSync, writeFileSync } from "node:fs";
import type { Stats } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { isShortage } from "./shortage.ts";

/** In the folder of a session: whose it is. */
const NOTE = ".agent-runner.json";

/** Longest note that is read. */
const NOTE_MAX_BYTES = 4 * 1024;

/** Folders that are on their way out are called so. No folder of a session begins with a dot. */
const REMOVED = ".removed-";

/** What the folders of ids that are no names of files begin with. */
const HASHED = "sha256-";

/** Whose a folder is. */
export interface SessionDirOwner {
  readonly sessionId: string;
  /** Store of the coordinator that has the session. */
  readonly storeId: string;
}

/** The folder of a session cannot be used. The message says which and why. */
export class SessionDirError extends Error {
  override readonly name = "SessionDirError";
  /** The machine was short of something: another may be able to do it. */
  readonly shortage: boolean;

  constructor(message: string, cause?: unknown) {
    super(message, { cause });
    this.shortage = isShortage(cause);
  }
}

/**
 * The name of a session's folder. A coordinator chooses the ids: one that could leave the directory, hide in it, or be
 * another one's where capitals do not count, is replaced by its hash.
 */
export function sessionDirName(sessionId: string): string {
  if (/^[a-z0-9][a-z0-9_-]{0,127}$/.test(sessionId) && !sessionId.startsWith(HASHED)) return sessionId;
  return HASHED + createHash("sha256").update(sessionId).digest("hex");
}

/** The folders of sessions, `<base>/sessions/<session_id>`: those of every runner that has the same base. */
export class SessionDirs {
  readonly #root: string;

  /** `base` is the base of the state directories, and exists. */
  constructor(base: string) {
    this.#root = join(base, "sessions");
  }

  /**
   * The session's own folder, which nobody else may look into; made when it is missing.
   *
   * @throws SessionDirError when it cannot be made, or is not this session's.
   */
  make(owner: SessionDirOwner): string {
    const dir = join(this.#root, sessionDirName(owner.sessionId));
    try {
      ownDirectory(this.#root);
      ownDirectory(dir);
      const noted = this.#noted(dir);
      if (noted === undefined) writeNote(dir, owner);
      else mustBeOf(owner, noted);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new SessionDirError(`the folder of the session, ${dir}, cannot be used: ${reason}`, error);
    }
    return dir;
  }

  /** Names of folders, in order. Empty when there are none, or none can be read. */
  names(): string[] {
    return this.#entries().filter((name) => !name.startsWith("."));
  }

  /** Whose a folder is; undefined when it does not say so. */
  ownerOf(name: string): SessionDirOwner | undefined {
    try {
      const owner = this.#noted(join(this.#root, name));
      return owner !== undefined && sessionDirName(owner.sessionId) === name ? owner : undefined;
    } catch {
      // What cannot be read is nobody's to remove.
      return undefined;
    }
  }

  /** Removes a folder: from now on there is none of this name. Rejects when it cannot be removed. */
  async remove(name: string): Promise<void> {
    const aside = join(this.#root, `${REMOVED}${randomBytes(8).toString("hex")}`);
    renameSync(join(this.#root, name), aside);
    await rm(aside, { recursive: true, force: true });
  }

  /** Removes what a process that was killed had begun to remove. Rejects when it cannot be removed. */
  async finishRemoving(): Promise<void> {
    for (const name of this.#entries().filter((name) => name.startsWith(REMOVED))) {
      await rm(join(this.#root, name), { recursive: true, force: true });
    }
  }

  #entries(): string[] {
    try {
      return readdirSync(this.#root).sort();
    } catch {
      // No session has been here yet; or nothing can be read, which the next run says.
      return [];
    }
  }

  #noted(dir: string): SessionDirOwner | undefined {
    const file = join(dir, NOTE);
    const status = lstatSync(file, { throwIfNoEntry: false });
    if (status === undefined) return undefined;
    const isNote = status.isFile() && status.size <= NOTE_MAX_BYTES;
    const owner = isNote ? ownerIn(readFileSync(file, "utf8")) : undefined;
    if (owner === undefined) throw new Error(`its ${NOTE} does not say whose it is; remove the folder`);
    return owner;
  }
}

/** Makes the directory unless it is there, and makes sure that nobody else may look into it. Links are not followed. */
function ownDirectory(dir: string): void {
  const status = lstatSync(dir, { throwIfNoEntry: false }) ?? made(dir);
  if (!status.isDirectory()) throw new Error(`${dir} is not a directory; remove it`);
  const us = process.geteuid?.();
  if (us !== undefined && status.uid !== us) throw new Error(`${dir} belongs to user ${status.uid}, not to user ${us}`);
  if ((status.mode & 0o077) !== 0) chmodSync(dir, 0o700);
}

/** Another process may be faster, and is as good. */
function made(dir: string): Stats {
  try {
    mkdirSync(dir, { mode: 0o700 });
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "EEXIST")) throw error;
  }
  return lstatSync(dir);
}

function writeNote(dir: string, { sessionId, storeId }: SessionDirOwner): void {
  const file = join(dir, `${NOTE}.${randomBytes(8).toString("hex")}`);
  const note = { session_id: sessionId, store_id: storeId };
  writeFileSync(file, `${JSON.stringify(note)}\n`, { mode: 0o600 });
  renameSync(file, join(dir, NOTE));
}

function ownerIn(text: string): SessionDirOwner | undefined {
  try {
    const { session_id: sessionId, store_id: storeId } = JSON.parse(text) as Record<string, unknown>;
    return typeof sessionId === "string" && typeof storeId === "string" ? { sessionId, storeId } : undefined;
  } catch {
    // Not JSON, or no object.
    return undefined;
  }
}

/** A coordinator that names the session of another one must not find the files of that. */
function mustBeOf(owner: SessionDirOwner, noted: SessionDirOwner): void {
  if (noted.storeId === owner.storeId && noted.sessionId === owner.sessionId) return;
  throw new Error(
    `it belongs to session ${JSON.stringify(noted.sessionId)} of store ${JSON.stringify(noted.storeId)}, and this is ` +
      `session ${JSON.stringify(owner.sessionId)} of store ${JSON.stringify(owner.storeId)}; remove it when that is gone for good`,
  );
}
