import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect as connectHttp2 } from "node:http2";
import { connect } from "node:net";
import { buffer } from "node:stream/consumers";
import { setImmediate as nextLoop } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import { create, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { afterEach, describe, expect, it } from "vitest";
import { versionOf } from "../../../coordinator/http/one-port.ts";
import { RunService } from "../../../gen/agentrunner/v1/run_service_pb.ts";
import { HealthCheckRequestSchema } from "../../../gen/grpc/health/v1/health_pb.ts";
import { reasonOf } from "../../../lib/rpc/error-info.ts";
import { MESSAGE_MAX_BYTES } from "../../../lib/protocol/limits.ts";
import {
  healthClient,
  PROTOCOL_NAMES,
  PROTOCOLS,
  startTestServer,
  stopTestServers,
} from "../../support/test-server.ts";
import { until } from "../../support/until.ts";
import { inRepository } from "../../support/paths.ts";

const children: ChildProcess[] = [];

afterEach(async () => {
  for (const child of children.splice(0)) {
    child.kill("SIGKILL");
    await until(() => child.exitCode !== null || child.signalCode !== null, "the client has exited");
  }
  await stopTestServers();
});

/** Opens a connection, sends `bytes` and returns everything that comes back until the server ends it. */
async function sendRaw(port: number, bytes: string | Buffer): Promise<Buffer> {
  const socket = connect(port, "127.0.0.1");
  socket.on("error", () => undefined);
  if (bytes.length > 0) socket.write(bytes);
  return buffer(socket).catch(() => Buffer.alloc(0));
}

/** A client in a process of its own that holds one open stream. */
async function startWatcher(url: string, protocol: keyof typeof PROTOCOLS): Promise<ChildProcess> {
  const fixture = inRepository("test/fixtures/watch-health.ts");
  const child = spawn(process.execPath, [fixture, url, protocol], { stdio: ["ignore", "pipe", "inherit"] });
  children.push(child);
  await once(child.stdout, "data");
  return child;
}

const PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

function isTooLarge(error: unknown): boolean {
  return ConnectError.from(error).code === Code.ResourceExhausted && reasonOf(error) === "MESSAGE_TOO_LARGE";
}

describe("a message over the limit", () => {
  it.each(PROTOCOL_NAMES)("over %s gives RESOURCE_EXHAUSTED, and the next call works", async (protocol) => {
    const { url } = await startTestServer();
    const client = healthClient(url, protocol);
    const call = client.check({ service: "x".repeat(MESSAGE_MAX_BYTES + 1) });
    await expect(call).rejects.toSatisfy(isTooLarge);
    await expect(client.check({})).resolves.toBeDefined();
  });

  it.each(PROTOCOL_NAMES)("is not sent as an answer over %s either", async (protocol) => {
    const { url } = await startTestServer({
      messageMaxBytes: 10_000,
      routes: (router) => router.service(RunService, { getRun: () => ({ run: { runId: "x".repeat(10_000) } }) }),
    });
    const client = createClient(RunService, PROTOCOLS[protocol](url));
    await expect(client.getRun({ runId: "run_1" })).rejects.toSatisfy(isTooLarge);
  });

  const bomb = gzipSync(
    toBinary(HealthCheckRequestSchema, create(HealthCheckRequestSchema, { service: "x".repeat(2 ** 26) })),
  );

  it("is not unpacked from a small compressed Connect body", async () => {
    const { url } = await startTestServer();
    const answer = await fetch(`${url}/grpc.health.v1.Health/Check`, {
      method: "POST",
      headers: { "content-type": "application/proto", "content-encoding": "gzip" },
      body: bomb,
    });
    expect(bomb.length).toBeLessThan(100_000);
    expect(await answer.json()).toMatchObject({ code: "resource_exhausted" });
  });

  it("is not unpacked from a small compressed gRPC frame", async () => {
    const { url } = await startTestServer();
    const frame = Buffer.concat([Buffer.from([1, 0, 0, 0, 0]), bomb]);
    frame.writeUInt32BE(bomb.length, 1);
    const session = connectHttp2(url);
    const stream = session.request({
      ":method": "POST",
      ":path": "/grpc.health.v1.Health/Check",
      "content-type": "application/grpc",
      "grpc-encoding": "gzip",
    });
    stream.end(frame);
    stream.resume();
    const [trailers] = await once(stream, "trailers");
    expect(trailers["grpc-status"]).toBe(String(Code.ResourceExhausted));
    session.close();
  });
});

describe("the first bytes", () => {
  it("decide the HTTP version as soon as they can", () => {
    expect(versionOf(Buffer.from(""))).toBeUndefined();
    expect(versionOf(Buffer.from("P"))).toBeUndefined();
    expect(versionOf(Buffer.from(PREFACE.slice(0, -1)))).toBeUndefined();
    expect(versionOf(Buffer.from(PREFACE))).toBe("h2");
    expect(versionOf(Buffer.from(`${PREFACE}more`))).toBe("h2");
    expect(versionOf(Buffer.from("POST /"))).toBe("h1");
    expect(versionOf(Buffer.from("PRI * HTTP/1.1\r\n"))).toBe("h1");
  });

  it("may come one by one", async () => {
    const { port } = await startTestServer();
    const socket = connect({ port, host: "127.0.0.1", noDelay: true });
    for (const byte of "POST /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n") {
      socket.write(byte);
      await nextLoop();
    }
    expect(String(await buffer(socket))).toMatch(/^HTTP\/1\.1 404 /);
  });

  it.each([
    ["nothing", ""],
    ["half an HTTP/2 preface", PREFACE.slice(0, 10)],
  ])("that are %s end the connection after the first-byte timeout", async (_, bytes) => {
    const { port } = await startTestServer({ firstByteTimeoutMs: 100 });
    expect(await sendRaw(port, bytes)).toHaveLength(0);
  });

  it("that never begin a TLS handshake end the connection too", async () => {
    const pem = (name: string) => readFileSync(inRepository(`test/fixtures/tls/${name}.pem`), "utf8");
    const tls = { certPem: pem("cert"), keyPem: pem("key") };
    const { port } = await startTestServer({ firstByteTimeoutMs: 100, tls });
    expect(await sendRaw(port, "")).toHaveLength(0);
  });
});

describe("an HTTP/1.1 request", () => {
  it("whose headers never end is answered 408", async () => {
    const { port } = await startTestServer({ firstByteTimeoutMs: 100 });
    expect(String(await sendRaw(port, "GET / HTTP/1.1\r\nHost: loc"))).toMatch(/^HTTP\/1\.1 408 /);
  });

  it("whose body never ends is cut off", async () => {
    const { port } = await startTestServer({ firstByteTimeoutMs: 100, requestTimeoutMs: 200 });
    const head = "POST /grpc.health.v1.Health/Check HTTP/1.1\r\nHost: localhost\r\ncontent-type: application/json";
    expect(String(await sendRaw(port, `${head}\r\ncontent-length: 10\r\n\r\n{`))).toMatch(/^HTTP\/1\.1 408 /);
  });

  it("may have an answer that takes longer than both timeouts", async () => {
    const { url } = await startTestServer({ firstByteTimeoutMs: 50, requestTimeoutMs: 50, pages: { "/slow": slow } });
    let release = () => {};
    const waiting = new Promise<void>((resolve) => (release = resolve));
    async function slow() {
      await waiting;
      return { status: 200, contentType: "text/plain", body: "done" };
    }
    const answer = fetch(`${url}/slow`);
    // The check for late requests runs every 13 ms, so this is long enough for it to have struck.
    const start = performance.now();
    await until(() => performance.now() - start > 200, "both timeouts are over");
    release();
    expect(await (await answer).text()).toBe("done");
  });
});

describe("an HTTP/2 client", () => {
  it.each(["gRPC over h2c", "Connect over HTTP/2"] as const)(
    "that is frozen is dropped by pings (%s)",
    async (protocol) => {
      const server = await startTestServer({ pingIntervalMs: 100, pingTimeoutMs: 200 });
      const watcher = await startWatcher(server.url, protocol);
      expect(server.connections()).toBe(1);
      watcher.kill("SIGSTOP");
      await until(() => server.connections() === 0, "the frozen client is dropped");
    },
  );

  it("whose answer waits unread while this process stands still is kept", async () => {
    const server = await startTestServer({ pingIntervalMs: 20, pingTimeoutMs: 500 });
    const watcher = await startWatcher(server.url, "gRPC over h2c");
    watcher.kill("SIGSTOP");
    const start = performance.now();
    await until(() => performance.now() - start > 100, "a ping has left and is not answered");
    // Timers run next after this phase of the loop, and sockets are read only then.
    await nextLoop();
    watcher.kill("SIGCONT");
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1_000);
    const before = server.connections();
    await until(() => performance.now() - start > 1_300, "late timers have fired");
    expect([before, server.connections()]).toEqual([1, 1]);
  });
});

describe("malformed input", () => {
  const frame = (length: number, type: number, flags: number, streamId: number, payload = "") => {
    const head = Buffer.alloc(9);
    head.writeUIntBE(length, 0, 3);
    head.writeUInt8(type, 3);
    head.writeUInt8(flags, 4);
    head.writeUInt32BE(streamId, 5);
    return Buffer.concat([Buffer.from(PREFACE), frame0, head, Buffer.from(payload)]);
  };
  const frame0 = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]);

  it.each<[string, string | Buffer]>([
    ["random bytes", Buffer.from(Array.from({ length: 4096 }, (_, at) => (at * 7919) % 251))],
    ["a broken HTTP/1.1 request", "GET / HTTP/1.1\r\nno colon\r\n\r\n"],
    ["an endless header", `GET / HTTP/1.1\r\nHost: localhost\r\nx: ${"y".repeat(100_000)}\r\n\r\n`],
    ["a preface and then text", `${PREFACE}hello, this is no frame at all, sorry`],
    ["a frame longer than allowed", frame(0xff_ff_ff, 0, 0, 1, "x")],
    ["data on a stream that was never opened", frame(1, 0, 1, 5, "x")],
    ["headers that are not HPACK", frame(4, 1, 4, 1, "\u007f\u007f\u007f\u007f")],
    ["an odd window update", frame(3, 8, 0, 0, "abc")],
  ])("such as %s ends only its own connection", async (_, bytes) => {
    const server = await startTestServer({ pingIntervalMs: 50, pingTimeoutMs: 50, firstByteTimeoutMs: 200 });
    const client = healthClient(server.url);
    await client.check({});
    await sendRaw(server.port, bytes);
    await expect(client.check({})).resolves.toBeDefined();
    expect(server.logged.filter(({ level }) => level === "error")).toEqual([]);
  });

  it.each([
    ["application/connect+proto", "\u0000\u0000\u0000\u0000\u0005abc", "Connect"],
    ["application/grpc-web+proto", "\u0000\u0000\u0000\u0000\u0002\u00ff\u00ff", "gRPC-web"],
    ["application/connect+json", "\u0000\u0000\u0000\u0000\u0003{no", "Connect JSON"],
  ])("in the envelopes of %s is an error of that call alone", async (contentType, body) => {
    const server = await startTestServer();
    const answer = await fetch(`${server.url}/grpc.health.v1.Health/Watch`, {
      method: "POST",
      headers: { "content-type": contentType },
      body: Buffer.from(body, "latin1"),
    });
    await answer.arrayBuffer();
    await expect(healthClient(server.url).check({})).resolves.toBeDefined();
    expect(server.logged.filter(({ level }) => level === "error")).toEqual([]);
  });
});
