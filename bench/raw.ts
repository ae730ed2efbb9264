import { openSync, closeSync, fdatasyncSync, writeSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { createClient } from "@connectrpc/connect";
import type { Client } from "@connectrpc/connect";
import { Health } from "../gen/grpc/health/v1/health_pb.ts";
import { connectTransport } from "../lib/rpc/transport.ts";
import type { CoordinatorLink } from "../lib/rpc/transport.ts";
import { median } from "./stats.ts";

/** Size of a bare row, about that of a run with its indexes. */
const ROW_BYTES = 400;

/** Median time of writing one page and waiting until the disk has it. */
export function fsyncMs(dir: string): number {
  const file = openSync(join(dir, "fsync"), "w");
  const page = Buffer.alloc(4096, 1);
  const samples = Array.from({ length: 200 }, () => {
    const start = performance.now();
    writeSync(file, page);
    fdatasyncSync(file);
    return performance.now() - start;
  });
  closeSync(file);
  return median(samples);
}

/** A bare table in a file with WAL and synchronous FULL, as the store has. */
export class BareTable {
  readonly #db: DatabaseSync;
  readonly #commit: (rows: number) => void;

  constructor(dir: string, name: string) {
    this.#db = new DatabaseSync(join(dir, `${name}.db`));
    this.#db.exec("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL");
    this.#db.exec("CREATE TABLE rows (id INTEGER PRIMARY KEY, key TEXT, body BLOB); CREATE INDEX by_key ON rows (key)");
    const insert = this.#db.prepare("INSERT INTO rows (key, body) VALUES (?, ?)");
    const begin = this.#db.prepare("BEGIN IMMEDIATE");
    const commit = this.#db.prepare("COMMIT");
    const body = Buffer.alloc(ROW_BYTES, 1);
    let key = 0;
    this.#commit = (rows) => {
      begin.run();
      for (let i = 0; i < rows; i += 1) insert.run(`key_${key++}`, body);
      commit.run();
    };
  }

  /** Milliseconds that a commit of so many rows takes. */
  commitMs(rows: number): number {
    const start = performance.now();
    this.#commit(rows);
    return performance.now() - start;
  }

  close(): void {
    this.#db.close();
  }
}

/** The emptiest call there is, over the transport that our own clients use. */
export class EmptyCalls {
  readonly #link: CoordinatorLink;
  readonly #client: Client<typeof Health>;

  constructor(url: string) {
    this.#link = connectTransport(url);
    this.#client = createClient(Health, this.#link.transport);
  }

  /** Milliseconds that one takes. */
  async roundTripMs(): Promise<number> {
    const start = performance.now();
    await this.#client.check({});
    return performance.now() - start;
  }

  /** Calls a second, so many of them under way at a time. */
  async perSecond(concurrency: number, calls: number): Promise<number> {
    const start = performance.now();
    await concurrently(concurrency, calls, () => this.roundTripMs());
    return (calls * 1000) / (performance.now() - start);
  }

  close(): void {
    this.#link.abort();
  }
}

/** Does something `times` times, up to `concurrency` of them at a time. */
export async function concurrently(
  concurrency: number,
  times: number,
  act: (i: number) => Promise<unknown>,
): Promise<void> {
  let next = 0;
  const lane = async (): Promise<void> => {
    while (next < times) await act(next++);
  };
  await Promise.all(Array.from({ length: concurrency }, lane));
}
