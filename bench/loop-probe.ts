import { createClient } from "@connectrpc/connect";
import { Health } from "../gen/grpc/health/v1/health_pb.ts";
import { connectTransport } from "../lib/rpc/transport.ts";
import type { CoordinatorLink } from "../lib/rpc/transport.ts";

const PAUSE_MS = 2;

/** Asks a coordinator for its health, again and again on a connection of its own, and keeps the longest wait. */
export class LoopProbe {
  readonly #link: CoordinatorLink;
  #longestMs = 0;
  #closed = false;
  #askedSince = 0;
  #failure: Error | undefined;

  private constructor(url: string) {
    this.#link = connectTransport(url);
  }

  static async start(url: string): Promise<LoopProbe> {
    const probe = new LoopProbe(url);
    const health = createClient(Health, probe.#link.transport);
    await health.check({});
    void probe.#ask(() => health.check({}));
    return probe;
  }

  async #ask(check: () => Promise<unknown>): Promise<void> {
    while (!this.#closed) {
      this.#askedSince = performance.now();
      try {
        await check();
      } catch (cause) {
        if (!this.#closed)
          this.#failure = new Error("the coordinator does not answer Health.Check any more", { cause });
        return;
      }
      this.#longestMs = Math.max(this.#longestMs, performance.now() - this.#askedSince);
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }

  /** Begins anew, once a check that is under way was answered. Rejects when a check has failed. */
  async begin(): Promise<void> {
    await this.#answered();
    this.#longestMs = 0;
  }

  /** The longest wait since `begin`, that of the check under way included. Rejects when a check has failed. */
  async end(): Promise<number> {
    await this.#answered();
    return this.#longestMs;
  }

  async #answered(): Promise<void> {
    const now = performance.now();
    while (this.#askedSince < now && !this.#closed && this.#failure === undefined)
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    if (this.#failure !== undefined) throw this.#failure;
  }

  close(): void {
    this.#closed = true;
    this.#link.abort();
  }
}
