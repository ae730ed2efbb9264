import { createMcpHandler, McpServer } from "@modelcontextprotocol/server";
import type { CallToolResult } from "@modelcontextprotocol/server";
import type { JsonObject } from "@bufbuild/protobuf";
import type { HttpRequest, HttpResponse } from "../lib/rpc/http.ts";
import type { Log } from "../lib/log.ts";
import { VERSION } from "../lib/version.ts";
import type { ToolCaller } from "./caller.ts";
import { adviceOf } from "./errors.ts";
import { BODY_MAX_BYTES, exchange, refuse } from "./exchange.ts";
import { TOOLS } from "./tools.ts";

/** Streams on which a client listens for changes of the tools; there are none. */
const MAX_SUBSCRIPTIONS = 4;

const INSTRUCTIONS =
  "Starts other agents, waits for them and reads what they found. Begin with list_agent_blueprints and " +
  "start_agent_session; the field `next` of an answer says what to do next.";

export interface EndpointOptions {
  /** Who calls, by the headers of the request. */
  readonly callerOf: (headers: Headers) => ToolCaller;
  /** Requests that are served at a time; a further one gets 429. */
  readonly maxExchanges: number;
  readonly log: Log;
}

/** The tools over MCP's streamable HTTP, without sessions of its own: each request is complete, and every revision of MCP is served. */
export interface Endpoint {
  /** Serves one request. Never rejects. */
  handle(request: HttpRequest, response: HttpResponse): Promise<void>;
  /** Ends what is being served; further requests get 503. */
  close(): Promise<void>;
}

export function mcpEndpoint({ callerOf, maxExchanges, log }: EndpointOptions): Endpoint {
  let closing = false;
  const handler = createMcpHandler(
    ({ requestInfo }) => serverFor(callerOf(requestInfo?.headers ?? new Headers()), log),
    {
      maxRequestBodySize: BODY_MAX_BYTES,
      maxSubscriptions: MAX_SUBSCRIPTIONS,
      onerror: (error) => log.debug({ reason: error.message }, "an MCP request was refused"),
    },
  );
  const open = new Set<HttpResponse>();
  return {
    async handle(request, response) {
      if (closing) return refuse(response, 503, "this server ends");
      if (open.size >= maxExchanges) {
        return refuse(response, 429, `${maxExchanges} requests are being answered; repeat when one of them has been`);
      }
      open.add(response);
      await exchange(request, response, handler.fetch);
      open.delete(response);
    },
    async close() {
      closing = true;
      for (const response of open) response.destroy();
      await handler.close();
    },
  };
}

function serverFor(caller: ToolCaller, log: Log): McpServer {
  const server = new McpServer({ name: "agent-runner", version: VERSION }, { instructions: INSTRUCTIONS });
  for (const { name, description, input, hints, call } of TOOLS) {
    const config = { description, inputSchema: input, annotations: { ...hints, openWorldHint: false } };
    server.registerTool(name, config, async (args, { mcpReq }) => {
      try {
        return answered(await call(args, caller, mcpReq.signal));
      } catch (error) {
        const text = adviceOf(error);
        log.info({ tool: name, session_id: caller.sessionId, reason: text }, "a tool call failed");
        return { content: [{ type: "text", text }], isError: true };
      }
    });
  }
  return server;
}

function answered(answer: JsonObject): CallToolResult {
  return { content: [{ type: "text", text: JSON.stringify(answer) }], structuredContent: answer };
}
