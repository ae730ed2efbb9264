import { randomBytes } from "node:crypto";
import type { ServerResponse } from "node:http";
import { Code, ConnectError, createConnectRouter } from "@connectrpc/connect";
import type { ConnectRouter, ConnectRouterOptions, Interceptor } from "@connectrpc/connect";
import {
  compressionGzip,
  universalRequestFromNodeRequest,
  universalResponseToNodeResponse,
} from "@connectrpc/connect-node";
import { createValidateInterceptor } from "@connectrpc/validate";
import type { Gate } from "../access/gate.ts";
import { Health } from "../../gen/grpc/health/v1/health_pb.ts";
import { authorityOf, bracketed, hostGuard, isLoopback } from "../../lib/rpc/host-guard.ts";
import type { HttpRequest, HttpResponse } from "../../lib/rpc/http.ts";
import { MESSAGE_MAX_BYTES } from "../../lib/protocol/limits.ts";
import type { Log } from "../../lib/log.ts";
import { BODY_OPTIONS, boundedJson } from "./bodies.ts";
import { fittingPages, JSON_RESPONSE_FACTOR } from "./fitting-pages.ts";
import { dropEndlessDeadlines } from "./deadlines.ts";
import { createHealthBoard, ServingStatus } from "./health.ts";
import type { HealthBoard } from "./health.ts";
import { Rarely } from "../../lib/log-rarely.ts";
import { openOnePort } from "./one-port.ts";
import { mountReflection } from "./reflection.ts";

/** What a plain HTTP page returns. */
export interface PageResponse {
  status: number;
  contentType: string;
  body: string;
}

/** Host without brackets; port 0 picks a free one. */
export interface ListenAddress {
  host: string;
  port: number;
}

export interface ServerOptions {
  listen: ListenAddress;
  /** PEM texts. */
  tls?: { certPem: string; keyPem: string } | undefined;
  /** Allows a non-loopback address without TLS. */
  insecure?: boolean | undefined;
  /** Decides who may call. Every method, page and protocol that is served must be in its policy. */
  gate: Gate;
  /** Mounts the services; health and reflection are added to whatever it mounts. */
  routes: (router: ConnectRouter) => void;
  /** Run before a request is validated and passes the gate, the first one outermost. */
  interceptors?: Interceptor[] | undefined;
  /** Plain pages by path (`/health`, `/ready`, `/metrics`), for GET and HEAD. */
  pages?: Readonly<Record<string, () => PageResponse | Promise<PageResponse>>> | undefined;
  /** Other protocols by path (`/mcp`): they get requests of every method, after the same check of Host and Origin. */
  protocols?: Readonly<Record<string, (request: HttpRequest, response: HttpResponse) => Promise<void>>> | undefined;
  /** Names besides loopback and the listen address that Host and Origin may carry. */
  allowedHosts?: readonly string[] | undefined;
  log: Log;
  /** Largest message, after decompression, in either direction. Default: MESSAGE_MAX_BYTES. */
  messageMaxBytes?: number | undefined;
  /** See OnePortOptions. Defaults: 10 s, 60 s, 15 s, 10 s. */
  firstByteTimeoutMs?: number | undefined;
  requestTimeoutMs?: number | undefined;
  pingIntervalMs?: number | undefined;
  pingTimeoutMs?: number | undefined;
}

export interface RunningServer {
  /** Where local clients reach it: `http://127.0.0.1:8765`. */
  readonly url: string;
  /** The address that it listens on, which others may reach, too: `https://0.0.0.0:8765`. */
  readonly listensOn: string;
  readonly port: number;
  readonly health: HealthBoard;
  /** Gives new connections another certificate; those that are open keep theirs. */
  setTls(tls: { certPem: string; keyPem: string }): void;
  /** Aborted when stop() begins, as is the signal of every call, with an UNAVAILABLE error that streams must end by throwing. */
  readonly shutdownSignal: AbortSignal;
  /** Open TCP connections. */
  connections(): number;
  /** Calls under way, streams included. */
  calls(): number;
  /**
   * Ends every stream with UNAVAILABLE, lets calls in flight finish, and cuts what is left after `graceMs`. Resolves when
   * the port is free and no connection is open; a further call waits for the first.
   */
  stop(graceMs: number): Promise<void>;
}

/** The server may not, or cannot, listen; the message says what to do about it. */
export class ListenError extends Error {
  override name = "ListenError";
  /** `INSECURE`, or the code of the system: EADDRINUSE, EACCES, … */
  readonly code: string;
  constructor(message: string, code: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** Refuses to serve other machines in plain text, unless told to (ADR 14). Throws ListenError. */
export function checkListen(
  { host, port }: ListenAddress,
  { tls, insecure }: Pick<ServerOptions, "tls" | "insecure">,
): void {
  if (isLoopback(host) || tls !== undefined || insecure === true) return;
  throw new ListenError(
    `refusing to listen on ${bracketed(host)}:${port} without TLS: other machines can reach it; ` +
      "give --tls-cert and --tls-key, or --insecure if the network is trusted",
    "INSECURE",
  );
}

/** Serves the routes over gRPC, gRPC-web and Connect, on one port, until stop(). Throws ListenError, and Error when the gate does not know who may call something. */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  checkListen(options.listen, options);
  const { log, listen, tls } = options;
  const { router, health } = mountRoutes(options);
  const shutdown = new AbortController();
  const calls = new Set<AbortController>();
  const port = await openOnePort({
    ...listen,
    tls,
    handler: requestHandler(options, router, calls),
    firstByteTimeoutMs: options.firstByteTimeoutMs ?? 10_000,
    requestTimeoutMs: options.requestTimeoutMs ?? 60_000,
    pingIntervalMs: options.pingIntervalMs ?? 15_000,
    pingTimeoutMs: options.pingTimeoutMs ?? 10_000,
  }).catch((cause: NodeJS.ErrnoException) => {
    throw listenError(listen, cause);
  });
  let stopped: Promise<void> | undefined;
  const stop = (graceMs: number) => {
    log.info({ connections: port.connections(), grace_ms: graceMs }, "server stops");
    health.set(ServingStatus.NOT_SERVING);
    const reason = new ConnectError("the server is shutting down", Code.Unavailable);
    shutdown.abort(reason);
    for (const call of calls) call.abort(reason);
    return port.close(graceMs);
  };
  const urlOf = (host: string): string => `${tls ? "https" : "http"}://${bracketed(host)}:${port.port}`;
  return {
    url: urlOf(reachableHost(listen.host)),
    listensOn: urlOf(listen.host),
    port: port.port,
    health,
    setTls: (tls) => port.setTls(tls),
    shutdownSignal: shutdown.signal,
    connections: () => port.connections(),
    calls: () => calls.size,
    stop: (graceMs) => (stopped ??= stop(graceMs)),
  };
}

/** How the services are called, over the port and within this process alike. */
export function routerOptions(
  options: Pick<ServerOptions, "gate" | "interceptors" | "log" | "messageMaxBytes">,
): ConnectRouterOptions {
  const messageMaxBytes = options.messageMaxBytes ?? MESSAGE_MAX_BYTES;
  return {
    readMaxBytes: messageMaxBytes,
    // Of JSON, which is larger. In binary `fittingPages` bounds what a read returns; a stream has one thing in a message, and a
    // run with its prompt and result may be larger there than what this server reads.
    writeMaxBytes: JSON_RESPONSE_FACTOR * messageMaxBytes,
    // No brotli: at Node's default quality one large reply keeps a thread busy for seconds.
    acceptCompression: [compressionGzip],
    ...BODY_OPTIONS,
    interceptors: [
      hideUnexpected(options.log),
      ...(options.interceptors ?? []),
      boundedJson,
      fittingPages(messageMaxBytes),
      createValidateInterceptor(),
      options.gate.interceptor,
    ],
  };
}

function mountRoutes(options: ServerOptions) {
  const router = createConnectRouter(routerOptions(options));
  options.routes(router);
  const services = [...new Set(router.handlers.map(({ service }) => service))];
  const health = createHealthBoard(services.map(({ typeName }) => typeName));
  router.service(Health, health.implementation);
  mountReflection(router, [...services, Health]);
  const { pages = {}, protocols = {}, gate } = options;
  gate.check(
    router.handlers.map(({ method }) => method),
    [...Object.keys(pages), ...Object.keys(protocols)],
  );
  return { router, health };
}

/** Who calls by a wrong name calls often: it is logged at once, and then once in this time. */
const REFUSALS_INTERVAL_MS = 60_000;

/** Refusals that Connect makes without a word, and what people with curl need to read. */
const WORDLESS: Readonly<Record<number, string>> = {
  405: "a call is a POST",
  415: "a call needs a content type it can read, such as -H 'content-type: application/json'",
};

/**
 * The handler of both HTTP versions. Replaces connectNodeAdapter, which writes failed replies to the console. Calls in
 * flight are in `calls`: Connect's own shutdownSignal keeps a listener per call, and walks all of them at each new call.
 */
function requestHandler(
  { allowedHosts = [], listen, log, pages = {}, protocols = {} }: ServerOptions,
  router: ConnectRouter,
  calls: Set<AbortController>,
) {
  const rpcs = new Map(router.handlers.map((rpc) => [rpc.requestPath, rpc]));
  const pageByPath = new Map(Object.entries(pages));
  const protocolByPath = new Map(Object.entries(protocols));
  const refusals = new Rarely(REFUSALS_INTERVAL_MS);
  const refusalOf = hostGuard([...allowedHosts, bracketed(listen.host)], "coordinator");

  async function serve(request: HttpRequest, response: HttpResponse): Promise<void> {
    const refusal = refusalOf(request);
    const path = request.url?.split("?", 1)[0] ?? "";
    if (refusal !== undefined) {
      const times = refusals.again();
      if (times !== undefined)
        log.warn(
          { times, path: path.slice(0, 200) },
          `refused with 403: ${refusal.slice(0, 400)}; --allowed-host allows a name`,
        );
      return send(response, connectError(403, "permission_denied", refusal));
    }
    const page = pageByPath.get(path);
    if (page !== undefined) {
      if (request.method === "GET" || request.method === "HEAD") return send(response, await page());
      return send(response, { ...text(405, `${path} answers GET only`), headers: { allow: "GET, HEAD" } });
    }
    // Some clients put a slash after every URL that they are given.
    const protocol = protocolByPath.get(path.replace(/\/$/, ""));
    if (protocol !== undefined) return protocol(request, response);
    const rpc = rpcs.get(path);
    if (rpc === undefined) return send(response, text(404, `nothing is served at ${path}`));
    // The adapter below builds a URL of it.
    const authority = authorityOf(request);
    if (authority === undefined) return send(response, text(400, "a call needs a Host header"));
    if ("authority" in request) request.headers[":authority"] = authority;
    dropEndlessDeadlines(request.headers);
    const universal = universalRequestFromNodeRequest(request, response, undefined, undefined);
    const call = new AbortController();
    universal.signal.addEventListener("abort", () => call.abort(universal.signal.reason), { once: true });
    calls.add(call);
    // Not when the response was written: that promise waits for an event that a response never emits.
    response.once("close", () => calls.delete(call));
    const answer = await rpc({ ...universal, signal: call.signal });
    // nginx and proxies that follow it keep a response back until their buffer is full, unless they are told not to.
    if (rpc.method.methodKind !== "unary") answer.header = withHeader(answer.header, "x-accel-buffering", "no");
    const words = answer.body === undefined ? WORDLESS[answer.status] : undefined;
    if (words === undefined) return await universalResponseToNodeResponse(answer, response);
    send(response, { ...text(answer.status, words), headers: Object.fromEntries(answer.header ?? []) });
  }

  return (request: HttpRequest, response: HttpResponse): void => {
    serve(request, response).catch((reason: unknown) => {
      const clientLeft =
        reason instanceof ConnectError && (reason.code === Code.Aborted || reason.code === Code.Canceled);
      if (clientLeft) log.debug({ reason: reason.message, path: request.url }, "the client left before its answer");
      else log.error({ err: reason, path: request.url }, "the answer could not be sent");
      if (response.headersSent) response.destroy();
      else send(response, text(500, "internal error"));
    });
  };
}

/**
 * Turns what a handler should not have thrown into INTERNAL with an id, which the log has too, with the cause.
 * An AbortError of a call that is over becomes the reason why it is over.
 */
function hideUnexpected(log: Log): Interceptor {
  return (next) => async (request) => {
    const fail = (error: unknown): never => {
      if (error instanceof ConnectError) throw error;
      if (request.signal.aborted && error instanceof Error && error.name === "AbortError") {
        throw ConnectError.from(request.signal.reason, Code.Canceled);
      }
      const errorId = `err_${randomBytes(6).toString("hex")}`;
      log.error(
        { err: error, error_id: errorId, rpc: `${request.service.typeName}/${request.method.name}` },
        "handler failed",
      );
      throw new ConnectError(`internal error ${errorId}; the log of the coordinator has its cause`, Code.Internal);
    };
    try {
      const response = await next(request);
      return response.stream ? { ...response, message: guarded(response.message, fail) } : response;
    } catch (error) {
      return fail(error);
    }
  };
}

/** Costs 0.15 µs a message, of the 7 to 11 that sending one takes. */
async function* guarded<T>(source: AsyncIterable<T>, fail: (error: unknown) => never): AsyncIterable<T> {
  try {
    yield* source;
  } catch (error) {
    fail(error);
  }
}

function withHeader(headers: ConstructorParameters<typeof Headers>[0], name: string, value: string): Headers {
  const all = new Headers(headers);
  all.set(name, value);
  return all;
}

function text(status: number, message: string): PageResponse {
  return { status, contentType: "text/plain; charset=utf-8", body: `${message}\n` };
}

/** An error in the JSON of the Connect protocol, which its clients and people with curl both read. */
function connectError(status: number, code: string, message: string): PageResponse {
  return { status, contentType: "application/json", body: `${JSON.stringify({ code, message })}\n` };
}

function send(
  response: HttpResponse,
  { status, contentType, body, headers }: PageResponse & { headers?: object },
): void {
  // Both versions have these two methods, but their types do not unite.
  const either = response as ServerResponse;
  either.writeHead(status, { "content-type": contentType, "content-length": Buffer.byteLength(body), ...headers });
  either.end(body);
}

function reachableHost(host: string): string {
  return { "0.0.0.0": "127.0.0.1", "::": "::1" }[host] ?? host;
}

const LISTEN_FAILURES: Readonly<Record<string, string>> = {
  EADDRINUSE: "the port is in use (EADDRINUSE); --listen 127.0.0.1:0 picks a free one, `ss -ltnp` shows who holds it",
  EACCES: "not allowed (EACCES); ports below 1024 need rights, --listen 127.0.0.1:8765 does not",
  EADDRNOTAVAIL: "this machine has no such address (EADDRNOTAVAIL); --listen 127.0.0.1:8765 always works",
  ENOTFOUND: "the host name is unknown (ENOTFOUND); --listen 127.0.0.1:8765 always works",
};

function listenError({ host, port }: ListenAddress, cause: NodeJS.ErrnoException): ListenError {
  const code = cause.code ?? "UNKNOWN";
  const what = LISTEN_FAILURES[code] ?? cause.message;
  return new ListenError(`cannot listen on ${bracketed(host)}:${port}: ${what}`, code, { cause });
}
