import { createClient } from "@connectrpc/connect";
import type { Client } from "@connectrpc/connect";
import { Report_Kind, RunnerService } from "../gen/agentrunner/v1/runner_service_pb.ts";
import type { RunOffer } from "../gen/agentrunner/v1/runner_service_pb.ts";
import { newId } from "../lib/ids.ts";
import { bearer } from "../lib/rpc/bearer.ts";
import { connectTransport } from "../lib/rpc/transport.ts";
import type { CoordinatorLink } from "../lib/rpc/transport.ts";

/** The least that is a runner: it registers, has one stream open, and reports what it is told to. */
export class BareRunner {
  readonly #link: CoordinatorLink;
  readonly #client: Client<typeof RunnerService>;
  readonly #bootId: string;
  readonly #authorization: { headers: { authorization: string } };
  readonly #runnerId: string;
  /** Hears every offer as it is read from the stream. */
  onOffer: (offer: RunOffer) => void = () => undefined;

  private constructor(link: CoordinatorLink, registered: { runnerId: string; runnerToken: string }, bootId: string) {
    this.#link = link;
    this.#client = createClient(RunnerService, link.transport);
    this.#bootId = bootId;
    this.#runnerId = registered.runnerId;
    this.#authorization = { headers: { authorization: bearer(registered.runnerToken) } };
  }

  /** Registers under `name` and resolves when the stream is open, on a connection of its own. */
  static async open(url: string, name: string, maxRuns: number): Promise<BareRunner> {
    const link = connectTransport(url);
    const bootId = newId("boot");
    const registered = await createClient(RunnerService, link.transport).register({
      hostname: "bench",
      projectDir: "/bench",
      executorProfile: "bench",
      name,
      bootId,
      maxConcurrentRuns: maxRuns,
      protocolMin: 1,
      protocolMax: 1,
    });
    const runner = new BareRunner(link, registered, bootId);
    await runner.#watch();
    return runner;
  }

  async #watch(): Promise<void> {
    const request = { runnerId: this.#runnerId, bootId: this.#bootId };
    const events = this.#client.watchRuns(request, this.#authorization)[Symbol.asyncIterator]();
    await events.next();
    void this.#listen(events);
  }

  async #listen(events: AsyncIterator<{ event: { case?: string | undefined; value?: unknown } }>): Promise<void> {
    try {
      for (let next = await events.next(); next.done !== true; next = await events.next()) {
        if (next.value.event.case === "offer") this.onOffer(next.value.event.value as RunOffer);
      }
    } catch {
      // The end of the bench, or of the coordinator, which the next call meets too.
    }
  }

  accept({ runId, leaseId, attempt }: RunOffer): Promise<unknown> {
    return this.#report({ runId, leaseId, attempt, seq: 1n, kind: Report_Kind.ACCEPT });
  }

  complete({ runId, leaseId, attempt }: RunOffer): Promise<unknown> {
    return this.#report({ runId, leaseId, attempt, seq: 2n, kind: Report_Kind.COMPLETED });
  }

  #report(report: { runId: string; leaseId: string; attempt: number; seq: bigint; kind: Report_Kind }) {
    return this.#client.reportStatus({ runnerId: this.#runnerId, reports: [report] }, this.#authorization);
  }

  close(): void {
    this.#link.abort();
  }
}
