import assert from "node:assert";
import { StreamClosing_Reason } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import type { Log } from "../../lib/log.ts";
import type { CoordinatorConfig } from "../config.ts";
import type { Store } from "../store/store.ts";
import { FairQueue } from "./fair-queue.ts";
import type { RunnerStream, StreamEvent } from "./runner-stream.ts";
import { Versions } from "./versions.ts";

/** A runner with an open stream. */
interface Connection {
  readonly stream: RunnerStream;
  readonly keepalive: NodeJS.Timeout;
  readonly recycling: NodeJS.Timeout;
  /** The store said that it can take nothing, and nothing happened since. */
  full: boolean;
  /** It let an offer lapse, and was not heard from since. */
  unresponsive: boolean;
  /** What is sent on the stream arrives, or the runner is of those that do not say so. */
  proven: boolean;
}

export interface ConnectionsDeps {
  readonly store: Pick<Store, "directives">;
  readonly config: Pick<CoordinatorConfig, "streamKeepaliveMs" | "streamMaxAgeMs">;
  readonly log: Log;
}

/**
 * The open streams, one a runner: keeps them alive, ends them when they are old, and knows which runners can be asked to
 * take a run, and in which order. Nothing of this is in the store; a runner that reconnects is asked again.
 */
export class Connections {
  readonly #deps: ConnectionsDeps;
  readonly #byRunner = new Map<string, Connection>();
  /** Runners with a stream, the least recently asked first. */
  readonly #turns = new FairQueue<Connection>();
  /** When there was last reason to believe that a runner can take more. */
  readonly #freed = new Versions();

  constructor(deps: ConnectionsDeps) {
    this.#deps = deps;
  }

  get size(): number {
    return this.#byRunner.size;
  }

  /** For `noteFull`. */
  get moment(): number {
    return this.#freed.moment;
  }

  streamOf(runnerId: string): RunnerStream | undefined {
    return this.#byRunner.get(runnerId)?.stream;
  }

  /** The stream counts from now on. An older one of its runner is told that it is superseded, and returned. */
  add(stream: RunnerStream): RunnerStream | undefined {
    const { runnerId } = stream;
    const older = this.streamOf(runnerId);
    assert(older !== stream, "a stream is opened once");
    if (older !== undefined) this.end(runnerId, StreamClosing_Reason.SUPERSEDED);
    const { streamKeepaliveMs, streamMaxAgeMs } = this.#deps.config;
    const ageMs = streamMaxAgeMs * (0.9 + 0.2 * Math.random());
    const connection: Connection = {
      stream,
      keepalive: setInterval(() => void this.#keepalive(stream), streamKeepaliveMs),
      recycling: setTimeout(() => stream.close(StreamClosing_Reason.RECYCLE), ageMs),
      full: false,
      unresponsive: false,
      proven: !stream.needsProof,
    };
    this.#byRunner.set(runnerId, connection);
    this.#turns.add(connection);
    this.#freed.changed(runnerId);
    return older;
  }

  /** The stream has ended; false when it is not the one that counts. */
  remove(stream: RunnerStream): boolean {
    const connection = this.#byRunner.get(stream.runnerId);
    if (connection?.stream !== stream) return false;
    this.#drop(connection);
    return true;
  }

  /** Tells a runner why its stream ends, and ends it. */
  end(runnerId: string, reason: StreamClosing_Reason): void {
    const connection = this.#byRunner.get(runnerId);
    if (connection === undefined) return;
    this.#drop(connection);
    connection.stream.close(reason);
  }

  endAll(reason: StreamClosing_Reason): void {
    for (const runnerId of [...this.#byRunner.keys()]) this.end(runnerId, reason);
  }

  #drop(connection: Connection): void {
    const { runnerId } = connection.stream;
    clearInterval(connection.keepalive);
    clearTimeout(connection.recycling);
    this.#byRunner.delete(runnerId);
    this.#turns.delete(connection);
    this.#freed.forget(runnerId);
  }

  async #keepalive(stream: RunnerStream): Promise<void> {
    // A runner that has not read the last message does not need another one.
    if (!stream.idle) return;
    try {
      const directives = await this.#deps.store.directives(stream.runnerId);
      stream.send({ case: "keepalive", value: { directives } });
    } catch (error) {
      this.#deps.log.warn({ err: error, runner_id: stream.runnerId }, "a keep-alive could not be sent");
    }
  }

  /** Nothing is sent to a runner without a stream: the next response to a call of its own tells it. */
  send(runnerId: string, event: StreamEvent, bytes?: number): void {
    this.streamOf(runnerId)?.send(event, bytes);
  }

  /** Streams of the runners that may be able to take a run and have room on their way, the least recently asked first. */
  *available(): Iterable<RunnerStream> {
    for (const { stream, full, unresponsive, proven } of this.#turns)
      if (proven && !full && !unresponsive && !stream.crowded) yield stream;
  }

  /** The runner has read from the stream with this id; true when that is news of the stream that counts. */
  noteProven(runnerId: string, streamId: string): boolean {
    const connection = this.#byRunner.get(runnerId);
    if (connection === undefined || connection.proven || connection.stream.streamId !== streamId) return false;
    connection.proven = true;
    return true;
  }

  /** False while a runner with a stream has not said that the stream arrives. */
  isProven(runnerId: string): boolean {
    return this.#byRunner.get(runnerId)?.proven !== false;
  }

  /** These were asked, in this order: they are the last to be asked again. */
  asked(runners: readonly { readonly runnerId: string }[]): void {
    for (const { runnerId } of runners) {
      const connection = this.#byRunner.get(runnerId);
      if (connection !== undefined) this.#turns.hadTurn(connection);
    }
  }

  /** These may be able to take more. */
  noteFreed(runnerIds: Iterable<string>): void {
    for (const runnerId of runnerIds) {
      const connection = this.#byRunner.get(runnerId);
      if (connection === undefined) continue;
      connection.full = false;
      this.#freed.changed(runnerId);
    }
  }

  /** The store, asked at `moment`, said that these can take nothing. Those that were freed since may have room again. */
  noteFull(runnerIds: Iterable<string>, moment: number): void {
    for (const runnerId of runnerIds) {
      const connection = this.#byRunner.get(runnerId);
      if (connection !== undefined && this.#freed.unchangedSince(moment, runnerId)) connection.full = true;
    }
  }

  /** These let an offer lapse: they are asked no more until they are heard from. */
  noteUnresponsive(runnerIds: Iterable<string>): void {
    for (const runnerId of runnerIds) {
      const connection = this.#byRunner.get(runnerId);
      if (connection !== undefined) connection.unresponsive = true;
    }
  }

  /** A runner gave a sign of life; true when it was unresponsive until now. */
  noteHeard(runnerId: string): boolean {
    const connection = this.#byRunner.get(runnerId);
    if (connection?.unresponsive !== true) return false;
    connection.unresponsive = false;
    return true;
  }
}
