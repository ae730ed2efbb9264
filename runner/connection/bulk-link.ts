import { Code, ConnectError, createClient } from "@connectrpc/connect";
import type { CallOptions } from "@connectrpc/connect";
import { RunnerService } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import { connectTransport } from "../../lib/rpc/transport.ts";
import type { CoordinatorLink } from "../../lib/rpc/transport.ts";
import type { Connection, RunnerClient } from "./connection.ts";

/** The answer to a PING waits behind the body on its way; the deadline of the call finds a dead peer. */
const PING_TIMEOUT_MS = 120_000;

/** A connection of its own for events and large reports: what is small, and the stream, do not wait behind them. */
export class BulkLink {
  readonly #connection: Connection;
  readonly #link: CoordinatorLink;
  readonly #client: RunnerClient;

  constructor(connection: Connection, to: { readonly url: string; readonly tlsCaPem: string | undefined }) {
    this.#connection = connection;
    this.#link = connectTransport(to.url, {
      ca: to.tlsCaPem,
      interceptors: [connection.authorization],
      pingTimeoutMs: PING_TIMEOUT_MS,
    });
    this.#client = createClient(RunnerService, this.#link.transport);
    connection.closing.addEventListener("abort", () => this.#link.abort());
  }

  /** As `Connection.call`, for a message of `bytes`. */
  async call<R>(
    make: (client: RunnerClient, runnerId: string, options: CallOptions) => Promise<R>,
    bytes: number,
  ): Promise<R> {
    try {
      return await this.#connection.call(make, { client: this.#client, bytes });
    } catch (error) {
      // A peer that does not answer may be at the end of a dead connection.
      if (ConnectError.from(error).code === Code.DeadlineExceeded) this.#link.abort();
      throw error;
    }
  }
}
