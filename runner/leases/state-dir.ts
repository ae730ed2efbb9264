import { closeSync, fdatasync, mkdirSync, openSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { fileProblem } from "../../lib/config/file-problem.ts";
import { newId } from "../../lib/ids.ts";
import type { Log } from "../../lib/log.ts";
import { FilesInPlace } from "../../lib/files-in-place.ts";
import { GroupCommit } from "../../lib/group-commit.ts";
import { DatabaseUnusableError, openDatabase, statements } from "../../lib/sqlite.ts";
import type { DatabaseSync, Sql } from "../../lib/sqlite.ts";
import { syncToDisk } from "../../lib/sync-to-disk.ts";
import { claimOf } from "./claim.ts";
import type { Claim, Place } from "./claim.ts";
import { isInPlace, placeOf } from "./place.ts";

/** "AGRS" in ASCII. */
const APPLICATION_ID = 0x41475253;

const MIGRATIONS = [
  `CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
   CREATE TABLE lease (
     lease_id TEXT PRIMARY KEY,
     run_id TEXT NOT NULL,
     store_id TEXT NOT NULL,
     attempt INTEGER NOT NULL,
     phase TEXT NOT NULL CHECK (phase IN ('ACCEPTING', 'SPAWNING', 'RUNNING')),
     pid INTEGER
   ) WITHOUT ROWID;
   CREATE TABLE outbox (
     lease_id TEXT NOT NULL,
     seq INTEGER NOT NULL,
     store_id TEXT NOT NULL,
     final INTEGER NOT NULL,
     written_at_ms INTEGER NOT NULL,
     report BLOB NOT NULL,
     PRIMARY KEY (lease_id, seq)
   ) WITHOUT ROWID`,
];

/** Pause before an unwritable state directory is tried again. */
const PROBE_MS = 1_000;

/** Longest that something lazy waits for a commit to ride on. */
const LAZY_MS = 250;

const dataSync = promisify(fdatasync);

export interface LeaseRecord {
  readonly leaseId: string;
  readonly runId: string;
  /** Store of the coordinator that made the offer. */
  readonly storeId: string;
  readonly attempt: number;
  /** ACCEPTING: nothing was spawned. SPAWNING: something may have been. RUNNING: it was. */
  readonly phase: "ACCEPTING" | "SPAWNING" | "RUNNING";
}

/** A row of `lease`. */
type LeaseRow = {
  lease_id: string;
  run_id: string;
  store_id: string;
  attempt: number;
  phase: LeaseRecord["phase"];
};

/** The runner cannot have its state directory. The message says what to do; programs exit with 4. */
export class StateRefusedError extends Error {
  override readonly name = "StateRefusedError";
  /** True when another process has it. */
  get locked(): boolean {
    return this.cause instanceof DatabaseUnusableError && this.cause.locked;
  }
}

/** Opens the state directory of a runner and logs when it cannot be written any more. Throws StateRefusedError. */
export function openStateDir(base: string, runnerId: string, log: Log): StateDir {
  const dir = join(base, runnerId);
  const onTrouble = (reason: string | undefined): void => {
    if (reason === undefined) log.info("the state directory can be written again; offers are taken");
    else log.error({ reason }, "the state directory cannot be written; no offers are taken until it can");
  };
  let state: StateDir;
  // Reports hold what agents said. Only while the files are made: executors keep the umask of their user.
  const umask = process.umask(0o077);
  try {
    state = new StateDir(base, runnerId, onTrouble);
  } catch (error) {
    const locked = error instanceof DatabaseUnusableError && error.locked;
    const text = locked
      ? `${runnerId} already runs on this host: it holds ${dir}. End it, or give this one a --name of its own.`
      : `runner state ${dir}: ${fileProblem(error, dir)}\nname another place with --state-dir DIR`;
    throw new StateRefusedError(text, { cause: error });
  } finally {
    process.umask(umask);
  }
  const { claim, previousBootId } = state;
  if (claim.type === "copy") {
    void state.abandon();
    throw new StateRefusedError(
      `${dir} is a copy of ${claim.original}, which is still there, and ${runnerId} cannot be two runners. Start this one with ` +
        "the original's --state-dir, delete one of the two, or give this one a --name of its own.",
    );
  }
  const later = "what that process left is taken over once the coordinator does not hear of it";
  if (claim.type === "unproven")
    log.info(
      { state_dir: dir },
      `the state directory does not prove that ${previousBootId} is dead: ${claim.why}; ${later}`,
    );
  return state;
}

/** Level by level: Node's own way to make all of them never ends in /proc, where a directory is and none can be made. */
function makeDirectory(dir: string): void {
  if (statSync(dir, { throwIfNoEntry: false }) !== undefined) return;
  const parent = dirname(dir);
  if (parent !== dir) makeDirectory(parent);
  try {
    mkdirSync(dir, { mode: 0o700 });
  } catch (error) {
    // Another process was faster.
    if (!(error instanceof Error && "code" in error && error.code === "EEXIST")) throw error;
  }
}

/** The name of the directory can be guessed, so that somebody else may have made it, with what is in it. */
function mustBeOurs(dir: string): void {
  const { uid, mode } = statSync(dir);
  const us = process.geteuid?.();
  if (us === undefined) return;
  if (uid !== us && uid !== 0) throw new Error(`it belongs to user ${uid}, and this process to user ${us}`);
  if ((mode & 0o002) !== 0) throw new Error(`everybody may write into it; chmod o-w ${dir}`);
}

/**
 * What a runner remembers across its processes: its boot ids, the leases it holds, and the reports that are not answered
 * (outbox.ts). One SQLite file, locked for the life of the process, so that two processes cannot be one runner.
 *
 * Commits are not synced by SQLite, which would block the event loop, but by fdatasync in a thread, and only for what must
 * outlive a power failure. The lease records need to outlive no more than the process: after a power failure the coordinator
 * hears nothing of them and loses the leases by `on_lost`, which is safe, while a half of them is not. So records of
 * another boot of the machine do not count.
 */
export class StateDir {
  readonly path: string;
  /** Identity of this process. */
  readonly bootId: string = newId("boot");
  /** Identity of the process before it; empty for the first. */
  readonly previousBootId: string;
  /** What may be said of that process. Unless it is proven, nothing of it is touched before the coordinator has agreed. */
  readonly claim: Claim;
  /** Leases that the process before it left behind. Unless the claim to them is proven, all count as spawned. */
  readonly inherited: readonly LeaseRecord[];
  readonly sql: Sql;
  readonly #db: DatabaseSync;
  readonly #group: GroupCommit;
  readonly #onTrouble: (reason: string | undefined) => void;
  #lazy: (() => void)[] = [];
  #lazyTimer: NodeJS.Timeout | undefined;
  #trouble: string | undefined;
  #probe: NodeJS.Timeout | undefined;
  readonly #wal: number;
  readonly #place: Place;
  /** The sync that is under way, and the one that begins after it. */
  #syncing: Promise<void> = Promise.resolve();
  #nextSync: Promise<void> | undefined;
  #closed = false;

  /**
   * Opens `<base>/<runnerId>/state.db`, made when missing, and becomes the runner's current process.
   *
   * `onTrouble` hears why the directory cannot be written, and undefined when it can be again.
   *
   * @throws DatabaseUnusableError when another process has it (`locked`), or it is damaged.
   */
  constructor(base: string, runnerId: string, onTrouble: (reason: string | undefined) => void) {
    const dir = join(base, runnerId);
    makeDirectory(dir);
    mustBeOurs(dir);
    this.path = join(dir, "state.db");
    this.#onTrouble = onTrouble;
    this.#db = openDatabase({
      path: this.path,
      applicationId: APPLICATION_ID,
      migrations: MIGRATIONS,
      what: "runner state",
    });
    this.#group = new GroupCommit(this.#db, undefined, undefined, new FilesInPlace(this.path));
    this.sql = statements(this.#db);
    this.previousBootId = this.#meta("boot_id");
    this.#place = placeOf(dir);
    this.claim =
      this.previousBootId === "" ? { type: "first" } : claimOf(this.#recordedPlace(), this.#place, isInPlace);
    // Where nobody knows whether the machine was started again, it may have been.
    const certain = this.claim.type === "proven" && this.#place.machineBootId !== "";
    const records = this.sql<LeaseRow>("SELECT * FROM lease").all().map(leaseRecord);
    this.inherited = certain ? records : records.map((record) => ({ ...record, phase: "SPAWNING" }));
    if (this.claim.type === "first" || this.claim.type === "proven") this.#settle();
    else this.#setMeta("opened_at", new Date().toISOString());
    // From here on the write-ahead log exists, and what is synced is its file.
    this.#db.exec("PRAGMA synchronous = NORMAL");
    this.#wal = openSync(`${this.path}-wal`, "r+");
    syncToDisk(dir);
  }

  /** What Register says of the process before, and what to tell people when another one has the identity. */
  get claimed(): { readonly previousBootId: string; readonly twinHint?: string } {
    if (this.claim.type === "proven") return { previousBootId: this.previousBootId };
    if (this.claim.type !== "unproven") return { previousBootId: "" };
    const copy = `${this.#place.path} may be a copy of that process's state (${this.claim.why})`;
    const ways = "start the runner there, or delete the copy, or give this one a --name or --hostname of its own";
    return { previousBootId: "", twinHint: `${copy}: ${ways}` };
  }

  /** The coordinator takes this process for the runner: the directory is this process's from now on. */
  settle(): void {
    if (this.claim.type === "unproven") this.writeLazily(() => this.#settle());
  }

  #settle(): void {
    const { machineBootId, ...place } = this.#place;
    this.#setMeta("boot_id", this.bootId);
    this.#setMeta("machine_boot_id", machineBootId);
    this.#setMeta("place", JSON.stringify(place));
  }

  /** Empty but for the boot of the machine where an earlier version has written. */
  #recordedPlace(): Place {
    const nowhere = { machineId: "", machineBootId: this.#meta("machine_boot_id"), path: "", dev: "", ino: "" };
    const recorded = this.#meta("place");
    return recorded === "" ? nowhere : { ...nowhere, ...(JSON.parse(recorded) as Partial<Place>) };
  }

  #meta(key: string): string {
    return this.sql<{ value: string }>("SELECT value FROM meta WHERE key = ?").first(key)?.value ?? "";
  }

  #setMeta(key: string, value: string): void {
    this.sql("INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value").run(key, value);
  }

  /** Why nothing can be written; undefined when it can. */
  get trouble(): string | undefined {
    return this.#trouble;
  }

  /** The accept of a lease is about to be sent. Resolves when that outlives this process; rejects when it cannot. */
  recordAccepting({ leaseId, runId, storeId, attempt }: Omit<LeaseRecord, "phase">): Promise<void> {
    return this.write(() =>
      this.sql("INSERT OR REPLACE INTO lease VALUES (?, ?, ?, ?, 'ACCEPTING', NULL)").run(
        leaseId,
        runId,
        storeId,
        attempt,
      ),
    );
  }

  /** The executor of a lease is about to be spawned. Resolves when that outlives this process; rejects when it cannot. */
  recordSpawning(leaseId: string): Promise<void> {
    return this.write(() => this.sql("UPDATE lease SET phase = 'SPAWNING' WHERE lease_id = ?").run(leaseId));
  }

  /** The executor runs. For people who look into the file; nothing depends on it. */
  noteRunning(leaseId: string, pid: number): void {
    this.writeLazily(() =>
      this.sql("UPDATE lease SET phase = 'RUNNING', pid = ? WHERE lease_id = ?").run(pid, leaseId),
    );
  }

  /** The lease is over. */
  forgetLease(leaseId: string): void {
    this.writeLazily(() => this.sql("DELETE FROM lease WHERE lease_id = ?").run(leaseId));
  }

  /** Runs `operation` in the next group commit. Resolves when it outlives this process; rejects when it cannot. */
  async write(operation: () => unknown): Promise<void> {
    if (this.#closed) throw new Error("the state directory is closed");
    const lazy = this.#takeLazy();
    try {
      if (!isInPlace(this.#place)) throw new Error(`${this.#place.path} was deleted or replaced under the runner`);
      await this.#group.run(() => {
        for (const one of lazy) one();
        operation();
      });
      this.#setTrouble(undefined);
    } catch (error) {
      this.#lazy.unshift(...lazy);
      this.#setTrouble(error instanceof Error ? error.message : String(error));
      throw error;
    }
  }

  /** As `write`, and resolves when it outlives a power failure too. */
  async writeSynced(operation: () => unknown): Promise<void> {
    await this.write(operation);
    try {
      await this.#sync();
    } catch (error) {
      this.#setTrouble(error instanceof Error ? error.message : String(error));
      throw error;
    }
  }

  /** Syncs everything committed before the call. One sync serves all that wait for it. */
  #sync(): Promise<void> {
    this.#nextSync ??= this.#syncAfter(this.#syncing);
    return this.#nextSync;
  }

  async #syncAfter(before: Promise<void>): Promise<void> {
    // Who waited for the earlier sync hears its error.
    await before.catch(() => undefined);
    this.#syncing = dataSync(this.#wal);
    this.#nextSync = undefined;
    await this.#syncing;
  }

  /** Runs `operation` with the next commit, or after a quarter of a second. Doing it twice or losing it must be harmless. */
  writeLazily(operation: () => unknown): void {
    if (this.#closed) return;
    this.#lazy.push(operation);
    this.#lazyTimer ??= setTimeout(() => {
      this.#lazyTimer = undefined;
      // A failure is told by onTrouble, and the operations ride on the next commit.
      if (this.#lazy.length > 0) this.write(() => undefined).catch(() => undefined);
    }, LAZY_MS).unref();
  }

  /** Writes what is waiting and releases the lock. */
  async close(): Promise<void> {
    if (this.#closed) return;
    // What cannot be written now is found again by the successor, and settled harmlessly.
    await this.write(() => undefined).catch(() => undefined);
    await this.abandon();
  }

  /** Releases the lock and leaves unwritten what is lazy, as a killed process does. */
  async abandon(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#lazyTimer);
    clearTimeout(this.#probe);
    // A group that is already queued commits in the next round of the event loop, before the file is closed.
    await new Promise((resolve) => setImmediate(resolve));
    await this.#sync().catch(() => undefined);
    closeSync(this.#wal);
    this.#db.close();
  }

  #takeLazy(): (() => void)[] {
    clearTimeout(this.#lazyTimer);
    this.#lazyTimer = undefined;
    const lazy = this.#lazy;
    this.#lazy = [];
    return lazy;
  }

  #setTrouble(reason: string | undefined): void {
    if ((reason === undefined) !== (this.#trouble === undefined)) this.#onTrouble(reason);
    this.#trouble = reason;
    if (reason === undefined || this.#closed) return;
    clearTimeout(this.#probe);
    // A failing probe comes back here and arms the next one.
    const probe = () => this.#setMeta("probed_at", new Date().toISOString());
    this.#probe = setTimeout(() => void this.writeSynced(probe).catch(() => undefined), PROBE_MS).unref();
  }
}

function leaseRecord({ lease_id, run_id, store_id, attempt, phase }: LeaseRow): LeaseRecord {
  return { leaseId: lease_id, runId: run_id, storeId: store_id, attempt, phase };
}
