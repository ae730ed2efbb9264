import { create, toBinary } from "@bufbuild/protobuf";
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

/** As MAX_QUEUED, in bytes: what one command offers to a runner fits, and what waits before it. */
export const MAX_QUEUED_BYTES = 16 * 1024 * 1024;

/** With more than this on its way a runner is offered nothing: the next offer would wait behind it, and lapse there. */
export const CROWDED_BYTES = 256 * 1024;

/** What one message of the stream says. */
export type StreamEvent = NonNullable<MessageInitShape<typeof WatchRunsResponseSchema>["event"]>;

/** A message that is not sent. */
interface Queued {
  readonly message: WatchRunsResponse;
  readonly bytes: number;
}

/** One WatchRuns call: what is put in comes out in order, until it is closed. */
export class RunnerStream {
  readonly streamId = newId("stream");
  readonly runnerId: string;
  readonly bootId: string;
  /** The runner says when the first message has come. No run is offered to it before; offers that were open already are sent. */
  readonly needsProof: boolean;
  #queue: Queued[] = [];
  /** Of what is in the queue, and of the message that is being sent. */
  #bytes = 0;
  #onRoom: (() => void) | undefined;
  #ended: { error: ConnectError | undefined } | undefined;
  #broken = false;
  #wake: (() => void) | undefined;

  constructor(runnerId: string, bootId: string, needsProof = false) {
    this.runnerId = runnerId;
    this.bootId = bootId;
    this.needsProof = needsProof;
  }

  /** True while everything that was sent has been read. */
  get idle(): boolean {
    return this.#queue.length === 0;
  }

  /** True when it ended because the client broke it off, or did not read: neither this process nor a reason that it sent ended it. */
  get broken(): boolean {
    return this.#broken;
  }

  /** True while so much is on its way that nothing large should follow. */
  get crowded(): boolean {
    return this.#bytes > CROWDED_BYTES;
  }

  /** `onRoom` is called whenever the stream is crowded no longer. */
  whenRoom(onRoom: () => void): void {
    this.#onRoom = onRoom;
  }

  /** @param size of the message in bytes, about; who knows it saves serializing the message for it alone. */
  send(event: StreamEvent, size?: number): void {
    if (this.#ended !== undefined) return;
    const message = create(WatchRunsResponseSchema, { event });
    const bytes = size ?? toBinary(WatchRunsResponseSchema, message).length;
    this.#forgetOffersOf(message);
    if (this.#queue.length >= MAX_QUEUED || (this.#queue.length > 0 && this.#bytes + bytes > MAX_QUEUED_BYTES)) {
      const message = `${this.#queue.length} messages of ${this.#bytes} bytes wait on this stream and are not read; open a new one`;
      this.#break(new ConnectError(message, Code.ResourceExhausted));
      return;
    }
    this.#queue.push({ message, bytes });
    this.#bytes += bytes;
    this.#wake?.();
  }

  /** An offer takes the place of an earlier one of its run that nobody has read: that one has lapsed. */
  #forgetOffersOf({ event }: WatchRunsResponse): void {
    if (event.case !== "offer") return;
    const { runId } = event.value;
    this.#queue = this.#queue.filter(({ message, bytes }) => {
      const old = message.event.case === "offer" && message.event.value.runId === runId;
      if (old) this.#bytes -= bytes;
      return !old;
    });
  }

  #sent(bytes: number): void {
    const before = this.crowded;
    this.#bytes -= bytes;
    if (before && !this.crowded) this.#onRoom?.();
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
        const next = this.#queue.shift();
        if (next !== undefined) {
          // Returns when there is room for the next message.
          yield next.message;
          this.#sent(next.bytes);
          continue;
        }
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
