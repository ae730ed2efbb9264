import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { connect as connectTls } from "node:tls";
import { inRepository } from "../../support/paths.ts";
import { promisify } from "node:util";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { credentials, loadPackageDefinition } from "@grpc/grpc-js";
import type { ChannelCredentials, Client as GrpcClient, ClientReadableStream } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { afterEach, describe, expect, it } from "vitest";
import { ServingStatus } from "../../../coordinator/http/health.ts";
import { RunService } from "../../../gen/agentrunner/v1/run_service_pb.ts";
import { Health } from "../../../gen/grpc/health/v1/health_pb.ts";
import { healthClient, PROTOCOL_NAMES, startTestServer, stopTestServers } from "../../support/test-server.ts";

const CERT = readFileSync(inRepository("test/fixtures/tls/cert.pem"), "utf8");
const KEY = readFileSync(inRepository("test/fixtures/tls/key.pem"), "utf8");

afterEach(stopTestServers);

describe.each(PROTOCOL_NAMES)("%s", (protocol) => {
  it("serves unary calls and server streams", async () => {
    const server = await startTestServer();
    const client = healthClient(server.url, protocol);
    expect((await client.check({})).status).toBe(ServingStatus.SERVING);
    const seen: number[] = [];
    for await (const { status } of client.watch({})) {
      seen.push(status);
      if (seen.length === 1) server.health.set(ServingStatus.NOT_SERVING);
      else break;
    }
    expect(seen).toEqual([ServingStatus.SERVING, ServingStatus.NOT_SERVING]);
  });

  it("answers a service it does not know with NOT_FOUND, and watches it as SERVICE_UNKNOWN until it is set", async () => {
    const server = await startTestServer();
    const client = healthClient(server.url, protocol);
    await expect(client.check({ service: "x" })).rejects.toThrow('[not_found] no service "x" here');
    const seen: number[] = [];
    for await (const { status } of client.watch({ service: "x" })) {
      seen.push(status);
      if (seen.length === 1) server.health.set(ServingStatus.SERVING, "x");
      else break;
    }
    expect(seen).toEqual([ServingStatus.SERVICE_UNKNOWN, ServingStatus.SERVING]);
  });
});

/** A client that shares no code with ours: its own HTTP/2 session handling, its own protobuf. */
type HealthOfGrpcJs = GrpcClient & {
  check(request: object, callback: (error: Error | null, reply: { status: string }) => void): void;
  watch(request: object): ClientReadableStream<{ status: string }>;
};

function grpcJsClient(address: string, channel: ChannelCredentials): HealthOfGrpcJs {
  const definition = loadSync(inRepository("vendor/grpc/health/v1/health.proto"), { enums: String });
  const { grpc } = loadPackageDefinition(definition) as never as {
    grpc: { health: { v1: { Health: new (address: string, channel: ChannelCredentials) => HealthOfGrpcJs } } };
  };
  return new grpc.health.v1.Health(address, channel);
}

describe("a grpc-js client", () => {
  it.each(["plain text", "TLS"])("calls and watches over %s", async (kind) => {
    const tls = kind === "TLS" ? { certPem: CERT, keyPem: KEY } : undefined;
    const server = await startTestServer({ tls });
    const channel = tls ? credentials.createSsl(Buffer.from(CERT)) : credentials.createInsecure();
    const client = grpcJsClient(`localhost:${server.port}`, channel);
    try {
      const reply = await promisify(client.check.bind(client))({});
      expect(reply.status).toBe("SERVING");
      const seen: string[] = [];
      const stream = client.watch({});
      stream.on("error", () => undefined);
      for await (const { status } of stream as AsyncIterable<{ status: string }>) {
        seen.push(status);
        if (seen.length === 1) server.health.set(ServingStatus.NOT_SERVING);
        else break;
      }
      expect(seen).toEqual(["SERVING", "NOT_SERVING"]);
    } finally {
      client.close();
    }
  });
});

describe("TLS", () => {
  it.each([
    ["gRPC", (baseUrl: string) => createGrpcTransport({ baseUrl, nodeOptions: { ca: CERT } })],
    [
      "gRPC-web over HTTP/1.1",
      (baseUrl: string) => createGrpcWebTransport({ baseUrl, httpVersion: "1.1", nodeOptions: { ca: CERT } }),
    ],
    [
      "Connect over HTTP/2",
      (baseUrl: string) => createConnectTransport({ baseUrl, httpVersion: "2", nodeOptions: { ca: CERT } }),
    ],
  ])("carries %s", async (_, transport) => {
    const server = await startTestServer({ tls: { certPem: CERT, keyPem: KEY } });
    expect(server.url).toMatch(/^https:/);
    const client = createClient(Health, transport(server.url));
    expect((await client.check({})).status).toBe(ServingStatus.SERVING);
    for await (const { status } of client.watch({})) {
      expect(status).toBe(ServingStatus.SERVING);
      break;
    }
  });

  it("serves clients that offer no ALPN over HTTP/1.1", async () => {
    const server = await startTestServer({ tls: { certPem: CERT, keyPem: KEY } });
    const socket = connectTls({ port: server.port, host: "127.0.0.1", ca: CERT });
    socket.write("GET /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let answer = "";
    for await (const chunk of socket) answer += String(chunk);
    expect(answer).toMatch(/^HTTP\/1.1 404/);
  });

  it("survives plain text sent to it", async () => {
    const server = await startTestServer({ tls: { certPem: CERT, keyPem: KEY } });
    await expect(fetch(server.url.replace("https", "http"))).rejects.toThrow("fetch failed");
    const client = createClient(Health, createGrpcTransport({ baseUrl: server.url, nodeOptions: { ca: CERT } }));
    expect((await client.check({})).status).toBe(ServingStatus.SERVING);
  });
});

describe("plain HTTP", () => {
  const page = () => ({ status: 200, contentType: "text/plain", body: "ok\n" });

  it("answers pages to GET and HEAD, and says so to other methods", async () => {
    const { url } = await startTestServer({ pages: { "/health": page, "/slow": async () => page() } });
    const got = await fetch(`${url}/health?verbose=1`);
    expect([got.status, got.headers.get("content-type"), await got.text()]).toEqual([200, "text/plain", "ok\n"]);
    expect(await (await fetch(`${url}/slow`)).text()).toBe("ok\n");
    const head = await fetch(`${url}/health`, { method: "HEAD" });
    expect([head.status, await head.text()]).toEqual([200, ""]);
    const posted = await fetch(`${url}/health`, { method: "POST" });
    expect([posted.status, posted.headers.get("allow")]).toEqual([405, "GET, HEAD"]);
  });

  it("tells the address that it was given, and one by which it is reached from here", async () => {
    const { url, listensOn, port } = await startTestServer({ listen: { host: "0.0.0.0", port: 0 }, insecure: true });
    expect([url, listensOn]).toEqual([`http://127.0.0.1:${port}`, `http://0.0.0.0:${port}`]);
  });

  it("answers an unknown path with 404", async () => {
    const { url } = await startTestServer();
    const answer = await fetch(`${url}/nowhere`);
    expect([answer.status, await answer.text()]).toEqual([404, "nothing is served at /nowhere\n"]);
  });

  it("tells proxies not to buffer a stream", async () => {
    const { url } = await startTestServer();
    const enveloped = Buffer.from([0, 0, 0, 0, 2, ...Buffer.from("{}")]);
    const watch = (signal: AbortSignal) =>
      fetch(`${url}/grpc.health.v1.Health/Watch`, {
        method: "POST",
        headers: { "content-type": "application/connect+json" },
        body: enveloped,
        signal,
      });
    const leave = new AbortController();
    expect((await watch(leave.signal)).headers.get("x-accel-buffering")).toBe("no");
    leave.abort();
  });

  it("takes and prints JSON with snake_case names", async () => {
    const { url } = await startTestServer({
      routes: (router) => router.service(RunService, { getRun: ({ runId }) => ({ run: { runId } }) }),
    });
    const answer = await fetch(`${url}/agentrunner.v1.RunService/GetRun`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ run_id: "run_1" }),
    });
    expect(await answer.json()).toMatchObject({ run: { run_id: "run_1" } });
  });

  it("answers JSON of the wrong type, and values over their limit, with INVALID_ARGUMENT naming the field", async () => {
    const { url } = await startTestServer({ routes: (router) => router.service(RunService, {}) });
    const post = async (body: object) => {
      const headers = { "content-type": "application/json" };
      const answer = await fetch(`${url}/agentrunner.v1.RunService/GetRun`, {
        method: "POST",
        headers,
        body: JSON.stringify(body),
      });
      return (await answer.json()) as { code: string; message: string };
    };
    const wrongType = await post({ run_id: 7 });
    expect(wrongType.code).toBe("invalid_argument");
    expect(wrongType.message).toContain("run_id");
    const tooLong = await post({ run_id: "x".repeat(65) });
    expect(tooLong.code).toBe("invalid_argument");
    expect(tooLong.message).toContain("run_id: must be at most 64 characters");
  });
});

describe("reflection", () => {
  const buf = async (...args: string[]) => {
    const binary = inRepository("node_modules/.bin/buf");
    return (await promisify(execFile)(binary, ["curl", "--http2-prior-knowledge", ...args])).stdout.trim().split("\n");
  };

  it.each(["grpc-v1", "grpc-v1alpha"])("%s lists to `buf curl` what is mounted, and lets it call", async (version) => {
    const { url } = await startTestServer({
      routes: (router) => router.service(RunService, { getRun: ({ runId }) => ({ run: { runId } }) }),
    });
    expect(await buf("--reflect-protocol", version, "--list-services", url)).toEqual([
      "agentrunner.v1.RunService",
      "grpc.health.v1.Health",
      "grpc.reflection.v1.ServerReflection",
      "grpc.reflection.v1alpha.ServerReflection",
    ]);
    const methods = await buf("--reflect-protocol", version, "--list-methods", url);
    expect(methods).toContain("agentrunner.v1.RunService/WatchRun");
    const call = `${url}/agentrunner.v1.RunService/GetRun`;
    const reply = await buf("--reflect-protocol", version, "--protocol", "grpc", "-d", '{"run_id":"run_1"}', call);
    expect(JSON.parse(reply.join(""))).toEqual({ run: { runId: "run_1" } });
  });
});
