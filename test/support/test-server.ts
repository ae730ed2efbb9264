import { createClient } from "@connectrpc/connect";
import type { Client, ConnectRouter, Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import type { Gate } from "../../coordinator/access/gate.ts";
import { startServer } from "../../coordinator/http/server.ts";
import type { RunningServer, ServerOptions } from "../../coordinator/http/server.ts";
import { Health } from "../../gen/grpc/health/v1/health_pb.ts";
import { createLogger } from "../../lib/log.ts";

export interface TestServer extends RunningServer {
  /** Every line logged, parsed. */
  readonly logged: Record<string, unknown>[];
}

/** For servers whose callers are not what is tested: everyone may call everything. */
export const OPEN_GATE: Gate = { interceptor: (next) => next, check: () => undefined };

const running: TestServer[] = [];

/** A server on a free port of 127.0.0.1, with no services but health and reflection unless told otherwise. */
export async function startTestServer(
  options: Partial<ServerOptions> & { routes?: (router: ConnectRouter) => void } = {},
): Promise<TestServer> {
  const logged: Record<string, unknown>[] = [];
  const destination = { write: (line: string) => logged.push(JSON.parse(line)) };
  const log = createLogger({ name: "test", level: "debug", format: "json", destination });
  const defaults = { listen: { host: "127.0.0.1", port: 0 }, gate: OPEN_GATE, routes() {}, log };
  const server = await startServer({ ...defaults, ...options });
  const tested = { ...server, logged };
  running.push(tested);
  return tested;
}

/** For afterEach: stops every server and checks that none keeps a connection. */
export async function stopTestServers(): Promise<void> {
  for (const server of running.splice(0)) {
    await server.stop(0);
    if (server.connections() > 0) throw new Error(`${server.connections()} connections outlive their server`);
  }
}

/** The four ways our clients call; each opens connections of its own. */
export const PROTOCOLS = {
  "gRPC over h2c": (baseUrl) => createGrpcTransport({ baseUrl }),
  "gRPC-web over HTTP/1.1": (baseUrl) => createGrpcWebTransport({ baseUrl, httpVersion: "1.1" }),
  "Connect over HTTP/1.1": (baseUrl) => createConnectTransport({ baseUrl, httpVersion: "1.1" }),
  "Connect over HTTP/2": (baseUrl) => createConnectTransport({ baseUrl, httpVersion: "2" }),
} as const satisfies Record<string, (baseUrl: string) => Transport>;

export const PROTOCOL_NAMES = Object.keys(PROTOCOLS) as (keyof typeof PROTOCOLS)[];

export function healthClient(
  url: string,
  protocol: keyof typeof PROTOCOLS = "Connect over HTTP/2",
): Client<typeof Health> {
  return createClient(Health, PROTOCOLS[protocol](url));
}
