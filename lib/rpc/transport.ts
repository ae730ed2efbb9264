import { Code, ConnectError } from "@connectrpc/connect";
import type { Interceptor, Transport } from "@connectrpc/connect";
import { Http2SessionManager, createConnectTransport } from "@connectrpc/connect-node";
import type { ClientHttp2Stream } from "node:http2";
import { EXIT } from "../exit-codes.ts";
import type { ExitCode } from "../exit-codes.ts";
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
}

/** One HTTP/2 connection to a coordinator, opened by the first call and reopened when it broke. */
export interface CoordinatorLink {
  readonly transport: Transport;
  /** Ends the connection and its calls with CANCELED; the next call opens a new one. */
  abort(): void;
}

/** Connect protocol over HTTP/2: half the cost of gRPC between two ends that are connect-node, as `npm run bench` measures. */
export function connectTransport(url: string, options: TransportOptions = {}): CoordinatorLink {
  const sessions = new SteadySessionManager(
    url,
    { pingIntervalMs: options.pingIntervalMs ?? 10_000, pingTimeoutMs: options.pingTimeoutMs ?? 5_000 },
    // Large calls in flight together must not reach Node's 10 MB, where it refuses every further one.
    { maxSessionMemory: 64, ...(options.ca === undefined ? {} : { ca: options.ca }) },
  );
  sessions.onBytes = options.onBytes;
  const transport = createConnectTransport({
    baseUrl: url,
    httpVersion: "2",
    sessionManager: sessions,
    readMaxBytes: MESSAGE_MAX_BYTES,
    writeMaxBytes: CLIENT_WRITE_MAX_BYTES,
    // A coordinator is near, and an inflated message cannot surprise us.
    acceptCompression: [],
    interceptors: [...(options.interceptors ?? []), rebuildPoisoned(sessions)],
  });
  return { transport, abort: () => sessions.abort() };
}

/**
 * Listens for every error of its sessions. The base class detaches its listener when it leaves a session that Node has
 * destroyed already, and the 'error' event that is still to come would end the process.
 */
class SteadySessionManager extends Http2SessionManager {
  readonly #heard = new WeakSet<object>();
  onBytes: ((path: string) => void) | undefined;

  override notifyResponseByteRead(stream: ClientHttp2Stream): void {
    super.notifyResponseByteRead(stream);
    this.onBytes?.(String(stream.sentHeaders?.[":path"]));
  }

  override async request(...call: Parameters<Http2SessionManager["request"]>): Promise<ClientHttp2Stream> {
    const stream = await super.request(...call);
    const { session } = stream;
    if (session !== undefined && !this.#heard.has(session)) {
      this.#heard.add(session);
      // Every call on the session gets the error too; nothing is lost here.
      session.on("error", () => undefined);
    }
    return stream;
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

/** What went wrong with a call, for people. */
export interface CallTrouble {
  /** One line. */
  readonly text: string;
  /** What to do next, when we know. */
  readonly hint: string | undefined;
  /** Exit code of a program that ends because of it. */
  readonly exitCode: ExitCode;
}

/** Says what a failed call means and what to do about it. Never throws; anything can be passed. */
export function describeConnectError(error: unknown, url: string): CallTrouble {
  const errno = causes(error)
    .map((cause) => ("code" in cause && typeof cause.code === "string" ? cause.code : ""))
    .findLast((code) => code !== "");
  if (errno !== undefined) return describeErrno(errno, url);
  const { code, rawMessage } = ConnectError.from(error);
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

function describeErrno(errno: string, url: string): CallTrouble {
  if (errno === "ECONNREFUSED" || errno === "ENOENT") {
    return unreachable(errno, url, "start one with `ao dev`, or set AGENT_ORCHESTRATOR_API_URL");
  }
  if (errno === "ENOTFOUND" || errno === "EAI_AGAIN") {
    return unreachable(errno, url, "the host name does not resolve: check the URL");
  }
  if (errno.includes("CERT") || errno === "UNABLE_TO_VERIFY_LEAF_SIGNATURE") {
    return unreachable(errno, url, "its certificate is not trusted here: pass its CA with --tls-ca");
  }
  if (errno === "ERR_HTTP2_ERROR" || errno === "EPROTO" || errno.startsWith("ERR_SSL")) {
    return unreachable(errno, url, "what listens there is no coordinator, or one with TLS: check port, http and https");
  }
  return unreachable(errno, url, "check the network and the URL");
}

function unreachable(why: string, url: string, hint: string): CallTrouble {
  return { text: `cannot reach coordinator at ${url} (${why})`, hint, exitCode: EXIT.unreachable };
}

function refused(text: string, hint: string | undefined): CallTrouble {
  return { text, hint, exitCode: EXIT.refused };
}

/** The error and its causes, outermost first; at most 8, because a cause may name itself. */
function causes(error: unknown): Error[] {
  const chain: Error[] = [];
  for (let at = error; at instanceof Error && chain.length < 8; at = at.cause) chain.push(at);
  return chain;
}
