import { request as requestPlain } from "node:http";
import type { IncomingMessage } from "node:http";
import { request as requestSecure } from "node:https";
import { isIP } from "node:net";
import type { Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import type { Route } from "./proxy.ts";

/** Longest time that a proxy has to open the way. */
const TUNNEL_TIMEOUT_MS = 10_000;

/** A proxy did not open the way. The message is for people and names the variable to look at. */
export class ProxyError extends Error {
  override name = "ProxyError";
}

type ProxyRoute = Extract<Route, { type: "proxy" }>;

/**
 * Opens a connection to `url` through a proxy, for `createConnection` of HTTP/2: with TLS inside for https, whose certificate
 * is that of the coordinator. An aborted `signal` ends the attempt, and nothing that is open. A socket of the system, because Node's HTTP/2 loses answers on a stream made in JavaScript.
 *
 * @throws ProxyError.
 */
export async function openTunnel(
  url: string,
  route: ProxyRoute,
  ca: string | undefined,
  signal?: AbortSignal,
): Promise<Socket> {
  const { protocol, hostname, port } = new URL(url);
  const secure = protocol === "https:";
  const socket = await ask(`${hostname}:${port || (secure ? "443" : "80")}`, route, signal);
  socket.setTimeout(0);
  socket.setNoDelay();
  // Whoever uses it hears of its errors; until then nobody has to.
  socket.on("error", () => undefined);
  if (!secure) return socket;
  const host = hostname.replace(/^\[|\]$/g, "");
  const inside = connectTls({
    socket,
    host,
    ALPNProtocols: ["h2"],
    ...(isIP(host) === 0 ? { servername: host } : {}),
    ...(ca === undefined ? {} : { ca }),
  });
  inside.on("error", () => undefined);
  return inside;
}

function ask(target: string, { proxy, variable }: ProxyRoute, signal: AbortSignal | undefined): Promise<Socket> {
  // Without the password that its URL may hold.
  const failure = (why: string) =>
    new ProxyError(`no way to ${target} through the proxy ${proxy.protocol}//${proxy.host} of ${variable}: ${why}`);
  return new Promise((resolve, reject) => {
    const request = (proxy.protocol === "https:" ? requestSecure : requestPlain)({
      host: proxy.hostname.replace(/^\[|\]$/g, ""),
      port: proxy.port || (proxy.protocol === "https:" ? 443 : 80),
      method: "CONNECT",
      path: target,
      headers: { host: target, ...authorization(proxy) },
      agent: false,
      ...(signal === undefined ? {} : { signal }),
    });
    const timer = setTimeout(
      () => request.destroy(new Error(`no answer in ${TUNNEL_TIMEOUT_MS / 1000} s`)),
      TUNNEL_TIMEOUT_MS,
    );
    request.on("close", () => clearTimeout(timer));
    request.on("error", (error: NodeJS.ErrnoException) =>
      reject(failure(`it cannot be reached: ${error.code ?? error.message}`)),
    );
    request.on("response", (answer) => {
      answer.destroy();
      reject(failure(`it answers ${statusOf(answer)}`));
    });
    request.on("connect", (answer, socket, head) => {
      clearTimeout(timer);
      if (answer.statusCode === 200) {
        if (head.length > 0) socket.unshift(head);
        return resolve(socket);
      }
      socket.destroy();
      return reject(failure(`it answers ${statusOf(answer)}`));
    });
    request.end();
  });
}

function statusOf({ statusCode, statusMessage }: IncomingMessage): string {
  return `HTTP ${statusCode} ${statusMessage ?? ""}`.trim().slice(0, 200);
}

function authorization({ username, password }: URL): Record<string, string> {
  if (username === "") return {};
  const pair = `${decoded(username)}:${decoded(password)}`;
  return { "proxy-authorization": `Basic ${Buffer.from(pair).toString("base64")}` };
}

/** A percent sign that begins no escape stands for itself, as people write it in a variable. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
