import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { Rarely } from "../../lib/log-rarely.ts";
import { hostGuard } from "../../lib/rpc/host-guard.ts";
import type { Log } from "../../lib/log.ts";
import { tagsOf, WAIT_MAX_MS } from "../../mcp/caller.ts";
import type { Endpoint } from "../../mcp/endpoint.ts";
import { refuse } from "../../mcp/exchange.ts";
import { servicesOf } from "../../mcp/services.ts";
import type { Links } from "../../mcp/services.ts";
import { Waits } from "../../mcp/waiting.ts";
import { connectTransport } from "../../lib/rpc/transport.ts";
import type { RunnerSettings } from "../settings/settings.ts";

/** Requests of one run that are answered at a time, and runs and sessions that it waits for. */
const MAX_EXCHANGES = 32;
const MAX_WAITS = 200;

/** Open connections of all runs. */
const MAX_CONNECTIONS = 4_096;

/**
 * Names by which containers reach the machine that they run on. The domain `internal` is reserved, so that no page of another
 * machine can bear one of them and point it here; and who calls must know the capability besides.
 */
const CONTAINER_HOSTS = [
  "host.docker.internal",
  "gateway.docker.internal",
  "host.containers.internal",
  "host.lima.internal",
  "host.orb.internal",
];

/** Longest that a request may take to arrive, and that a connection may stay idle: longer than clients keep theirs. */
const TIMEOUTS = { requestTimeout: 30_000, keepAliveTimeout: 65_000 };

/** The run that a capability is for. */
export interface McpRun {
  readonly runId: string;
  readonly sessionId: string;
  /** Token of the run; what it may do ends with its lease. */
  readonly runToken: string;
}

/** A URL at which one run's executor finds the tools. */
export interface McpCapability {
  readonly url: string;
  /** The part of the URL that nobody else may see; absent when the server is somebody else's. */
  readonly secret?: string;
  /** The run has ended: the URL is no longer known, and its connections end. */
  close(): void;
}

/** Where executors find the orchestrator's MCP tools. */
export interface ToolServer {
  open(run: McpRun): McpCapability;
  close(): Promise<void>;
}

export interface McpOptions {
  /** On 127.0.0.1; 0 picks a free one. */
  readonly port: number;
  readonly coordinatorUrl: string;
  readonly tlsCaPem: string | undefined;
  readonly log: Log;
  /** Longest wait of a tool, and for a coordinator that cannot be reached. */
  readonly waitMs?: number;
  readonly patienceMs?: number;
}

/** The port cannot be used; the message says what to do. */
export class McpPortError extends Error {
  override name = "McpPortError";
}

/** The tool server that the settings ask for. @throws McpPortError */
export async function openMcp({ mcp, coordinatorUrl, tlsCaPem }: RunnerSettings, log: Log): Promise<ToolServer> {
  if (mcp.type === "external") return externalMcp(mcp.url);
  return startMcp({ port: mcp.port, coordinatorUrl, tlsCaPem, log });
}

/** A server that somebody else runs: every run gets its URL as it is. */
function externalMcp(url: string): ToolServer {
  return { open: () => ({ url, close: () => undefined }), close: () => Promise.resolve() };
}

/** Who calls by a wrong name calls often: it is logged at once, and then once in this time. */
const REFUSALS_INTERVAL_MS = 60_000;

/**
 * Serves the tools on loopback, to each run at a URL that only its executor is told: no other local process can act for it.
 *
 * @throws McpPortError
 */
export async function startMcp(options: McpOptions): Promise<ToolServer> {
  const { port, coordinatorUrl, tlsCaPem, log } = options;
  const calls = connectTransport(coordinatorUrl, { ca: tlsCaPem });
  const watches = connectTransport(coordinatorUrl, { ca: tlsCaPem });
  const links = { calls: calls.transport, watches: watches.transport };
  const capabilities = new Map<string, Capability>();
  const refusalOf = hostGuard([], "runner", CONTAINER_HOSTS);
  const refusals = new Rarely(REFUSALS_INTERVAL_MS);

  const serve = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const refusal = refusalOf(request);
    if (refusal !== undefined) {
      const times = refusals.again();
      if (times !== undefined) log.warn({ times }, `an MCP request was refused with 403: ${refusal.slice(0, 400)}`);
      return refuse(response, 403, refusal);
    }
    const [path = ""] = (request.url ?? "").split("?", 1);
    // Some clients put a slash after every URL that they are given.
    const capability = capabilities.get(path.replace(/\/$/, ""));
    if (capability === undefined) return refuse(response, 404, "no run has this URL, or it has ended");
    await capability.serve(request, response);
  };
  const server = createServer(TIMEOUTS, (request, response) => {
    serve(request, response).catch((error: unknown) => {
      log.error({ err: error }, "an MCP request could not be served");
      response.destroy();
    });
  });
  server.maxConnections = MAX_CONNECTIONS;
  server.listen(port, "127.0.0.1");
  await once(server, "listening").catch((cause: NodeJS.ErrnoException) => {
    throw new McpPortError(`cannot listen on 127.0.0.1:${port} for --mcp-port: ${cause.message}; 0 picks a free port`, {
      cause,
    });
  });
  // accept() fails when file descriptors run out; the listener lives on.
  server.on("error", (error) => log.warn({ reason: error.message }, "an MCP connection was not accepted"));
  const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

  return {
    open(run) {
      const secret = randomBytes(32).toString("hex");
      const path = `/mcp/${secret}`;
      const capability = new Capability(run, links, options);
      capabilities.set(path, capability);
      return {
        url: base + path,
        secret,
        close: () => {
          capabilities.delete(path);
          capability.close();
        },
      };
    },
    async close() {
      const closed = once(server, "close");
      server.close();
      for (const capability of capabilities.values()) capability.close();
      capabilities.clear();
      server.closeAllConnections();
      calls.abort();
      watches.abort();
      await closed;
    },
  };
}

/** What one run may do, while it runs. */
class Capability {
  readonly #run: McpRun;
  readonly #links: Links;
  readonly #options: McpOptions;
  readonly #sockets = new Set<Socket>();
  #endpoint: Promise<Endpoint> | undefined;

  constructor(run: McpRun, links: Links, options: McpOptions) {
    this.#run = run;
    this.#links = links;
    this.#options = options;
  }

  async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { sessionId } = this.#run;
    const said = request.headers["x-agent-session-id"];
    if (said !== undefined && said !== sessionId) {
      const what = `X-Agent-Session-Id is ${JSON.stringify(said)}, but this URL is of ${sessionId}`;
      return refuse(response, 403, `${what}: leave the header out, or send that id`);
    }
    const { socket } = request;
    if (!this.#sockets.has(socket)) {
      this.#sockets.add(socket);
      socket.once("close", () => this.#sockets.delete(socket));
    }
    this.#endpoint ??= this.#open();
    await (await this.#endpoint).handle(request, response);
  }

  /**
   * Most executors never call, and the library and schemas of MCP cost 150 ms and 14 MB of which every later fork copies the
   * page tables.
   */
  async #open(): Promise<Endpoint> {
    const { mcpEndpoint } = await import("../../mcp/endpoint.ts");
    const { runId, sessionId, runToken } = this.#run;
    const { log, waitMs = WAIT_MAX_MS, patienceMs } = this.#options;
    const services = servicesOf(this.#links, runToken, patienceMs);
    const waits = new Waits(MAX_WAITS);
    return mcpEndpoint({
      callerOf: (headers) => ({ services, sessionId, tags: tagsOf(headers), waits, waitMs }),
      maxExchanges: MAX_EXCHANGES,
      log: log.child({ run_id: runId }),
    });
  }

  close(): void {
    void this.#endpoint?.then((endpoint) => endpoint.close());
    for (const socket of this.#sockets) socket.destroy();
  }
}
