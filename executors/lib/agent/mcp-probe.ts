import type { McpServerJson } from "../../../lib/invocation.ts";
import { AgentError } from "./agent-error.ts";

/** Time for a server to answer at all. */
const PROBE_MS = 10_000;

/**
 * Sees whether the servers that have an address answer, because many agents go on without a server that is down. Any answer
 * of HTTP counts: what a server wants to be asked is between it and the agent.
 * @throws AgentError MCP_SERVER_FAILED with the names of those that do not.
 */
export async function probeServers(servers: Readonly<Record<string, McpServerJson>>): Promise<void> {
  const probes = Object.entries(servers).map(async ([name, server]) => {
    if (server.type === "stdio") return [];
    try {
      const response = await fetch(server.url, {
        method: "GET",
        headers: { ...server.headers, accept: "application/json, text/event-stream" },
        signal: AbortSignal.timeout(PROBE_MS),
      });
      await response.body?.cancel();
      return [];
    } catch (error) {
      const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
      return [`${name} (${cause instanceof Error ? cause.message : String(cause)})`];
    }
  });
  const failed = (await Promise.all(probes)).flat();
  if (failed.length > 0) {
    throw new AgentError("MCP_SERVER_FAILED", `MCP servers of the run do not answer: ${failed.join(", ")}`);
  }
}
