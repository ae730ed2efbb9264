import type { Coordinator } from "../coordinator.ts";
import type { Store } from "../store/store.ts";
import type { PageResponse } from "./server.ts";

/** The plain pages by path, for GET and HEAD. Each needs a row in access/policy.ts, too. */
export function pages(coordinator: Coordinator): Record<string, () => PageResponse | Promise<PageResponse>> {
  const { store, metrics, dispatcher } = coordinator;
  return {
    "/health": () => text(200, "ok"),
    "/ready": () => readiness(store),
    "/metrics": async () => {
      const runners = (await store.runnerFacts("all")).filter(({ left }) => !left);
      const connected = runners.filter(({ facts, bootId }) => dispatcher.hasStream(facts.runnerId, bootId));
      const fleet = {
        registered: runners.length,
        streams: dispatcher.streams,
        freeSlots: connected.reduce((sum, { facts }) => sum + (facts.draining ? 0 : facts.freeSlots), 0),
      };
      const body = await metrics.text(await store.gauges(), fleet, coordinator.now());
      return { status: 200, contentType: metrics.contentType, body };
    },
  };
}

/** Ready means able to write: a run is acknowledged only when it is on disk. */
async function readiness(store: Store): Promise<PageResponse> {
  try {
    await store.probe();
    return text(200, "ready");
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    return text(503, `not ready: ${message}`);
  }
}

function text(status: number, body: string): PageResponse {
  return { status, contentType: "text/plain; charset=utf-8", body: `${body}\n` };
}
