import type { Child, Workshop } from "./children.ts";
import type { Measured } from "./figures.ts";
import { quantity } from "./figures.ts";

/** Streams that are open before the first look, so that what the first ones bring to life is not counted. */
const WARM_UP = 500;
const HELPERS = 2;
const FILES_RESERVED = 100;

/**
 * Row 4: memory of a server with many streams, each on a connection of its own, less that with a few, by stream. Clients
 * are in other processes; the server collects its garbage before each look.
 */
export async function idleStreams(workshop: Workshop, quick: boolean): Promise<Measured> {
  const streams = Math.min(quick ? 2000 : 5000, openFilesAllowed() - FILES_RESERVED);
  const coordinator = await workshop.coordinator();
  const ours = await perStream(workshop, coordinator, "openRunners", coordinator.url, streams);
  await coordinator.stop();

  const server = workshop.helper();
  const url = await server.ask<string>("serveStreams");
  const bare = await perStream(workshop, server, "openStreams", url, streams);
  await server.stop();
  return {
    figures: [
      {
        row: 4,
        what: `memory per idle WatchRuns stream, ${streams} open`,
        unit: "KiB",
        median: ours.rssKiB,
        raw: { what: "an idle stream of a bare node:http2 server", value: bare.rssKiB },
        target: { says: "≤ 100 KiB", met: ours.rssKiB <= 100 },
      },
    ],
    notes: [
      `row 4: resident memory, with a registered runner for each; of it JavaScript heap ${quantity(ours.heapKiB, "KiB")} ` +
        `(bare ${quantity(bare.heapKiB, "KiB")}); all ${streams} streams: ${Math.round(ours.totalMiB)} MiB resident ` +
        `(bare ${Math.round(bare.totalMiB)} MiB)`,
    ],
  };
}

async function perStream(workshop: Workshop, server: Child, question: string, url: string, streams: number) {
  const clients = Array.from({ length: HELPERS }, () => workshop.helper());
  let opened = 0;
  const open = async (count: number): Promise<void> => {
    const share = Math.floor(count / HELPERS);
    const shares = clients.map((client, i) => ({ client, n: i === 0 ? count - share * (HELPERS - 1) : share }));
    await Promise.all(shares.map(({ client, n }, i) => client.ask(question, { url, first: opened + i * streams, n })));
    opened += count;
  };
  await open(WARM_UP);
  const before = await server.memory();
  await open(streams - WARM_UP);
  const after = await server.memory();
  await Promise.all(clients.map((client) => client.stop()));
  const added = (streams - WARM_UP) * 1024;
  return {
    rssKiB: (after.rssBytes - before.rssBytes) / added,
    heapKiB: (after.heapBytes - before.heapBytes) / added,
    totalMiB: after.rssBytes / 2 ** 20,
  };
}

function openFilesAllowed(): number {
  const report = process.report.getReport() as { userLimits?: { open_files?: { soft?: number | "unlimited" } } };
  const soft = report.userLimits?.open_files?.soft;
  return typeof soft === "number" ? soft : Infinity;
}
