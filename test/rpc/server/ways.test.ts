import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer as createHttp1Server } from "node:http";
import { createServer as createTlsServer } from "node:tls";
import type { AddressInfo, Server } from "node:net";
import { connect as connectHttp2, createServer as createHttp2Server } from "node:http2";
import { Readable } from "node:stream";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { afterEach, describe, expect, it } from "vitest";
import { createCli } from "../../../cli/cli.ts";
import { coordinatorChecks } from "../../../cli/doctor/coordinator.ts";
import { Health, HealthCheckResponse_ServingStatus } from "../../../gen/grpc/health/v1/health_pb.ts";
import { EXIT } from "../../../lib/exit-codes.ts";
import { connectTransport, describeConnectError } from "../../../lib/rpc/transport.ts";
import { openTunnel } from "../../../lib/rpc/tunnel.ts";
import { ao } from "../../support/ao.ts";
import { ConnectProxy } from "../../support/connect-proxy.ts";
import { startTestCoordinator, stopTestCoordinators } from "../../support/coordinator.ts";
import { inRepository } from "../../support/paths.ts";
import { startTestServer, stopTestServers } from "../../support/test-server.ts";
import { atEnd, cleanUp, testSettings } from "../../support/test-runner.ts";
import { startRunner } from "../../../runner/runner.ts";
import { createLogger } from "../../../lib/log.ts";
import { until } from "../../support/until.ts";

afterEach(async () => {
  await cleanUp();
  await stopTestCoordinators();
  await stopTestServers();
});

const certPem = readFileSync(inRepository("test/fixtures/tls/cert.pem"), "utf8");
const keyPem = readFileSync(inRepository("test/fixtures/tls/key.pem"), "utf8");

async function proxyTo(port: number): Promise<ConnectProxy> {
  const proxy = await ConnectProxy.start(port);
  atEnd(() => proxy.stop());
  return proxy;
}

function health(url: string, env: Record<string, string>, ca?: string) {
  const link = connectTransport(url, { env, ca });
  atEnd(() => link.abort());
  return createClient(Health, link.transport);
}

/** What a call to `url` fails with, as every program says it. */
async function trouble(url: string, env: Record<string, string> = {}) {
  const error = await health(url, env)
    .check({})
    .then(() => "no error")
    .catch((error: unknown) => error);
  return describeConnectError(error, url);
}

async function portOf(server: Server): Promise<number> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  atEnd(() => server.close());
  return (server.address() as AddressInfo).port;
}

/** What `ao doctor` says of the coordinator, or under another name. */
async function doctorOf(url: string, name = "coordinator"): Promise<string | undefined> {
  const io = { stdin: Readable.from([]), stdout: { write: () => undefined }, stderr: { write: () => undefined } };
  const cli = createCli(
    { ...io, env: {}, onInterrupt: () => () => undefined },
    { coordinatorUrl: url, output: "text", color: "never" },
  );
  atEnd(() => cli.close());
  for await (const check of coordinatorChecks(cli)) if (check.name === name) return `${check.status}: ${check.detail}`;
  return undefined;
}

const ok = () => ({ status: 200, contentType: "text/plain", body: "ok" });
const SERVING = { status: HealthCheckResponse_ServingStatus.SERVING };

describe("through a proxy that knows CONNECT", () => {
  it("goes a call in plain text, with the name that it was given and the credentials of the proxy", async () => {
    const { port } = await startTestServer({ allowedHosts: ["agents.example.com"] });
    const proxy = await proxyTo(port);
    const env = { HTTP_PROXY: proxy.url.replace("http://", "http://me:s%20ecret@") };
    expect(await health("http://agents.example.com:8765", env).check({})).toMatchObject(SERVING);
    expect(proxy.asked).toEqual([
      { target: "agents.example.com:8765", authorization: `Basic ${Buffer.from("me:s ecret").toString("base64")}` },
    ]);
  });

  it("goes a call with TLS, whose certificate is held against the name of the coordinator", async () => {
    const { port } = await startTestServer({ tls: { certPem, keyPem } });
    const proxy = await proxyTo(port);
    const url = "https://other.example.com";
    expect((await trouble(url, { HTTPS_PROXY: proxy.url })).hint).toContain("not trusted");
    const named = await health(url, { HTTPS_PROXY: proxy.url }, certPem)
      .check({})
      .catch((error: unknown) => describeConnectError(error, url));
    expect(named).toMatchObject({ text: expect.stringContaining("ERR_TLS_CERT_ALTNAME_INVALID") });
    // The name in the certificate is localhost, for which no variable counts.
    const local = `https://localhost:${port}`;
    const route = { type: "proxy", proxy: new URL(proxy.url), variable: "HTTPS_PROXY" } as const;
    const way = await openTunnel(local, route, certPem);
    const session = connectHttp2(local, { createConnection: () => way });
    atEnd(() => session.destroy());
    const [headers] = await once(session.request({ ":path": "/grpc.health.v1.Health/Check" }), "response");
    expect(headers[":status"]).toBe(405);
    expect(proxy.asked.at(-1)?.target).toBe(`localhost:${port}`);
  });

  it("that refuses, the error names proxy, variable and status", async () => {
    const proxy = await proxyTo(1);
    proxy.refusal = "407 Proxy Authentication Required";
    expect(await trouble("https://agents.example.com", { ALL_PROXY: proxy.url.replace("//", "//u:hidden@") })).toEqual({
      text:
        "cannot reach coordinator at https://agents.example.com (no way to agents.example.com:443 through the proxy " +
        `${proxy.url} of ALL_PROXY: it answers HTTP 407 Proxy Authentication Required)`,
      hint: "correct the variable, or name the host in NO_PROXY",
      exitCode: EXIT.unreachable,
    });
  });

  it("that begins to refuse after calls that went through, the error names it too", async () => {
    const { port } = await startTestServer({ allowedHosts: ["agents.example.com"] });
    const proxy = await proxyTo(port);
    const url = "http://agents.example.com:8765";
    const link = connectTransport(url, { env: { HTTP_PROXY: proxy.url } });
    atEnd(() => link.abort());
    const client = createClient(Health, link.transport);
    expect(await client.check({})).toMatchObject(SERVING);
    proxy.refusal = "407 Proxy Authentication Required";
    link.abort();
    const error: unknown = await client.check({}).catch((error: unknown) => error);
    expect(describeConnectError(error, url)).toMatchObject({
      text: expect.stringContaining(`the proxy ${proxy.url} of HTTP_PROXY: it answers HTTP 407`),
      exitCode: EXIT.unreachable,
    });
    // Clients repeat what failed for that.
    expect(ConnectError.from(error).code).toBe(Code.Unavailable);
    proxy.refusal = undefined;
    expect(await client.check({})).toMatchObject(SERVING);
  });

  it("that is silent, a call ends with its connection, and the next asks for a way of its own", async () => {
    const { port } = await startTestServer({ allowedHosts: ["agents.example.com"] });
    const proxy = await proxyTo(port);
    proxy.silent = true;
    const link = connectTransport("http://agents.example.com:8765", { env: { HTTP_PROXY: proxy.url } });
    atEnd(() => link.abort());
    const client = createClient(Health, link.transport);
    const calls = [1, 2].map(() => client.check({}).catch((error: unknown) => ConnectError.from(error).code));
    await until(() => proxy.asked.length === 1, "a way is asked for");
    link.abort();
    expect(await Promise.all(calls)).toEqual([Code.Canceled, Code.Canceled]);
    proxy.silent = false;
    expect(await client.check({})).toMatchObject(SERVING);
    expect(proxy.asked).toHaveLength(2);
  });

  it("that is not there, the error says so", async () => {
    const { url, stop } = await ConnectProxy.start(1).then((it) => ({ url: it.url, stop: () => it.stop() }));
    await stop();
    const { text } = await trouble("http://agents.example.com", { http_proxy: url });
    expect(text).toContain(`the proxy ${url} of http_proxy: it cannot be reached: ECONNREFUSED`);
  });

  it("works a runner, which comes back when the proxy cut it off, and `ao`", { timeout: 60_000 }, async () => {
    const c = await startTestCoordinator({ allowedHosts: ["agents.example.com"] });
    const proxy = await proxyTo(Number(new URL(c.url).port));
    const url = "http://agents.example.com:8765";
    const env = { http_proxy: proxy.url, AGENT_ORCHESTRATOR_API_URL: url };
    for (const [name, value] of Object.entries({ http_proxy: proxy.url })) {
      const before = process.env[name];
      process.env[name] = value;
      atEnd(() => (before === undefined ? delete process.env[name] : (process.env[name] = before)));
    }
    const log = createLogger({ name: "test", level: "info", format: "json", destination: { write: () => undefined } });
    const runner = await startRunner(testSettings(url), { log, executor: () => () => never() });
    atEnd(() => runner.kill());
    const attached = () => until(() => runner.connectionState().type === "attached", "the runner is attached");
    await attached();
    const before = proxy.asked.length;
    proxy.cut();
    await until(() => proxy.asked.length > before, "it comes back");
    await attached();
    expect(await ao(["runners"], env)).toMatchObject({ exitCode: 0, stdout: expect.stringContaining(runner.runnerId) });
  });
});

function never() {
  return { done: Promise.withResolvers<never>().promise, stop: () => undefined, kill: () => undefined } as never;
}

it("a variable that names another kind of proxy is named when the host cannot be reached", async () => {
  const { text } = await trouble("http://agents.invalid", { ALL_PROXY: "socks5://127.0.0.1:1080" });
  expect(text).toContain("ALL_PROXY names a socks5 proxy, which is not spoken here, and was ignored");
});

describe("http:// to a port with TLS", () => {
  it("of a coordinator says so, in every program the same", async () => {
    const { port } = await startTestServer({ tls: { certPem, keyPem } });
    const url = `http://localhost:${port}`;
    expect(await trouble(url)).toEqual({
      text: `cannot reach coordinator at ${url} (it speaks TLS)`,
      hint: "use https://",
      exitCode: EXIT.unreachable,
    });
    const text = `cannot reach coordinator at ${url} (it speaks TLS)`;
    expect(await ao(["-c", url, "runs", "ls"])).toMatchObject({
      exitCode: EXIT.unreachable,
      stderr: `error: ${text}\nhint: use https://\n`,
    });
    expect(await doctorOf(url)).toContain(text);
  });

  it("of a server that answers nothing", async () => {
    const port = await portOf(
      createTlsServer({ cert: certPem, key: keyPem }, (socket) => socket.on("error", () => undefined)),
    );
    expect(await trouble(`http://localhost:${port}`)).toMatchObject({ hint: "use https://" });
  });
});

it("https:// to a port without TLS says so", async () => {
  const port = await portOf(createHttp1Server((_, response) => response.end()));
  expect((await trouble(`https://localhost:${port}`)).hint).toContain("speaks no TLS: use http://");
});

it("doctor says the same of a port where nobody listens as every verb", async () => {
  const url = "http://127.0.0.1:1";
  const { stderr } = await ao(["-c", url, "runs", "ls"]);
  const [, text] = /error: (.*)/.exec(stderr) ?? [];
  expect(text).toContain("ECONNREFUSED");
  expect(await doctorOf(url)).toBe(`fail: ${text}`);
});

describe("doctor opens a stream", () => {
  it("and says how long its first message took", async () => {
    const { url } = await startTestServer({ pages: { "/health": ok, "/ready": ok } });
    expect(await doctorOf(url, "stream")).toMatch(/^pass: its first message comes in /);
  });

  it("and says that the first message does not come", { timeout: 30_000 }, async () => {
    // What a proxy does that keeps streams back.
    const server = createHttp2Server((request, response) => {
      if (request.method === "GET") response.end("ok");
    });
    server.on("session", (session) => {
      session.on("error", () => undefined);
      atEnd(() => session.destroy());
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    atEnd(() => server.close());
    const said = await doctorOf(`http://127.0.0.1:${(server.address() as AddressInfo).port}`, "stream");
    expect(said).toMatch(/^fail: the first message of a stream does not come in 5/);
  });
});
