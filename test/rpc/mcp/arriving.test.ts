import { once } from "node:events";
import { createServer as createHttp1Server, request as http1Request } from "node:http";
import { connect as connectHttp2, createServer as createHttp2Server } from "node:http2";
import type { AddressInfo, Server } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { createLogger } from "../../../lib/log.ts";
import type { HttpRequest, HttpResponse } from "../../../lib/rpc/http.ts";
import { mcpEndpoint } from "../../../mcp/endpoint.ts";
import type { ToolCaller } from "../../../mcp/caller.ts";
import { until } from "../../support/until.ts";

const WHOLE = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/list" });
const HEADERS = { "content-type": "application/json", accept: "application/json" };

/** A request that its sender may leave unfinished. */
interface Sent {
  /** Undefined until it is answered. */
  status: number | undefined;
  finish(): void;
}

/** Sends the beginning of a request. */
type Send = () => Sent;

const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).toReversed()) await close();
});

async function listen(server: Server): Promise<number> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  closing.push(() => new Promise((resolve) => server.close(resolve)));
  return (server.address() as AddressInfo).port;
}

const half = Math.floor(WHOLE.length / 2);

async function overHttp1(handle: (request: HttpRequest, response: HttpResponse) => void): Promise<Send> {
  const server = createHttp1Server(handle);
  const port = await listen(server);
  closing.push(() => server.closeAllConnections());
  return () => {
    const headers = { ...HEADERS, "content-length": WHOLE.length };
    const request = http1Request({ port, host: "127.0.0.1", method: "POST", path: "/mcp", headers, agent: false });
    const sent: Sent = { status: undefined, finish: () => request.end(WHOLE.slice(half)) };
    request.on("error", () => undefined);
    request.on("response", (response) => {
      sent.status = response.statusCode;
      response.resume();
    });
    request.write(WHOLE.slice(0, half));
    return sent;
  };
}

async function overHttp2(handle: (request: HttpRequest, response: HttpResponse) => void): Promise<Send> {
  const server = createHttp2Server(handle);
  const session = connectHttp2(`http://127.0.0.1:${await listen(server)}`);
  closing.push(() => session.destroy());
  return () => {
    const stream = session.request({ ":method": "POST", ":path": "/mcp", ...HEADERS });
    const sent: Sent = { status: undefined, finish: () => stream.end(WHOLE.slice(half)) };
    stream.on("error", () => undefined);
    stream.on("response", (headers) => {
      sent.status = headers[":status"];
      stream.resume();
    });
    stream.write(WHOLE.slice(0, half));
    return sent;
  };
}

describe.each([
  ["HTTP/1.1", overHttp1],
  ["HTTP/2", overHttp2],
])("requests that never arrive over %s", (_, over) => {
  it("occupy no place of those that do: the one that has been arriving longest gives way", async () => {
    let begun = 0;
    const log = createLogger({ name: "test", level: "silent", format: "json" });
    const caller = { tags: [] } as unknown as ToolCaller;
    const endpoint = mcpEndpoint({ callerOf: () => caller, maxExchanges: 2, log });
    closing.push(() => endpoint.close());
    const send = await over((request, response) => {
      begun += 1;
      void endpoint.handle(request, response);
    });
    const sent: Sent[] = [];
    for (let i = 1; i <= 4; i += 1) {
      sent.push(send());
      await until(() => begun === i, "the request has begun");
    }
    const [first, second, third, fourth] = sent;
    await until(() => first?.status !== undefined && second?.status !== undefined, "the oldest two are given up");
    third?.finish();
    fourth?.finish();
    await until(() => third?.status !== undefined && fourth?.status !== undefined, "the others are answered");
    expect(sent.map(({ status }) => status)).toEqual([408, 408, 200, 200]);
    // What comes of a request that was given up is not acted upon.
    first?.finish();
    const last = send();
    last.finish();
    await until(() => last.status !== undefined, "a further one is answered");
    expect(last.status).toBe(200);
  });
});
