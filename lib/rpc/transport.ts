import { Code, ConnectError } from "@connectrpc/connect";
import type { Interceptor, Transport } from "@connectrpc/connect";
import { Http2SessionManager, createConnectTransport } from "@connectrpc/connect-node";
import type { ClientHttp2Stream } from "node:http2";
import type { Socket } from "node:net";
import { EXIT } from "../exit-codes.ts";
import { refused, unreachable } from "./call-trouble.ts";
import type { CallTrouble } from "./call-trouble.ts";
import { describeForeignAnswer, withoutBlame } from "./foreign-answers.ts";
import { getPage } from "./get-page.ts";
import type { Page } from "./get-page.ts";
import { routeTo } from "./proxy.ts";
import type { Route } from "./proxy.ts";
import { speaksTls } from "./speaks-tls.ts";
import { NoWayYet, Way } from "./way.ts";
import { ProxyError, openTunnel } from "./tunnel.ts";
import { isStoreTrouble } from "./error-info.ts";
import { CLIENT_WRITE_MAX_BYTES, MESSAGE_MAX_BYTES } from "../protocol/limits.ts";

/** How to connect. */
export interface TransportOptions {
  /** PEM of the certificate authorities to trust instead of the system's. Only for https. */
  readonly ca?: string | undefined;
  /** Time without a byte after which an HTTP/2 PING asks whether the peer is still there. Default 10 s. */
  readonly pingIntervalMs?: number;
  /** Time that the peer has to answer a PING before the connection and its calls end. Default 5 s. */
  readonly pingTimeoutMs?: number;
  /** Hears of bytes of an answer, with the path of its call: also while a message is on its way and not whole. */
  readonly onBytes?: (path: string) => void;
  /** Interceptors of every call, outermost first. */
  readonly interceptors?: readonly Interceptor[];
  /** Variables that may name a proxy. Default: those of the process. */
  readonly env?: Readonly<Record<string, string | undefined>>;
}

/** One HTTP/2 connection to a coordinator, opened by the first call and reopened when it broke. */
export interface CoordinatorLink {
  readonly transport: Transport;
  /** A plain page at this path, over the same connection. Rejects with ConnectError. */
  readonly page: (path: string, timeoutMs: number) => Promise<Page>;
  /** Ends the connection and its calls with CANCELED; the next call opens a new one. */
  abort(): void;
}

/** Connect protocol over HTTP/2: half the cost of gRPC between two ends that are connect-node, as `npm run bench` measures. */
export function connectTransport(url: string, options: TransportOptions = {}): CoordinatorLink {
  const { ca, env = process.env } = options;
  const route = routeTo(url, env);
  const pings = { pingIntervalMs: options.pingIntervalMs ?? 10_000, pingTimeoutMs: options.pingTimeoutMs ?? 5_000 };
  const openWay = route.type === "proxy" ? (signal: AbortSignal) => openTunnel(url, route, ca, signal) : undefined;
  const sessions = new SteadySessionManager(url, pings, ca, openWay);
  sessions.onBytes = options.onBytes;
  const transport = createConnectTransport({
    baseUrl: url,
    httpVersion: "2",
    sessionManager: sessions,
    readMaxBytes: MESSAGE_MAX_BYTES,
    writeMaxBytes: CLIENT_WRITE_MAX_BYTES,
    // A coordinator is near, and an inflated message cannot surprise us.
    acceptCompression: [],
    interceptors: [...(options.interceptors ?? []), explained(url, sessions, route), rebuildPoisoned(sessions)],
  });
  const base = new URL(url).pathname.replace(/\/$/, "");
  const page = (path: string, timeoutMs: number) =>
    getPage(sessions, base + path, timeoutMs).catch(async (error: unknown) => {
      throw await explanation(error, url, sessions, route);
    });
  return { transport, page, abort: () => sessions.abort() };
}

/** Time that a port has to take part in a TLS handshake. */
const TLS_PROBE_MS = 2_000;

/** Why nothing was answered, when that can be found out. Its code is what `describeErrno` reads. */
class WayError extends Error {
  readonly code: "SPEAKS_TLS" | "PROXY_IGNORED";
  constructor(code: "SPEAKS_TLS" | "PROXY_IGNORED", message: string) {
    super(message);
    this.code = code;
  }
}

/** Failures of the way are failures of the way, for unary calls and within streams, and say what can be found out about them. */
function explained(url: string, sessions: SteadySessionManager, route: Route): Interceptor {
  return (next) => async (request) => {
    try {
      const response = await next(request);
      return response.stream ? { ...response, message: withoutBlameIn(response.message) } : response;
    } catch (error) {
      throw request.signal.aborted ? error : await explanation(error, url, sessions, route);
    }
  };
}

async function* withoutBlameIn<T>(messages: AsyncIterable<T>): AsyncIterable<T> {
  try {
    yield* messages;
  } catch (error) {
    throw withoutBlame(error);
  }
}

/** What a call gets whose connection ends without a word. */
const LOST: ReadonlySet<Code> = new Set([Code.Aborted, Code.Canceled, Code.Internal]);

async function explanation(
  error: unknown,
  url: string,
  sessions: SteadySessionManager,
  route: Route,
): Promise<unknown> {
  if (!(error instanceof ConnectError)) return withoutBlame(error);
  const because = (cause: Error) => new ConnectError(cause.message, Code.Unavailable, undefined, undefined, cause);
  // A proxy can go away at any time.
  if (causes(error).some((cause) => cause instanceof ProxyError)) return because(error);
  // Where something answered before, the way is right.
  if (sessions.answered) return withoutBlame(error);
  const errno = errnoOf(error);
  if (errno === undefined ? LOST.has(error.code) : errno === "ERR_HTTP2_ERROR") {
    const tls = route.type !== "proxy" && url.startsWith("http:") && (await speaksTls(url, TLS_PROBE_MS));
    if (tls) return because(new WayError("SPEAKS_TLS", "it speaks TLS"));
  }
  if (route.type === "ignored" && errno !== undefined)
    return because(new WayError("PROXY_IGNORED", `${errno}; ${route.why}`));
  return withoutBlame(error);
}

/**
 * Listens for every error of its sessions. The base class detaches its listener when it leaves a session that Node has
 * destroyed already, and the 'error' event that is still to come would end the process.
 */
class SteadySessionManager extends Http2SessionManager {
  readonly #heard = new WeakSet<object>();
  readonly #way: Way | undefined;
  onBytes: ((path: string) => void) | undefined;
  /** Something has answered in HTTP/2. */
  answered = false;

  /** `openWay` opens the connection below a session; without it the system does. */
  constructor(
    url: string,
    pings: ConstructorParameters<typeof Http2SessionManager>[1],
    ca: string | undefined,
    openWay?: (signal: AbortSignal) => Promise<Socket>,
  ) {
    const way = openWay && new Way(openWay);
    super(url, pings, {
      // Large calls in flight together must not reach Node's 10 MB, where it refuses every further one.
      maxSessionMemory: 64,
      ...(ca === undefined ? {} : { ca }),
      ...(way === undefined ? {} : { createConnection: () => way.take() }),
    });
    this.#way = way;
  }

  override notifyResponseByteRead(stream: ClientHttp2Stream): void {
    super.notifyResponseByteRead(stream);
    this.onBytes?.(String(stream.sentHeaders?.[":path"]));
  }

  /** Ends also the calls for which a way is being opened: the base class does not know of them. */
  override abort(reason: Error = new ConnectError("connection aborted", Code.Canceled)): void {
    super.abort(reason);
    this.#way?.abort(reason);
  }

  override async request(...call: Parameters<Http2SessionManager["request"]>): Promise<ClientHttp2Stream> {
    const stream = await this.#request(call);
    stream.once("response", () => {
      this.answered = true;
    });
    const { session } = stream;
    if (session !== undefined && !this.#heard.has(session)) {
      this.#heard.add(session);
      // Every call on the session gets the error too; nothing is lost here.
      session.on("error", () => undefined);
    }
    return stream;
  }

  async #request(call: Parameters<Http2SessionManager["request"]>): Promise<ClientHttp2Stream> {
    for (let attempts = 1; ; attempts += 1) {
      try {
        return await super.request(...call);
      } catch (error) {
        if (!(error instanceof NoWayYet) || this.#way === undefined || attempts > 3) throw error;
        await this.#way.prepare();
      }
    }
  }
}

/**
 * Drops an HTTP/2 session that answers ENHANCE_YOUR_CALM: Node goes on refusing every call on it, while the manager
 * takes it for healthy. The call that met it still fails; the next one finds a new session.
 */
function rebuildPoisoned(sessions: Http2SessionManager): Interceptor {
  return (next) => async (request) => {
    try {
      return await next(request);
    } catch (error) {
      if (isPoisoned(error)) sessions.abort(new ConnectError("the HTTP/2 session was refused", Code.Unavailable));
      throw error;
    }
  };
}

// Neither Node nor connect-node keeps the reset code in a field of the error.
function isPoisoned(error: unknown): boolean {
  return causes(error).some((cause) => cause.message.includes("ENHANCE_YOUR_CALM"));
}

export type { Page } from "./get-page.ts";
export type { CallTrouble } from "./call-trouble.ts";

/** Says what a failed call means and what to do about it. Never throws; anything can be passed. */
export function describeConnectError(error: unknown, url: string): CallTrouble {
  const way = causes(error).find((cause) => cause instanceof WayError || cause instanceof ProxyError);
  if (way !== undefined) return unreachable(way.message, url, hintOfWay(way));
  const errno = errnoOf(error);
  if (errno !== undefined) return describeErrno(errno, url);
  const { code, rawMessage } = ConnectError.from(error);
  const foreign = describeForeignAnswer(ConnectError.from(error), url);
  if (foreign !== undefined) return foreign;
  // The coordinator answered: it is reached, and says no.
  if (isStoreTrouble(error)) return refused(rawMessage, "`ao doctor` checks the store and the disk");
  switch (code) {
    case Code.Unavailable:
    case Code.DeadlineExceeded:
      return unreachable(
        `${Code[code]}: ${rawMessage}`,
        url,
        "it may be starting or overloaded: repeat, or see its log",
      );
    case Code.Unimplemented:
      return refused(`${url} does not offer this call: ${rawMessage}`, "upgrade the coordinator, or check the URL");
    case Code.Unauthenticated:
    case Code.PermissionDenied:
    case Code.FailedPrecondition:
    case Code.AlreadyExists:
    // The URL can be right and the input too: the coordinator says no.
    case Code.OutOfRange:
    case Code.ResourceExhausted:
      return refused(rawMessage, undefined);
    case Code.NotFound:
      return { text: rawMessage, hint: undefined, exitCode: EXIT.notFound };
    case Code.InvalidArgument:
      return { text: rawMessage, hint: undefined, exitCode: EXIT.usage };
    // What a call gets whose connection ends under it, when the caller did not cancel it.
    case Code.Canceled:
    case Code.Aborted:
      return unreachable("connection lost", url, "repeat; see the coordinator's log");
    case Code.Unknown:
    case Code.Internal:
    case Code.DataLoss:
      return { text: `${Code[code]}: ${rawMessage}`, hint: undefined, exitCode: EXIT.bug };
    default:
      return { text: rawMessage, hint: undefined, exitCode: EXIT.bug };
  }
}

function hintOfWay(way: Error): string {
  if (way instanceof ProxyError) return "correct the variable, or name the host in NO_PROXY";
  if (way instanceof WayError && way.code === "SPEAKS_TLS") return "use https://";
  return "name an http:// or https:// proxy that allows CONNECT, or none";
}

/** What is wrong with a certificate that is not a matter of who signed it. */
const CERTIFICATE_HINTS: Readonly<Record<string, string>> = {
  ERR_TLS_CERT_ALTNAME_INVALID:
    "its certificate is for other names than this one: use one of those, or renew it with this one",
  CERT_HAS_EXPIRED: "its certificate has expired: renew it, and send the coordinator a SIGHUP",
  CERT_NOT_YET_VALID: "its certificate is not valid yet: check the clocks",
};

function describeErrno(errno: string, url: string): CallTrouble {
  if (errno === "ECONNREFUSED" || errno === "ENOENT") {
    return unreachable(errno, url, "start one with `ao dev`, or set AGENT_ORCHESTRATOR_API_URL");
  }
  if (errno === "ENOTFOUND" || errno === "EAI_AGAIN") {
    return unreachable(errno, url, "the host name does not resolve: check the URL");
  }
  const certificateHint = CERTIFICATE_HINTS[errno];
  if (certificateHint !== undefined) return unreachable(errno, url, certificateHint);
  if (errno.includes("CERT") || errno === "UNABLE_TO_VERIFY_LEAF_SIGNATURE") {
    return unreachable(errno, url, "its certificate is not trusted here: pass its CA with --tls-ca");
  }
  if (errno === "ERR_SSL_WRONG_VERSION_NUMBER" || errno === "ERR_SSL_PACKET_LENGTH_TOO_LONG") {
    return unreachable(errno, url, "what listens there speaks no TLS: use http://, or check the port");
  }
  if (errno === "ERR_HTTP2_ERROR" || errno === "EPROTO" || errno.startsWith("ERR_SSL")) {
    return unreachable(
      errno,
      url,
      "what listens there is no coordinator, or a proxy that does not offer HTTP/2: check the port",
    );
  }
  return unreachable(errno, url, "check the network and the URL");
}

/** What the system said of a connection; undefined when it said nothing. */
function errnoOf(error: unknown): string | undefined {
  return causes(error)
    .map((cause) => ("code" in cause && typeof cause.code === "string" ? cause.code : ""))
    .findLast((code) => code !== "");
}

/** The error and its causes, outermost first; at most 8, because a cause may name itself. */
function causes(error: unknown): Error[] {
  const chain: Error[] = [];
  for (let at = error; at instanceof Error && chain.length < 8; at = at.cause) chain.push(at);
  return chain;
}
