import { once } from "node:events";
import { request as request1 } from "node:http";
import { connect as connect2 } from "node:http2";
import { connect } from "node:net";
import { text } from "node:stream/consumers";
import { afterEach, describe, expect, it } from "vitest";
import { createClient } from "@connectrpc/connect";
import { Health, HealthCheckResponse_ServingStatus } from "../../../gen/grpc/health/v1/health_pb.ts";
import { connectTransport } from "../../../lib/rpc/transport.ts";
import { checkListen, ListenError, startServer } from "../../../coordinator/http/server.ts";
import { createLogger } from "../../../lib/log.ts";
import { OPEN_GATE, startTestServer, stopTestServers } from "../../support/test-server.ts";

const pages = { "/health": () => ({ status: 200, contentType: "text/plain", body: "ok\n" }) };

afterEach(stopTestServers);

interface Answer {
  status: number;
  body: string;
}

async function getHttp1(port: number, headers: Record<string, string>): Promise<Answer> {
  const request = request1({ host: "127.0.0.1", port, path: "/health", headers, agent: false }).end();
  const [response] = await once(request, "response");
  return { status: response.statusCode, body: await text(response) };
}

async function getHttp2(port: number, { host, ...headers }: Record<string, string>): Promise<Answer> {
  const session = connect2(`http://127.0.0.1:${port}`);
  try {
    const stream = session.request({ ":path": "/health", ...(host && { ":authority": host }), ...headers });
    const [response] = await once(stream, "response");
    return { status: response[":status"], body: await text(stream) };
  } finally {
    session.close();
  }
}

describe.each([
  ["HTTP/1.1", getHttp1],
  ["HTTP/2", getHttp2],
] as const)("over %s", (_, get) => {
  it.each([
    "localhost",
    "localhost:1",
    "LOCALHOST",
    "ao.localhost:80",
    "127.0.0.1",
    "127.1.2.3:99",
    "[::1]",
    "[::1]:1",
  ])("a request to %s, and from a page there, is served", async (host) => {
    const { port } = await startTestServer({ pages });
    expect(await get(port, { host })).toEqual({ status: 200, body: "ok\n" });
    expect((await get(port, { host, origin: `http://${host}` })).status).toBe(200);
  });

  it.each([
    "evil.example",
    "evil.example:8765",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "::evil",
    "1.2.3.4.5",
  ])("a request to %s is refused, and one from a page there too", async (host) => {
    const { port } = await startTestServer({ pages });
    const refused = await get(port, { host });
    expect(refused.status).toBe(403);
    expect(JSON.parse(refused.body)).toEqual({
      code: "permission_denied",
      message: `Host "${host}" is neither loopback nor an allowed host of this coordinator`,
    });
    expect((await get(port, { host: "localhost", origin: `https://${host}` })).status).toBe(403);
  });

  it("what is refused is logged, with the name and what allows it, once however often it is repeated", async () => {
    const { port, logged } = await startTestServer({ pages });
    const host = `${"long-".repeat(200)}.example`;
    for (let i = 0; i < 5; i += 1) await get(port, { host });
    const lines = logged.map(({ msg }) => String(msg)).filter((line) => line.includes("refused with 403"));
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatch(/Host "long-long.*--allowed-host allows a name/);
    expect(lines[0]!.length).toBeLessThan(600);
  });

  it.each(["10.0.0.1", "10.0.0.1:8765", "[::2]", "[fe80::1]:8765", "::2", "::2:8765", "2001:db8::7:18491"])(
    "a request to the address %s is served, as probes send it, but not one from a page there",
    async (host) => {
      const { port } = await startTestServer({ pages });
      expect((await get(port, { host })).status).toBe(200);
      expect((await get(port, { host, origin: `http://${host}` })).status).toBe(403);
    },
  );

  it.each([
    "null",
    "file://",
    "http://localhost@evil.example",
    "http://localhost/evil.example",
    "chrome-extension://abc",
  ])("the origin %s is refused", async (origin) => {
    const { port } = await startTestServer({ pages });
    expect((await get(port, { host: "localhost", origin })).status).toBe(403);
  });

  it("a configured host is served, as Host and as Origin, in any case", async () => {
    const { port } = await startTestServer({ pages, allowedHosts: ["Coordinator.Example"] });
    expect((await get(port, { host: "coordinator.example:443" })).status).toBe(200);
    expect((await get(port, { host: "localhost", origin: "https://COORDINATOR.example" })).status).toBe(200);
  });

  it("a call is refused before its handler runs", async () => {
    let pageRuns = 0;
    const counted = { "/health": () => ({ status: 200, contentType: "text/plain", body: `${(pageRuns += 1)}` }) };
    const { port } = await startTestServer({ pages: counted });
    await get(port, { host: "evil.example" });
    expect(pageRuns).toBe(0);
  });
});

describe("an HTTP/1.0 request without Host", () => {
  const ask = async (port: number, head: string) => {
    const socket = connect(port, "127.0.0.1");
    socket.write(`${head}\r\n\r\n`);
    return text(socket);
  };

  it("gets pages, because old health checks send none and browsers always do", async () => {
    const { port } = await startTestServer({ pages });
    expect(await ask(port, "GET /health HTTP/1.0")).toMatch(/^HTTP\/1\.1 200 /);
  });

  it("cannot call", async () => {
    const { port } = await startTestServer();
    const answer = await ask(port, "POST /grpc.health.v1.Health/Check HTTP/1.0\r\ncontent-type: application/json");
    expect(answer).toMatch(/^HTTP\/1\.1 400 /);
    expect(answer).toContain("a call needs a Host header");
  });
});

describe("the listen address", () => {
  it.each(["127.0.0.1", "127.9.9.9", "::1", "localhost"])("%s needs no TLS", (host) => {
    expect(() => checkListen({ host, port: 1 }, {})).not.toThrow();
  });

  it.each(["0.0.0.0", "::", "10.0.0.1", "build.example"])("%s needs TLS or --insecure", (host) => {
    const tls = { certPem: "", keyPem: "" };
    expect(() => checkListen({ host, port: 1 }, { tls })).not.toThrow();
    expect(() => checkListen({ host, port: 1 }, { insecure: true })).not.toThrow();
    expect(() => checkListen({ host, port: 1 }, {})).toThrow(ListenError);
    expect(() => checkListen({ host, port: 1 }, {})).toThrow(/without TLS.*--tls-cert and --tls-key, or --insecure/);
  });

  it("on a name of the network is itself an allowed host", async () => {
    const listen = { host: "0.0.0.0", port: 0 };
    const { port, url } = await startTestServer({ pages, listen, insecure: true, allowedHosts: ["build.example"] });
    expect(url).toBe(`http://127.0.0.1:${port}`);
    expect((await getHttp1(port, { host: "0.0.0.0" })).status).toBe(200);
    expect((await getHttp1(port, { host: "other.example" })).status).toBe(403);
  });

  it("on IPv6 loopback gives a URL in brackets, at which our own clients reach it", async () => {
    const server = await startTestServer({ pages, listen: { host: "::1", port: 0 } });
    expect(server.url).toBe(`http://[::1]:${server.port}`);
    expect((await fetch(`${server.url}/health`)).status).toBe(200);
    const link = connectTransport(server.url);
    expect((await createClient(Health, link.transport).check({})).status).toBe(
      HealthCheckResponse_ServingStatus.SERVING,
    );
    link.abort();
  });

  const log = createLogger({ name: "test", level: "silent", format: "json" });

  it("that is in use gives an error which names it and what to do", async () => {
    const { port } = await startTestServer();
    const second = startServer({ listen: { host: "127.0.0.1", port }, gate: OPEN_GATE, routes() {}, log });
    await expect(second).rejects.toThrow(
      `cannot listen on 127.0.0.1:${port}: the port is in use (EADDRINUSE); --listen 127.0.0.1:0 picks a free one`,
    );
    await expect(second).rejects.toMatchObject({ name: "ListenError", code: "EADDRINUSE" });
  });

  it("that this machine does not have, or nobody knows, gives an error with its code", async () => {
    const start = (host: string) =>
      startServer({ listen: { host, port: 0 }, insecure: true, gate: OPEN_GATE, routes() {}, log });
    await expect(start("192.0.2.1")).rejects.toMatchObject({ code: "EADDRNOTAVAIL" });
    await expect(start("300.300.300.300")).rejects.toThrow("cannot listen on 300.300.300.300:0:");
  });
});
