import type { RunnerConfig, StopDirective, Directive, LeaseVerdict } from "../../gen/agentrunner/v1/runner_pb.ts";
import type {
  RunOffer,
  StreamClosing_Reason,
  StreamOpened,
  WatchRunsResponse,
} from "../../gen/agentrunner/v1/runner_service_pb.ts";

/** How a stream came to its end. */
export type StreamEnd =
  /** The coordinator said why. */
  | { readonly type: "closing"; readonly reason: StreamClosing_Reason }
  /** It ended without a word. */
  | { readonly type: "ended" }
  /** Nothing came for too long. */
  | { readonly type: "silent" }
  /** `abort` was called. */
  | { readonly type: "aborted" }
  | { readonly type: "failed"; readonly error: unknown };

/** What a stream brings. Nothing here may throw or block. */
export interface StreamHandler {
  opened(opened: StreamOpened): void;
  offered(offer: RunOffer): void;
  stopped(stop: StopDirective): void;
  drained(reason: string): void;
  verdicts(verdicts: readonly LeaseVerdict[]): void;
  directives(directives: readonly Directive[]): void;
  configured(config: RunnerConfig): void;
}

/** One WatchRuns stream and its silence watchdog. */
export class RunStream {
  readonly #handler: StreamHandler;
  readonly #silenceMs: () => number;
  readonly #controller = new AbortController();
  #end: StreamEnd | undefined;

  /** `silenceMs` is the longest silence; it is asked again after every message. */
  constructor(handler: StreamHandler, silenceMs: () => number) {
    this.#handler = handler;
    this.#silenceMs = silenceMs;
  }

  /** Ends the stream from this side. */
  abort(): void {
    this.#finish({ type: "aborted" });
  }

  /** Reads the stream that `open` opens to its end. Never rejects. */
  async read(open: (signal: AbortSignal) => AsyncIterable<WatchRunsResponse>): Promise<StreamEnd> {
    let watchdog = this.#watch();
    try {
      for await (const message of open(this.#controller.signal)) {
        clearTimeout(watchdog);
        watchdog = this.#watch();
        this.#hear(message);
        if (this.#end !== undefined) break;
      }
      return this.#end ?? { type: "ended" };
    } catch (error) {
      return this.#end ?? { type: "failed", error };
    } finally {
      clearTimeout(watchdog);
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

  #hear({ event }: WatchRunsResponse): void {
    switch (event.case) {
      case "opened":
        this.#handler.opened(event.value);
        return this.#handler.verdicts(event.value.verdicts);
      case "offer":
        return this.#handler.offered(event.value);
      case "stop":
        return this.#handler.stopped(event.value);
      case "drain":
        return this.#handler.drained(event.value.reason);
      case "keepalive":
        return this.#handler.directives(event.value.directives);
      case "closing":
        return this.#finish({ type: "closing", reason: event.value.reason });
      case undefined:
        // Something that only a newer runner knows.
        return undefined;
      default:
        return event satisfies never;
    }
  }
}
