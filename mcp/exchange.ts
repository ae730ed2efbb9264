import { pipeline } from "node:stream/promises";
import { Readable } from "node:stream";
import type { ServerResponse } from "node:http";
import type { HttpRequest, HttpResponse } from "../lib/rpc/http.ts";
import { rpcError } from "./body.ts";

/** Largest request; a prompt of that size belongs into a file. */
export const BODY_MAX_BYTES = 1024 * 1024;

/** Methods that mean something to the tools. */
export const METHODS = "POST, OPTIONS";

/** A body that is larger is still read to this point, so that its sender receives the refusal instead of a reset. */
const DISCARDED_MAX_BYTES = 16 * BODY_MAX_BYTES;

/** Answers one request, of which `body` is undefined unless it is a POST. */
export type Answering = (request: Request, body: Uint8Array | undefined) => Promise<Response>;

/**
 * Serves one HTTP request of either version with web-standard parts. The request's signal aborts when the client leaves
 * or the response is destroyed. Never rejects: a client that left has nobody to tell.
 */
export async function exchange(request: HttpRequest, response: HttpResponse, answering: Answering): Promise<void> {
  const left = new AbortController();
  response.once("close", () => left.abort());
  try {
    const body = request.method === "POST" ? await bodyOf(request) : undefined;
    if (body === "TOO_LARGE")
      return refuse(
        response,
        413,
        `a request may have ${BODY_MAX_BYTES} bytes: put a large prompt into a file that the agent can read`,
      );
    // The path may be a capability, which is nobody else's business.
    const { method = "GET" } = request;
    const web = new Request("http://localhost/mcp", { method, headers: headersOf(request), signal: left.signal });
    await send(response, await answering(web, body));
  } catch {
    response.destroy();
  }
}

/** Sends an error in the JSON of MCP's transport. */
export function refuse(response: HttpResponse, status: number, message: string): void {
  const body = JSON.stringify(rpcError(-32_000, message));
  // Both versions have these two methods, but their types do not unite.
  const either = response as ServerResponse;
  either.writeHead(status, { "content-type": "application/json", "content-length": Buffer.byteLength(body) });
  either.end(body);
}

/**
 * Lets the page of an origin that may call read the answers, and answers what its browser asks before it calls: MCP's
 * inspector is such a page. Who may call is decided before, by Host and Origin. True when the request is answered.
 */
export function admitPage(request: HttpRequest, response: HttpResponse): boolean {
  const { origin } = request.headers;
  const either = response as ServerResponse;
  if (origin !== undefined) {
    either.setHeader("access-control-allow-origin", origin);
    either.setHeader("vary", "origin");
  }
  if (request.method !== "OPTIONS") return false;
  either.writeHead(204, {
    allow: METHODS,
    "access-control-allow-methods": METHODS,
    "access-control-allow-headers": request.headers["access-control-request-headers"] ?? "content-type",
    "access-control-max-age": "600",
  });
  either.end();
  return true;
}

async function bodyOf(request: HttpRequest): Promise<Buffer | "TOO_LARGE"> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes <= BODY_MAX_BYTES) chunks.push(chunk);
    if (bytes > DISCARDED_MAX_BYTES) throw new Error("the body never ends");
  }
  return bytes > BODY_MAX_BYTES ? "TOO_LARGE" : Buffer.concat(chunks);
}

/** The headers of a request. Those of HTTP/2 that begin with a colon are no headers. */
function headersOf({ headers }: HttpRequest): Headers {
  const web = new Headers();
  for (const [name, value] of Object.entries(headers)) {
    if (name.startsWith(":") || value === undefined) continue;
    for (const one of [value].flat()) web.append(name, one);
  }
  return web;
}

async function send(response: HttpResponse, { status, headers, body }: Response): Promise<void> {
  if (response.destroyed) return;
  // HTTP/2 has no such header, and HTTP/1.1 keeps connections open without it.
  headers.delete("connection");
  const either = response as ServerResponse;
  either.writeHead(status, { ...Object.fromEntries(headers), "x-accel-buffering": "no" });
  if (body === null) return void either.end();
  // The first event may be long in coming.
  either.flushHeaders();
  await pipeline(Readable.fromWeb(body), either);
}
