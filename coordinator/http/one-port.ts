import { once } from "node:events";
import { createServer as createHttp1Server } from "node:http";
import { createServer as createHttp2Server } from "node:http2";
import type { ServerHttp2Session } from "node:http2";
import { createServer as createTcpServer } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import { createServer as createTlsServer } from "node:tls";
import type { HttpRequest, HttpResponse } from "../../lib/rpc/http.ts";

export interface OnePortOptions {
  host: string;
  /** 0 picks a free port. */
  port: number;
  /** PEM texts; without them the port speaks plain text. */
  tls?: { certPem: string; keyPem: string } | undefined;
  /** Serves the requests of both HTTP versions. Must not throw. */
  handler: (request: HttpRequest, response: HttpResponse) => void;
  /** A connection that has not said by then which protocol it speaks, or not finished its TLS handshake or first headers, is ended. */
  firstByteTimeoutMs: number;
  /** Longest that one HTTP/1.1 request may take to arrive. Responses may take as long as they like. */
  requestTimeoutMs: number;
  /** Pause between HTTP/2 pings. */
  pingIntervalMs: number;
  /** An HTTP/2 session whose ping is unanswered for so long is ended, and its streams with it. */
  pingTimeoutMs: number;
}

export interface OnePort {
  /** The port in use, also when 0 was asked for. */
  readonly port: number;
  /** Gives new connections another certificate; nothing without TLS. */
  setTls(tls: { certPem: string; keyPem: string }): void;
  /** Open TCP connections. */
  connections(): number;
  /**
   * Stops listening, sends GOAWAY, ends what is idle, and after `graceMs` everything else. Resolves when no connection is
   * left. Node's own close() waits for clients, so alone it never ends.
   */
  close(graceMs: number): Promise<void>;
}

/** What every HTTP/2 client sends first, with or without TLS. */
const HTTP2_PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");

/** Connections that may be waiting to be accepted; 5,000 runners may return in the second after a restart. */
const BACKLOG = 4096;

const HTTP2_SETTINGS = {
  // An open stream costs some 55 KiB, so one connection can hold about 55 MiB; further calls wait in the client.
  settings: { maxConcurrentStreams: 1000 },
  // MiB per session, eight of the largest messages on their way; Node's default of 10 ends sessions at the third.
  maxSessionMemory: 32,
};

/** Over the usual 60 s of a proxy, so that it is the proxy that closes an idle connection and no request meets a closed one. */
const HTTP1_KEEP_ALIVE_MS = 65_000;

/** How often a closing port looks for HTTP/1.1 connections that have become idle. */
const DRAIN_CHECK_MS = 20;

/**
 * Listens on one TCP port for HTTP/1.1 and HTTP/2, told apart by the first bytes of a connection: h2c clients (gRPC) start
 * with a fixed preface, everything else is HTTP/1.1. TLS comes before that, so ALPN and the bytes agree.
 * Rejects with Node's own error (`code` EADDRINUSE, EACCES, …) when it cannot listen.
 */
export async function openOnePort(options: OnePortOptions): Promise<OnePort> {
  const { handler, firstByteTimeoutMs, requestTimeoutMs, tls } = options;
  const sockets = new Set<Socket>();
  const undecided = new Set<Socket>();
  const sessions = new Set<ServerHttp2Session>();

  const http1 = createHttp1Server({
    headersTimeout: firstByteTimeoutMs,
    requestTimeout: requestTimeoutMs,
    keepAliveTimeout: HTTP1_KEEP_ALIVE_MS,
    connectionsCheckingInterval: Math.ceil(Math.min(firstByteTimeoutMs, requestTimeoutMs) / 4),
  });
  http1.on("request", handler);
  // The timeouts above are enforced by a timer that starts on this event; a server that is only handed sockets never listens.
  http1.emit("listening");

  const http2 = createHttp2Server(HTTP2_SETTINGS);
  http2.on("request", handler);
  http2.on("session", (session) => {
    sessions.add(session);
    session.once("close", () => sessions.delete(session));
    endWhenSilent(session, options);
  });
  // A peer that breaks the protocol ends its own session; there is nobody to tell.
  http2.on("sessionError", ignore);

  const secure =
    tls &&
    createTlsServer({
      cert: tls.certPem,
      key: tls.keyPem,
      ALPNProtocols: ["h2", "http/1.1"],
      handshakeTimeout: firstByteTimeoutMs,
      noDelay: true,
    });
  const server = secure ?? createTcpServer({ noDelay: true });
  server.on("connection", (socket: Socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    socket.on("error", ignore);
  });
  // Node leaves a connection open whose handshake timed out.
  server.on("tlsClientError", (_: Error, socket: Socket) => socket.destroy());
  server.on(tls ? "secureConnection" : "connection", (socket: Socket) => {
    undecided.add(socket);
    socket.once("close", () => undecided.delete(socket));
    socket.on("error", ignore);
    sniff(socket, firstByteTimeoutMs, (version) => {
      undecided.delete(socket);
      (version === "h2" ? http2 : http1).emit("connection", socket);
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen({ host: options.host, port: options.port, backlog: BACKLOG }, resolve);
  });
  server.removeAllListeners("error");
  // accept() fails when file descriptors run out; the listener lives on and later connections succeed.
  server.on("error", ignore);

  return {
    port: (server.address() as AddressInfo).port,
    setTls: ({ certPem, keyPem }) => secure?.setSecureContext({ cert: certPem, key: keyPem }),
    connections: () => sockets.size,
    async close(graceMs) {
      const closed = new Promise((resolve) => server.close(resolve));
      for (const socket of undecided) socket.destroy();
      for (const session of sessions) session.close();
      http1.close();
      const drain = setInterval(() => http1.closeIdleConnections(), DRAIN_CHECK_MS);
      const cut = setTimeout(() => {
        for (const session of sessions) session.destroy();
        for (const socket of sockets) socket.destroy();
      }, graceMs);
      await closed;
      // The listener counts a socket as gone one tick before the socket says so itself.
      await Promise.all([...sockets].map((socket) => once(socket, "close")));
      clearInterval(drain);
      clearTimeout(cut);
    },
  };
}

/** Reads until the HTTP version is known, puts the bytes back and calls `decided`; ends the socket when that takes too long. */
function sniff(socket: Socket, timeoutMs: number, decided: (version: "h1" | "h2") => void): void {
  let seen = Buffer.alloc(0);
  const timer = setTimeout(() => socket.destroy(), timeoutMs);
  const forget = () => clearTimeout(timer);
  const read = () => {
    for (let chunk: Buffer | null = socket.read(); chunk !== null; chunk = socket.read()) {
      seen = Buffer.concat([seen, chunk]);
    }
    const version = versionOf(seen);
    if (version === undefined) return;
    forget();
    socket.off("readable", read).off("close", forget);
    socket.unshift(seen);
    decided(version);
  };
  socket.once("close", forget);
  socket.on("readable", read);
}

/** The HTTP version that a connection starts with; undefined while the bytes so far fit both. */
export function versionOf(seen: Buffer): "h1" | "h2" | undefined {
  const length = Math.min(seen.length, HTTP2_PREFACE.length);
  if (HTTP2_PREFACE.compare(seen, 0, length, 0, length) !== 0) return "h1";
  return length === HTTP2_PREFACE.length ? "h2" : undefined;
}

/** Pings a session for as long as it lives. Neither Node nor Connect does, so a peer that lost power would hold its streams forever. */
function endWhenSilent(session: ServerHttp2Session, { pingIntervalMs, pingTimeoutMs }: OnePortOptions): void {
  let deadline: NodeJS.Timeout | undefined;
  const answered = () => {
    clearTimeout(deadline);
    deadline = undefined;
  };
  const pinging = setInterval(() => {
    // A destroyed session closes only when its peer has hung up, and would throw.
    if (deadline !== undefined || session.destroyed) return;
    // After a pause of this process timers fire before sockets are read: look once more after the answers that have arrived were read.
    const armed = setTimeout(() => setImmediate(() => deadline === armed && session.destroy()), pingTimeoutMs);
    deadline = armed;
    session.ping(answered);
  }, pingIntervalMs);
  session.once("close", () => {
    clearInterval(pinging);
    answered();
  });
}

function ignore(): void {}
