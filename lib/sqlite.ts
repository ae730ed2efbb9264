import { channel } from "node:diagnostics_channel";
import { renameSync, rmSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { DatabaseSync } from "node:sqlite";
import type { SQLInputValue, SQLOutputValue } from "node:sqlite";
import { bug } from "./bug.ts";
import { FileGoneError } from "./files-in-place.ts";
import { fileProblem, isFileError } from "./config/file-problem.ts";
import { kindOf } from "./config/file-kind.ts";
import { syncToDisk } from "./sync-to-disk.ts";

/** The database file cannot be used as it is. The message names the path and what to do. */
export class DatabaseUnusableError extends Error {
  override readonly name = "DatabaseUnusableError";
  /** True when another process has the file open. */
  readonly locked: boolean;
  constructor(message: string, options: { cause?: unknown; locked?: boolean } = {}) {
    super(message, "cause" in options ? { cause: options.cause } : undefined);
    this.locked = options.locked ?? false;
  }
}

/** A commit failed as a whole: nothing of the group was stored. The cause is SQLite's error, or a `FileGoneError`. */
export class CommitError extends Error {
  override readonly name = "CommitError";
  /** True when the disk, or the space allowed to the file, is full. */
  readonly full: boolean;
  /** True when the file is not in its place any more, so that nothing will be stored until it is opened again. */
  readonly gone: boolean;
  constructor(cause: unknown) {
    const text = cause instanceof Error ? cause.message : String(cause);
    super(`the store could not be written: ${text}`, { cause });
    this.full = errcode(cause) === SQLITE_FULL;
    this.gone = cause instanceof FileGoneError;
  }
}

const SQLITE_BUSY = 5;
const SQLITE_READONLY = 8;
const SQLITE_IOERR = 10;
const SQLITE_CORRUPT = 11;
const SQLITE_FULL = 13;
const SQLITE_NOTADB = 26;

function errcode(cause: unknown): number {
  const code = cause instanceof Error && "errcode" in cause ? Number(cause.errcode) : 0;
  return code & 0xff;
}

/** True for what a file system that cannot be written makes of a statement, whatever the statement is. */
export function isWriteTrouble(cause: unknown): boolean {
  return [SQLITE_READONLY, SQLITE_IOERR, SQLITE_FULL].includes(errcode(cause));
}

/** What SQLite says of a file that it cannot read as it is; undefined for an error of another kind. */
export function damageOf(error: unknown): string | undefined {
  const cause = error instanceof CommitError ? error.cause : error;
  const isDamage = [SQLITE_IOERR, SQLITE_CORRUPT, SQLITE_NOTADB].includes(errcode(cause));
  // A write that failed is one that can be repeated.
  if (!isDamage || (error instanceof CommitError && errcode(cause) === SQLITE_IOERR)) return undefined;
  return cause instanceof Error ? cause.message : String(cause);
}

/** A larger file is not read as a whole when it is opened: what is damaged in it is found when it is read (ADR 4). */
const CHECKED_UP_TO_BYTES = 64 * 1024 * 1024;

/** A step of a schema: SQL, or what makes it, inside the step's transaction, when it depends on what the file holds. */
export type Migration = string | ((db: DatabaseSync) => string);

export interface OpenOptions {
  /** File, or ":memory:". */
  readonly path: string;
  /** `PRAGMA application_id` that a file of ours carries; a file with another one is refused. */
  readonly applicationId: number;
  /** Step i brings a file from version i to i + 1. Steps are never changed once released. */
  readonly migrations: readonly Migration[];
  /** What the file is, in error texts: "store", "state directory". */
  readonly what: string;
  /** Files up to this size are checked as a whole; default 64 MiB. */
  readonly checkedUpToBytes?: number;
}

/**
 * Opens a file with WAL, synchronous FULL and an exclusive lock, and migrates it.
 *
 * The lock lives as long as the process: a second opener gets a `DatabaseUnusableError` that says so.
 *
 * @throws DatabaseUnusableError when the file is locked, damaged, of another program, or of a newer version. The file
 *   is never recreated.
 */
export function openDatabase(options: OpenOptions): DatabaseSync {
  const { path, what } = options;
  let db: DatabaseSync | undefined;
  try {
    makeOrRefuse(options);
    db = new DatabaseSync(path, { timeout: 0 });
    db.exec("PRAGMA locking_mode = EXCLUSIVE");
    // All that follows may write into the file, so what is not ours must be refused before.
    const version = inspect(db, options);
    // The lock is taken by the first write; taking it here makes a second opener fail at once.
    db.exec("BEGIN IMMEDIATE; COMMIT");
    if (path !== ":memory:") db.exec("PRAGMA journal_mode = WAL");
    db.exec("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA cache_size = -65536");
    migrate(db, options, version);
    return db;
  } catch (cause) {
    db?.close();
    throw unusable(cause, path, what);
  }
}

/**
 * SQLite takes a file of 0 bytes for a new one, but a store that was cut to nothing must not come back empty. So a new file
 * is made beside its place and moved there when it is whole: a file in its place has never been empty.
 */
function makeOrRefuse(options: OpenOptions): void {
  const { path, what } = options;
  if (path === ":memory:") return;
  const status = statSync(path, { throwIfNoEntry: false });
  const kind = status && (status.isDirectory() ? "a directory" : kindOf(status));
  if (kind !== undefined) throw new DatabaseUnusableError(`${what} ${path} is ${kind}, not a file. Name another path.`);
  const size = status?.size;
  if (size === 0) throw damaged(path, what, "it has 0 bytes");
  if (size !== undefined) return;
  const unfinished = `${path}.new`;
  rmSync(unfinished, { force: true });
  const db = new DatabaseSync(unfinished);
  try {
    migrate(db, options, 0);
  } finally {
    db.close();
  }
  renameSync(unfinished, path);
  syncToDisk(dirname(path));
}

/** Returns the version of a file that is whole and ours, or empty; throws for every other one. */
function inspect(db: DatabaseSync, options: OpenOptions): number {
  const { applicationId, migrations, path, what, checkedUpToBytes = CHECKED_UP_TO_BYTES } = options;
  const version = pragma(db, "user_version");
  const owner = pragma(db, "application_id");
  const tables = Number(db.prepare("SELECT count(*) AS n FROM sqlite_schema").get()?.["n"]);
  if (tables > 0 && owner !== applicationId) {
    throw new DatabaseUnusableError(
      `${path} is an SQLite file of another program (application_id ${owner}), not a ${what}. Name another path.`,
    );
  }
  if (version > migrations.length) {
    throw new DatabaseUnusableError(
      `${what} ${path} has schema version ${version}; this program knows up to ${migrations.length}. Upgrade it.`,
    );
  }
  if (pragma(db, "page_count") * pragma(db, "page_size") > checkedUpToBytes) return version;
  const damage = db.prepare("PRAGMA quick_check(1)").get()?.["quick_check"];
  if (damage !== "ok") throw damaged(path, what, String(damage));
  return version;
}

function migrate(db: DatabaseSync, { applicationId, migrations }: OpenOptions, version: number): void {
  for (const [i, step] of migrations.entries()) {
    if (i < version) continue;
    db.exec("BEGIN IMMEDIATE");
    const sql = typeof step === "string" ? step : step(db);
    db.exec(`${sql}; PRAGMA user_version = ${i + 1}; PRAGMA application_id = ${applicationId}; COMMIT`);
  }
}

function pragma(db: DatabaseSync, name: string): number {
  return Number(db.prepare(`PRAGMA ${name}`).get()?.[name]);
}

function damaged(path: string, what: string, detail: string): DatabaseUnusableError {
  return new DatabaseUnusableError(
    `${what} ${path} is damaged (${detail}). It was left untouched: restore a copy, or move it away to start empty.`,
  );
}

/** What SQLite says of a file that cannot be opened, or of the first writes into it, in words; every other error as it is. */
export function unusable(cause: unknown, path: string, what: string): unknown {
  if (cause instanceof DatabaseUnusableError || (errcode(cause) === 0 && !isFileError(cause))) return cause;
  const text = cause instanceof Error ? cause.message : String(cause);
  switch (errcode(cause)) {
    case SQLITE_BUSY:
      return new DatabaseUnusableError(
        `${what} ${path} is in use by another process. End that one, or name another path.`,
        { locked: true },
      );
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return damaged(path, what, text);
    case SQLITE_FULL:
      return new DatabaseUnusableError(
        `the disk of ${what} ${path} is full. Nothing in it is lost: free space, and start again.`,
        { cause },
      );
    default:
      return new DatabaseUnusableError(
        `cannot open ${what} ${path}: ${isFileError(cause) ? fileProblem(cause, path) : text}`,
        {
          cause,
        },
      );
  }
}

/** A row of which nothing is said: values by the name of their column. */
export type AnyRow = Readonly<Record<string, SQLOutputValue>>;

/** Values for `?`, in their order, or one object with values for `:name`. */
export type SqlParameters = readonly SQLInputValue[] | [Readonly<Record<string, SQLInputValue>>];

/**
 * A prepared statement whose rows are said to be of a type. Nobody checks that they are: the type stands beside the SQL text
 * that makes it true, and nowhere else.
 */
export interface Statement<Row> {
  /** The first row; undefined when there is none. */
  first(...parameters: SqlParameters): Row | undefined;
  all(...parameters: SqlParameters): Row[];
  /** Rows as they are taken. The statement must not be used again before the last one was. */
  iterate(...parameters: SqlParameters): Iterable<Row>;
  run(...parameters: SqlParameters): { readonly changes: number | bigint; readonly lastInsertRowid: number | bigint };
}

/** The prepared statement of an SQL text: `sql<RunRow>("SELECT …").first(id)`. */
export type Sql = <Row = AnyRow>(text: string) => Statement<Row>;

/** Tells who listens of every SQL text that is prepared: a test looks at how each is carried out. */
export const PREPARED = channel("agent-runner.sqlite.prepared");

/** Prepares each SQL text once and keeps the statement. */
export function statements(db: DatabaseSync): Sql {
  const prepared = new Map<string, Statement<unknown>>();
  return <Row>(text: string) => {
    let statement = prepared.get(text);
    if (statement === undefined) {
      PREPARED.publish(text);
      statement = typed(db, text);
      prepared.set(text, statement);
    }
    return statement as Statement<Row>;
  };
}

/** A text in quotes, which is left alone, or the name of a value. */
const QUOTED_OR_NAME = /'[^']*'|:([A-Za-z_]\w*)/g;

/**
 * Names are for those who read the SQL; SQLite gets `?`. node:sqlite looks every name up again at each call, which took
 * longer than a write of 20 columns itself. A name without a value is an error of the statement, not NULL.
 */
function typed(db: DatabaseSync, text: string): Statement<unknown> {
  const names: string[] = [];
  const positional = text.replace(QUOTED_OR_NAME, (found, name?: string) => {
    if (name === undefined) return found;
    names.push(name);
    return "?";
  });
  const statement = db.prepare(positional);
  if (names.length === 0) {
    return {
      first: statement.get.bind(statement),
      all: statement.all.bind(statement),
      iterate: statement.iterate.bind(statement),
      run: statement.run.bind(statement),
    };
  }
  const inOrder = ([values]: SqlParameters) => {
    const named = values as Readonly<Record<string, SQLInputValue>>;
    return names.map((name) => {
      const value = named[name];
      if (value === undefined) throw bug("SQL1", `:${name} has no value in: ${text}`);
      return value;
    });
  };
  return {
    first: (...parameters) => statement.get(...inOrder(parameters)),
    all: (...parameters) => statement.all(...inOrder(parameters)),
    iterate: (...parameters) => statement.iterate(...inOrder(parameters)),
    run: (...parameters) => statement.run(...inOrder(parameters)),
  };
}

export type { DatabaseSync, SQLInputValue };
