import { createClient } from "@connectrpc/connect";
import { RunService } from "../gen/agentrunner/v1/run_service_pb.ts";
import type { RunOffer } from "../gen/agentrunner/v1/runner_service_pb.ts";
import { connectTransport } from "../lib/rpc/transport.ts";
import { BareRunner } from "./bare-runner.ts";
import type { Workshop } from "./children.ts";
import type { Measured } from "./figures.ts";
import { BareTable, EmptyCalls } from "./raw.ts";
import { median, percentile } from "./stats.ts";

/**
 * Row 1: one run after the other on an idle coordinator with one runner. Client and runner have a connection each and
 * share this process.
 */
export async function offerLatency(workshop: Workshop, quick: boolean): Promise<Measured> {
  const [warmUp, runs] = quick ? [100, 400] : [500, 3000];
  const coordinator = await workshop.coordinator();
  const runner = await BareRunner.open(coordinator.url, "one", 4);
  const link = connectTransport(coordinator.url);
  const client = createClient(RunService, link.transport);
  const empty = new EmptyCalls(coordinator.url);
  const bare = new BareTable(workshop.dir, "row-1");
  const samples = { offer: [] as number[], accept: [] as number[], call: [] as number[], commit: [] as number[] };
  for (let i = 0; i < warmUp + runs; i += 1) {
    const offered = Promise.withResolvers<{ offer: RunOffer; at: number }>();
    runner.onOffer = (offer) => offered.resolve({ offer, at: performance.now() });
    const start = performance.now();
    const created = client.createRun({ prompt: "hello" });
    const { offer, at } = await offered.promise;
    await runner.accept(offer);
    const accepted = performance.now();
    await Promise.all([created, runner.complete(offer)]);
    // The limits are measured between the runs, so that what disturbs the machine disturbs both.
    const call = await empty.roundTripMs();
    const commit = bare.commitMs(1);
    if (i < warmUp) continue;
    samples.offer.push(at - start);
    samples.accept.push(accepted - at);
    samples.call.push(call);
    samples.commit.push(commit);
  }
  for (const end of [runner, empty, bare]) end.close();
  link.abort();
  await coordinator.stop();

  const call = median(samples.call);
  const commit = median(samples.commit);
  const [p50, p99] = [median(samples.offer), percentile(samples.offer, 0.99)];
  return {
    figures: [
      {
        row: 1,
        what: "CreateRun → offer on the stream",
        unit: "ms",
        median: p50,
        p99,
        raw: { what: "an empty call and two bare commits", value: call + 2 * commit },
        target: { says: "median ≤ 2 ms, p99 ≤ 20 ms", met: p50 <= 2 && p99 <= 20 },
      },
      {
        row: 1,
        what: "offer → accept answered",
        unit: "ms",
        median: median(samples.accept),
        p99: percentile(samples.accept, 0.99),
        raw: { what: "an empty call and a bare commit", value: call + commit },
      },
    ],
    notes: [
      `row 1: ${runs} runs, one after the other; an empty call (Health.Check) took ${spread(samples.call)}, ` +
        `a bare commit of one row ${spread(samples.commit)}`,
    ],
  };
}

function spread(samples: readonly number[]): string {
  return `${median(samples).toFixed(2)} ms (p99 ${percentile(samples, 0.99).toFixed(2)})`;
}
