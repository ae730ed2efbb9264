import type { Transport } from "@connectrpc/connect";
import { bearerToken } from "../../lib/rpc/bearer.ts";
import type { HttpRequest, HttpResponse } from "../../lib/rpc/http.ts";
import type { Log } from "../../lib/log.ts";
import { tagsOf, WAIT_MAX_MS } from "../../mcp/caller.ts";
import type { Endpoint } from "../../mcp/endpoint.ts";
import { servicesOf } from "../../mcp/services.ts";
import { Waits } from "../../mcp/waiting.ts";

/** Requests of all clients that may be under way, and runs and sessions that they may wait for, at a time. */
const MAX_EXCHANGES = 256;
const MAX_WAITS = 1_000;

/** The tools for people's own MCP clients. */
export interface McpPage {
  handle(request: HttpRequest, response: HttpResponse): Promise<void>;
  close(): Promise<void>;
}

/**
 * Serves the tools with the services that `local` reaches. Each call of a tool is a call to these services with the client's
 * own `authorization`, so that the gate decides about it as about every other call. The session named in
 * `X-Agent-Session-Id` becomes the parent of what the client starts.
 */
export function mcpPage(local: Transport, log: Log): McpPage {
  const waits = new Waits(MAX_WAITS);
  const links = { calls: local, watches: local };
  let endpoint: Promise<Endpoint> | undefined;
  const open = async (): Promise<Endpoint> => {
    // Loaded at the first request: 150 ms and 14 MB that many coordinators never need.
    const { mcpEndpoint } = await import("../../mcp/endpoint.ts");
    return mcpEndpoint({
      callerOf: (headers) => ({
        services: servicesOf(links, bearerToken(headers)),
        sessionId: headers.get("x-agent-session-id") || undefined,
        tags: tagsOf(headers),
        waits,
        waitMs: WAIT_MAX_MS,
      }),
      maxExchanges: MAX_EXCHANGES,
      log,
    });
  };
  return {
    handle: async (request, response) => (await (endpoint ??= open())).handle(request, response),
    close: async () => (await endpoint)?.close(),
  };
}
