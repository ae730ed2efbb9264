import { createMcpHandler, ProtocolError, ProtocolErrorCode, Server } from "@modelcontextprotocol/server";
import type { CallToolResult, Tool as ListedTool } from "@modelcontextprotocol/server";
import type { JsonObject } from "@bufbuild/protobuf";
import { nearNames } from "../lib/near-names.ts";
import type { HttpRequest, HttpResponse } from "../lib/rpc/http.ts";
import type { Log } from "../lib/log.ts";
import { VERSION } from "../lib/version.ts";
import { acceptable, asJson } from "./answer.ts";
import { readArguments } from "./arguments.ts";
import { INVALID_REQUEST, readBody, rpcError } from "./body.ts";
import type { ToolCaller } from "./caller.ts";
import { adviceOf } from "./errors.ts";
import { admitPage, BODY_MAX_BYTES, exchange, METHODS, refuse } from "./exchange.ts";
import { TOOLS } from "./tools.ts";
import type { Tool } from "./tools.ts";

/** Streams on which a client listens for changes of the tools; there are none. */
const MAX_SUBSCRIPTIONS = 4;

const INSTRUCTIONS =
  "Starts other agents, waits for them and reads what they found. Begin with list_agent_blueprints and " +
  "start_agent_session; the field `next` of an answer says what to do next.";

export interface EndpointOptions {
  /** Who calls, by the headers of the request. */
  readonly callerOf: (headers: Headers) => ToolCaller;
  /**
   * Requests, and calls of tools in them, that are served at a time; a further one gets 429. As many more may be arriving: a
   * further one takes the place of the one that has been arriving longest.
   */
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
  /** Responses to requests whose body is still being read, the oldest first. */
  const arriving = new Set<HttpResponse>();
  /** Responses that are open otherwise, and the calls that each is the answer to. */
  const open = new Map<HttpResponse, number>();
  const busy = () => [...open.values()].reduce((sum, calls) => sum + Math.max(1, calls), 0);
  const tooMany = `${maxExchanges} requests are being answered; repeat when one of them has been`;

  const giveUp = (response: HttpResponse): void => {
    arriving.delete(response);
    response.once("finish", () => response.destroy());
    refuse(
      response,
      408,
      `${maxExchanges} requests began to arrive after this one, whose body is not complete: send it again`,
    );
  };

  const answer = async (request: Request, body: Uint8Array | undefined, response: HttpResponse): Promise<Response> => {
    // A body that was given up must not be acted upon, even when its end came in the same moment.
    if (!arriving.delete(response)) throw new Error("the request was given up");
    const { headers } = request;
    const { events } = acceptable(headers);
    if (body === undefined)
      return refusal(405, `${NO_STREAM}, so that ${request.method} has nothing to do`, { allow: METHODS });
    if (headers.has("content-encoding"))
      return refusal(415, "the body is read as it is: send it without content-encoding");
    const message = readBody(body);
    if (message.type === "refused") return Response.json(message.error, { status: message.status });
    if (message.calls > maxExchanges) {
      // It would never fit: to say that it be repeated, as below, would be no help.
      const error = rpcError(INVALID_REQUEST, `Invalid Request: ${tooManyCalls(message.calls, maxExchanges)}`);
      return Response.json(error, { status: 400 });
    }
    if (busy() + Math.max(1, message.calls) > maxExchanges) return refusal(429, tooMany);
    open.set(response, message.calls);
    const { json: parsedBody } = message;
    const answered = await handler.fetch(request, { parsedBody });
    return events ? answered : asJson(answered, Array.isArray(parsedBody));
  };

  return {
    async handle(request, response) {
      if (closing) return refuse(response, 503, "this server ends");
      if (admitPage(request, response)) return;
      if (busy() >= maxExchanges) return refuse(response, 429, tooMany);
      // Whole requests arrive within moments: what has been on its way longest is slow, or never meant to end.
      const [oldest] = arriving;
      if (oldest !== undefined && arriving.size >= maxExchanges) giveUp(oldest);
      arriving.add(response);
      await exchange(request, response, (web, body) => answer(web, body, response));
      arriving.delete(response);
      open.delete(response);
    },
    async close() {
      closing = true;
      for (const response of [...arriving, ...open.keys()]) response.destroy();
      await handler.close();
    },
  };
}

const NO_STREAM =
  "this is MCP's streamable HTTP: POST a message of JSON-RPC. There are no sessions and no stream of the server's own";

function tooManyCalls(calls: number, most: number): string {
  return `this batch has ${calls} calls of tools, and ${most} may be: send at most ${most} in a batch. Nothing was done`;
}

function refusal(status: number, message: string, headers: Record<string, string> = {}): Response {
  return Response.json(rpcError(-32_000, message), { status, headers });
}

const LISTED: ListedTool[] = TOOLS.map(({ name, description, schema, hints }) => ({
  name,
  description,
  inputSchema: schema as ListedTool["inputSchema"],
  annotations: { ...hints, openWorldHint: false },
}));

/** The low level of the library: its high one reads arguments itself, and refuses them in the words of its schemas. */
function serverFor(caller: ToolCaller, log: Log): Server {
  const capabilities = { tools: { listChanged: false } };
  const server = new Server({ name: "agent-runner", version: VERSION }, { instructions: INSTRUCTIONS, capabilities });
  server.setRequestHandler("tools/list", () => ({ tools: LISTED }));
  server.setRequestHandler("tools/call", async ({ params }, { mcpReq }) =>
    called(toolNamed(params.name), params.arguments ?? {}, caller, mcpReq.signal, log),
  );
  return server;
}

/** @throws ProtocolError, as MCP wants it for a tool that is not there. */
function toolNamed(name: string): Tool {
  const tool = TOOLS.find((tool) => tool.name === name);
  if (tool !== undefined) return tool;
  const names = TOOLS.map((tool) => tool.name);
  const [near] = nearNames(name.slice(0, 64), names);
  const hint = near === undefined ? "" : ` Did you mean ${near}?`;
  const what = `there is no tool ${JSON.stringify(name.slice(0, 64))}.${hint} The tools are ${names.join(", ")}.`;
  throw new ProtocolError(ProtocolErrorCode.InvalidParams, what);
}

async function called(
  tool: Tool,
  given: Readonly<Record<string, unknown>>,
  caller: ToolCaller,
  signal: AbortSignal,
  log: Log,
): Promise<CallToolResult> {
  let hints: readonly string[] = [];
  try {
    const { args, ignored } = readArguments(tool, given);
    hints = ignored;
    const answer = await tool.call(args, caller, signal);
    return answered(
      hints.length === 0 ? answer : { ...answer, ignored_arguments: hints.map((hint) => hint.toWellFormed()) },
    );
  } catch (error) {
    // What a model sent may have been cut in the middle of a character to be shown.
    const text = [adviceOf(error, caller), ...hints].join(" ").toWellFormed();
    log.info({ tool: tool.name, session_id: caller.sessionId, reason: text }, "a tool call failed");
    return { content: [{ type: "text", text }], isError: true };
  }
}

function answered(answer: JsonObject): CallToolResult {
  return { content: [{ type: "text", text: JSON.stringify(answer) }], structuredContent: answer };
}
