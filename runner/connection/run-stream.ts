import { RunnerService } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import type { StreamClosing_Reason, WatchRunsResponse } from "../../gen/agentrunner/v1/runner_service_pb.ts";

/** End of the URL of a WatchRuns call. */
export const WATCH_PATH = `/${RunnerService.typeName}/${RunnerService.method.watchRuns.name}`;

/** How a stream came to its end. */
export type StreamEnd =
  /** The coordinator said why. */
  | { readonly type: "closing"; readonly reason: StreamClosing_Reason }
  /** It ended, and nothing said why. */
  | { readonly type: "ended" }
  /** Nothing came for too long. */
  | { readonly type: "silent" }
  /** `abort` was called. */
  | { readonly type: "aborted" }
  | { readonly type: "failed"; readonly error: unknown };

/** What a stream brings; its end is told by `read`. */
export type StreamEvent = Exclude<WatchRunsResponse["event"], { case: "closing" }>;

/** One WatchRuns stream and its silence watchdog. */
export class RunStream {
  readonly #silenceMs: () => number;
  readonly #controller = new AbortController();
  #end: StreamEnd | undefined;
  #watchdog: NodeJS.Timeout | undefined;

  /** `silenceMs` is the longest silence, counted in bytes; it is asked again after every message. */
  constructor(silenceMs: () => number) {
    this.#silenceMs = silenceMs;
  }

  /** Bytes came: a message that needs longer than the longest silence is no silence. */
  heard(): void {
    this.#watchdog?.refresh();
  }

  /** Ends the stream from this side. */
  abort(): void {
    this.#finish({ type: "aborted" });
  }

  /** Reads the stream that `open` opens to its end. `onEvent` must not throw or block. Never rejects. */
  async read(
    open: (signal: AbortSignal) => AsyncIterable<WatchRunsResponse>,
    onEvent: (event: StreamEvent) => void,
  ): Promise<StreamEnd> {
    this.#watchdog = this.#watch();
    try {
      for await (const { event } of open(this.#controller.signal)) {
        clearTimeout(this.#watchdog);
        this.#watchdog = this.#watch();
        if (event.case === "closing") this.#finish({ type: "closing", reason: event.value.reason });
        else onEvent(event);
        if (this.#end !== undefined) break;
      }
      return this.#end ?? { type: "ended" };
    } catch (error) {
      return this.#end ?? { type: "failed", error };
    } finally {
      clearTimeout(this.#watchdog);
      this.#watchdog = undefined;
      // A stream that is left before its end stays open on the other side unless it is cancelled.
      this.#controller.abort();
    }
  }

  #watch(): NodeJS.Timeout {
    return setTimeout(() => this.#finish({ type: "silent" }), this.#silenceMs()).unref();
  }

  #finish(end: StreamEnd): void {
    this.#end ??= end;
    this.#controller.abort();
  }
}
