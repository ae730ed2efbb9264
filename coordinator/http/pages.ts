import { PROTOCOL } from "../../lib/protocol/version.ts";
import { VERSION } from "../../lib/version.ts";
import type { Coordinator } from "../coordinator.ts";
import type { Store } from "../store/store.ts";
import type { PageResponse } from "./server.ts";

/** For people who look with a browser or curl whether, and what, this is. */
const FRONT_PAGE = `agent-coordinator ${VERSION}, protocol ${PROTOCOL.min} to ${PROTOCOL.max}

/health   200 while the process lives
/ready    200 when the store can be written, else 503 with the reason
/metrics  text for Prometheus
/mcp      the tools for MCP clients

Runs and sessions are behind RPCs: gRPC, gRPC-web and Connect, on this port. With curl:

  curl -s URL/agentrunner.v1.RunService/ListRuns -H 'content-type: application/json' -d '{}'

People use \`ao\`: \`ao -c URL runners\`, \`ao --help\`. The guide is in docs/ and README.md of the package agent-runner.`;

/** The plain pages by path, for GET and HEAD. Each needs a row in access/policy.ts, too. */
export function pages(coordinator: Coordinator): Record<string, () => PageResponse | Promise<PageResponse>> {
  const { store, metrics, dispatcher } = coordinator;
  return {
    "/": () => text(200, FRONT_PAGE),
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
