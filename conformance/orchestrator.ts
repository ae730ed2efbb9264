import { once } from "node:events";
import { createServer } from "node:http";
import type { IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { createMcpHandler, Server } from "@modelcontextprotocol/server";
import type { Tool as ListedTool } from "@modelcontextprotocol/server";
import { acceptable, asJson } from "../mcp/answer.ts";
import { exchange } from "../mcp/exchange.ts";
import { TOOLS } from "../mcp/tools.ts";
import type { ToolCall } from "./judge.ts";

/** Two MCP servers on one port: one with the orchestrator's tools, which start nothing, and one of a blueprint. */
export interface FakeOrchestrator {
  readonly orchestratorUrl: string;
  readonly blueprintUrl: string;
  /** Calls of tools, in the order in which they came. */
  readonly calls: readonly ToolCall[];
  /** Headers of the requests that came to the blueprint's server, the first of each client included. */
  readonly visits: readonly ToolCall["headers"][];
  close(): Promise<void>;
}

/** Calls, and requests, that are remembered. */
const KEPT_MAX = 1000;

const LISTED: Readonly<Record<ToolCall["server"], ListedTool[]>> = {
  orchestrator: TOOLS.map(({ name, description, schema }) => ({
    name,
    description,
    inputSchema: schema as ListedTool["inputSchema"],
  })),
  blueprint: [
    {
      name: "check_headers",
      description: "Answers yes.",
      inputSchema: { type: "object", properties: {}, additionalProperties: false },
    },
  ],
};

/** Answers of the orchestrator's tools, by name. */
const ANSWERS: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  start_agent_session: {
    session_id: "ses_check_child",
    run_id: "run_check_child",
    state: "pending",
    next: "When all you need is started, end your turn: you are resumed with the result when it has ended.",
  },
  list_agent_blueprints: { blueprints: [] },
};

export async function startFakeOrchestrator(): Promise<FakeOrchestrator> {
  const calls: ToolCall[] = [];
  const visits: ToolCall["headers"][] = [];
  const handlers = { orchestrator: handlerOf("orchestrator", calls), blueprint: handlerOf("blueprint", calls) };
  const server = createServer((request, response) => {
    const name = serverOf(request);
    void exchange(request, response, async (web, body) => {
      if (name === undefined) return Response.json({ error: "no such path" }, { status: 404 });
      if (name === "blueprint" && visits.length < KEPT_MAX) visits.push(Object.fromEntries(web.headers));
      if (body === undefined) return new Response(null, { status: 405, headers: { allow: "POST" } });
      const { events } = acceptable(web.headers);
      const parsedBody: unknown = JSON.parse(Buffer.from(body).toString("utf8"));
      const answer = await handlers[name].fetch(web, { parsedBody });
      return events ? answer : asJson(answer, Array.isArray(parsedBody));
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    orchestratorUrl: `${url}/orchestrator`,
    blueprintUrl: `${url}/blueprint`,
    calls,
    visits,
    async close() {
      const closed = once(server, "close");
      server.close();
      await Promise.all(Object.values(handlers).map((handler) => handler.close()));
      server.closeAllConnections();
      await closed;
    },
  };
}

function serverOf({ url = "" }: IncomingMessage): ToolCall["server"] | undefined {
  return url.startsWith("/orchestrator") ? "orchestrator" : url.startsWith("/blueprint") ? "blueprint" : undefined;
}

function handlerOf(name: ToolCall["server"], calls: ToolCall[]) {
  return createMcpHandler(({ requestInfo }) => {
    const headers = Object.fromEntries(requestInfo?.headers ?? []);
    const server = new Server({ name: `check-${name}`, version: "1" }, { capabilities: { tools: {} } });
    server.setRequestHandler("tools/list", () => ({ tools: LISTED[name] }));
    server.setRequestHandler("tools/call", ({ params }) => {
      const call = { server: name, tool: params.name, args: params.arguments ?? {}, headers };
      if (calls.length < KEPT_MAX) calls.push(call);
      const answer = { ...(ANSWERS[params.name] ?? { ok: true }) };
      return { content: [{ type: "text", text: JSON.stringify(answer) }], structuredContent: answer };
    });
    return server;
  });
}
