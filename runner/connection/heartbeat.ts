import { monitorEventLoopDelay } from "node:perf_hooks";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { RunnerService } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import { abortable } from "../../lib/rpc/abortable.ts";
import { Backoff } from "../../lib/rpc/backoff.ts";
import type { Log } from "../../lib/log.ts";
import { connectTransport } from "../../lib/rpc/transport.ts";
import type { CoordinatorLink } from "../../lib/rpc/transport.ts";
import { streamIdOf } from "./connection-state.ts";
import type { Connection, RunnerClient } from "./connection.ts";
import type { ConnectionListener } from "./connection-listener.ts";
import { heldBytes, msOf } from "./timing.ts";

/** Interval at which delays of the event loop are sampled. */
const LAG_RESOLUTION_MS = 20;

export interface HeartbeatOptions {
  readonly url: string;
  readonly tlsCaPem: string | undefined;
  readonly bootId: string;
  /** Upper bound of the interval. */
  readonly intervalMs: number;
  readonly log: Log;
}

/**
 * The loop that says that the runner is alive and what it holds. It has an HTTP/2 session of its own, so that a large
 * report or a stuck stream cannot make a live runner look dead.
 */
export class Heartbeat {
  readonly #options: HeartbeatOptions;
  readonly #connection: Connection;
  readonly #listener: ConnectionListener;
  readonly #link: CoordinatorLink;
  readonly #client: RunnerClient;
  readonly #lag = monitorEventLoopDelay({ resolution: LAG_RESOLUTION_MS });
  readonly #backoff: Backoff;
  /** Those who wait for an answer. */
  readonly #waiting: PromiseWithResolvers<void>[] = [];
  #wake = Promise.withResolvers<void>();

  constructor(options: HeartbeatOptions, connection: Connection, listener: ConnectionListener) {
    this.#options = options;
    this.#connection = connection;
    this.#listener = listener;
    this.#link = connectTransport(options.url, { ca: options.tlsCaPem, interceptors: [connection.authorization] });
    this.#client = createClient(RunnerService, this.#link.transport);
    this.#backoff = new Backoff(connection.timing.reconnectMinMs, connection.timing.reconnectMaxMs);
  }

  /** Begins; ends with the connection. Called once. */
  start(): void {
    this.#lag.enable();
    this.#connection.closing.addEventListener("abort", () => {
      this.#lag.disable();
      this.#link.abort();
      this.#wake.resolve();
    });
    void this.#loop();
  }

  /** Beats at once: something changed that the coordinator should know at once. */
  beatNow(): void {
    this.#wake.resolve();
  }

  /** Resolves when a heartbeat that begins from now on is answered. Rejects when the connection ends before. */
  async answered(): Promise<void> {
    const answer = Promise.withResolvers<void>();
    this.#waiting.push(answer);
    this.beatNow();
    await abortable(answer.promise, this.#connection.closing);
  }

  async #loop(): Promise<void> {
    const { closing } = this.#connection;
    while (!closing.aborted) {
      let waitMs: number;
      try {
        waitMs = await this.#beat();
        this.#backoff.reset();
      } catch (error) {
        if (closing.aborted) return;
        waitMs = this.#afterFailure(error);
      }
      await this.#pause(waitMs);
    }
  }

  /** Sends one heartbeat and returns the time until the next. */
  async #beat(): Promise<number> {
    const listener = this.#listener;
    const waiting = this.#waiting.length;
    const sentAtMs = performance.now();
    const lagMs = Math.max(0, this.#lag.max / 1e6 - LAG_RESOLUTION_MS);
    const answer = await this.#connection.call(
      (client, runnerId, options) =>
        client.heartbeat(
          {
            runnerId,
            bootId: this.#options.bootId,
            held: listener.held(),
            freeSlots: listener.freeSlots,
            draining: listener.draining,
            streamId: streamIdOf(this.#connection.state),
            eventLoopLag: durationFromMs(Math.round(lagMs)),
          },
          options,
        ),
      { client: this.#client, bytes: heldBytes(listener.held()) },
    );
    this.#lag.reset();
    for (const { resolve } of this.#waiting.splice(0, waiting)) resolve();
    listener.verdicts(answer.verdicts);
    this.#connection.obey(answer.directives);
    if (answer.streamMissing) this.#connection.streamMissing(sentAtMs);
    return this.#intervalMs(msOf(answer.nextHeartbeat));
  }

  #intervalMs(nextMs: number): number {
    return Math.min(this.#options.intervalMs, nextMs || this.#connection.timing.heartbeatMs);
  }

  #afterFailure(error: unknown): number {
    const { code, rawMessage } = ConnectError.from(error);
    const level = code === Code.InvalidArgument || code === Code.Internal ? "warn" : "debug";
    this.#options.log[level]({ code: Code[code], reason: rawMessage }, "a heartbeat failed");
    // A peer that does not answer may be at the end of a dead connection.
    if (code === Code.DeadlineExceeded) this.#link.abort();
    const { reconnectMinMs, reconnectMaxMs } = this.#connection.timing;
    this.#backoff.minMs = reconnectMinMs;
    this.#backoff.maxMs = reconnectMaxMs;
    return Math.min(this.#intervalMs(0), this.#backoff.next());
  }

  async #pause(waitMs: number): Promise<void> {
    const timer = setTimeout(() => this.#wake.resolve(), waitMs);
    await this.#wake.promise;
    clearTimeout(timer);
    this.#wake = Promise.withResolvers();
  }
}
