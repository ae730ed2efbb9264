import { create } from "@bufbuild/protobuf";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { newId } from "../../lib/ids.ts";
import { WatchRunsResponseSchema } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import type { StreamClosing_Reason, WatchRunsResponse } from "../../gen/agentrunner/v1/runner_service_pb.ts";

/**
 * Messages that are kept for a runner that does not read. A runner has at most 1,000 runs, each with one offer or stop
 * at a time; beyond this bound the stream ends with RESOURCE_EXHAUSTED, and everything is said again on the next one.
 */
const MAX_QUEUED = 4096;

/** What one message of the stream says. */
export type StreamEvent = NonNullable<MessageInitShape<typeof WatchRunsResponseSchema>["event"]>;

/** One WatchRuns call: what is put in comes out in order, until it is closed. */
export class RunnerStream {
  readonly streamId = newId("stream");
  readonly runnerId: string;
  readonly bootId: string;
  #queue: WatchRunsResponse[] = [];
  #ended: { error: ConnectError | undefined } | undefined;
  #broken = false;
  #wake: (() => void) | undefined;

  constructor(runnerId: string, bootId: string) {
    this.runnerId = runnerId;
    this.bootId = bootId;
  }

  /** True while everything that was sent has been read. */
  get idle(): boolean {
    return this.#queue.length === 0;
  }

  /** True when it ended because the client broke it off, or did not read: neither this process nor a reason that it sent ended it. */
  get broken(): boolean {
    return this.#broken;
  }

  send(event: StreamEvent): void {
    if (this.#ended !== undefined) return;
    if (this.#queue.length >= MAX_QUEUED) {
      const message = `${MAX_QUEUED} messages wait on this stream and are not read; open a new one`;
      this.#break(new ConnectError(message, Code.ResourceExhausted));
      return;
    }
    this.#queue.push(create(WatchRunsResponseSchema, { event }));
    this.#wake?.();
  }

  /** Says why, and ends the stream after what was sent before. */
  close(reason: StreamClosing_Reason): void {
    this.send({ case: "closing", value: { reason } });
    this.#end(undefined);
  }

  #break(error: ConnectError): void {
    this.#broken ||= this.#ended === undefined;
    this.#end(error);
  }

  #end(error: ConnectError | undefined): void {
    this.#ended ??= { error };
    this.#wake?.();
  }

  /** The messages, for the handler. Ends when the stream is closed; throws when the client has gone or does not read. */
  async *messages(signal: AbortSignal): AsyncGenerator<WatchRunsResponse> {
    const onAbort = (): void => {
      const error = ConnectError.from(signal.reason, Code.Canceled);
      // UNAVAILABLE is this process, which shuts down.
      if (error.code === Code.Unavailable) this.#end(error);
      else this.#break(error);
    };
    if (signal.aborted) onAbort();
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      for (;;) {
        const batch = this.#queue;
        this.#queue = [];
        yield* batch;
        if (this.#queue.length > 0) continue;
        if (this.#ended?.error !== undefined) throw this.#ended.error;
        if (this.#ended !== undefined) return;
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
        this.#wake = undefined;
      }
    } finally {
      signal.removeEventListener("abort", onAbort);
      // Left before its end: nobody reads any more.
      this.#broken ||= this.#ended === undefined;
      this.#ended ??= { error: undefined };
      this.#queue = [];
    }
  }
}
