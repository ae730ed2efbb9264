import { once } from "node:events";
import { Agent, get } from "node:http";
import { connect as connectHttp2 } from "node:http2";
import { connect } from "node:net";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { afterEach, describe, expect, it } from "vitest";
import { ServingStatus } from "../../../coordinator/http/health.ts";
import { RunService } from "../../../gen/agentrunner/v1/run_service_pb.ts";
import {
  healthClient,
  PROTOCOL_NAMES,
  PROTOCOLS,
  startTestServer,
  stopTestServers,
} from "../../support/test-server.ts";
import { until } from "../../support/until.ts";

const GRACE_MS = 60_000;
/** A stop that waits for nobody takes a few ms; one that waits for its grace takes a minute. */
const PROMPT_MS = 30_000;

afterEach(stopTestServers);

async function elapsedMs(promise: Promise<unknown>): Promise<number> {
  const start = performance.now();
  await promise;
  return performance.now() - start;
}

/** Follows the health of the server to the end of the stream. */
function follow(url: string, protocol: keyof typeof PROTOCOLS) {
  const seen: number[] = [];
  const ended = (async () => {
    for await (const { status } of healthClient(url, protocol).watch({})) seen.push(status);
  })().catch((error: unknown) => ConnectError.from(error).code);
  return { seen, ended };
}

describe("stop", () => {
  it.each(PROTOCOL_NAMES)("tells watchers over %s NOT_SERVING and ends them with UNAVAILABLE", async (protocol) => {
    const server = await startTestServer();
    const { seen, ended } = follow(server.url, protocol);
    await until(() => seen.length === 1, "the stream is open");
    expect(await elapsedMs(server.stop(GRACE_MS))).toBeLessThan(PROMPT_MS);
    expect(await ended).toBe(Code.Unavailable);
    expect(seen).toEqual([ServingStatus.SERVING, ServingStatus.NOT_SERVING]);
    expect(server.connections()).toBe(0);
  });

  it("ends a hundred streams without a warning about listeners", async () => {
    const warnings: Error[] = [];
    const onWarning = (warning: Error) => warnings.push(warning);
    process.on("warning", onWarning);
    try {
      const server = await startTestServer();
      const client = healthClient(server.url);
      let open = 0;
      const streams = Array.from({ length: 100 }, async () => {
        for await (const { status } of client.watch({})) open += status === ServingStatus.SERVING ? 1 : 0;
      });
      const ends = Promise.allSettled(streams);
      await until(() => open === 100, "all streams are open");
      expect(await elapsedMs(server.stop(GRACE_MS))).toBeLessThan(PROMPT_MS);
      expect((await ends).filter(({ status }) => status === "rejected")).toHaveLength(100);
      expect(warnings.filter(({ name }) => name === "MaxListenersExceededWarning")).toEqual([]);
    } finally {
      process.off("warning", onWarning);
    }
  });

  it("does not wait for idle, silent or half-spoken connections", async () => {
    const server = await startTestServer();
    const agent = new Agent({ keepAlive: true });
    const [response] = await once(get(`${server.url}/x`, { agent }), "response");
    response.resume();
    await once(response, "end");
    const session = connectHttp2(server.url);
    await once(session, "remoteSettings");
    const silent = connect(server.port, "127.0.0.1");
    const halfSpoken = connect(server.port, "127.0.0.1").on("error", () => undefined);
    halfSpoken.write("PRI");
    await until(() => server.connections() === 4, "four connections are open");
    expect(await elapsedMs(server.stop(GRACE_MS))).toBeLessThan(PROMPT_MS);
    expect(server.connections()).toBe(0);
    agent.destroy();
    silent.destroy();
  });

  it.each(PROTOCOL_NAMES)("lets a call in flight over %s finish", async (protocol) => {
    const started = Promise.withResolvers<void>();
    const release = Promise.withResolvers<void>();
    const server = await startTestServer({
      routes: (router) =>
        router.service(RunService, {
          async getRun({ runId }) {
            started.resolve();
            await release.promise;
            return { run: { runId } };
          },
        }),
    });
    const call = createClient(RunService, PROTOCOLS[protocol](server.url)).getRun({ runId: "run_1" });
    await started.promise;
    const stopped = server.stop(GRACE_MS);
    await expect(fetch(server.url)).rejects.toThrow("fetch failed");
    release.resolve();
    expect((await call).run?.runId).toBe("run_1");
    expect(await elapsedMs(stopped)).toBeLessThan(PROMPT_MS);
  });

  it.each(PROTOCOL_NAMES)("cuts a handler over %s that ignores it, when the grace is over", async (protocol) => {
    const started = Promise.withResolvers<void>();
    const server = await startTestServer({
      routes: (router) =>
        router.service(RunService, {
          getRun() {
            started.resolve();
            return new Promise(() => {});
          },
        }),
    });
    const call = createClient(RunService, PROTOCOLS[protocol](server.url)).getRun({ runId: "run_1" });
    const failed = expect(call).rejects.toBeInstanceOf(ConnectError);
    await started.promise;
    const tookMs = await elapsedMs(server.stop(200));
    expect(tookMs).toBeGreaterThan(190);
    expect(tookMs).toBeLessThan(PROMPT_MS);
    await failed;
  });

  it("cuts a client that has stopped reading", async () => {
    let written = 0;
    const server = await startTestServer({
      routes: (router) =>
        router.service(RunService, {
          async *watchRun(_, { signal }) {
            while (!signal.aborted) {
              written += 1;
              yield { cursor: "x".repeat(100_000) };
            }
            throw signal.reason;
          },
        }),
    });
    const session = connectHttp2(server.url);
    session.on("error", () => undefined);
    const stream = session.request({
      ":method": "POST",
      ":path": "/agentrunner.v1.RunService/WatchRun",
      "content-type": "application/grpc",
    });
    stream.on("error", () => undefined);
    stream.end(Buffer.from("\u0000\u0000\u0000\u0000\u0007\n\u0005run_1", "latin1"));
    await until(() => written > 0, "the stream flows");
    let last = -1;
    await until(() => last === (last = written), "the stream is blocked by its reader");
    expect(written).toBeLessThan(100);
    expect(await elapsedMs(server.stop(200))).toBeLessThan(PROMPT_MS);
    session.destroy();
  });

  it("cuts an HTTP/2 peer that never hangs up, though pings are due meanwhile", async () => {
    const server = await startTestServer({ pingIntervalMs: 20, pingTimeoutMs: 5_000 });
    const peer = connect({ port: server.port, host: "127.0.0.1", allowHalfOpen: true });
    peer.on("error", () => undefined);
    peer.write(
      Buffer.concat([Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0])]),
    );
    await once(peer, "data");
    peer.resume();
    const tookMs = await elapsedMs(server.stop(200));
    expect(tookMs).toBeGreaterThan(190);
    expect(tookMs).toBeLessThan(PROMPT_MS);
    peer.destroy();
  });

  it("can be called twice, and frees the port", async () => {
    const server = await startTestServer();
    await Promise.all([server.stop(GRACE_MS), server.stop(0)]);
    const again = await startTestServer({ listen: { host: "127.0.0.1", port: server.port } });
    expect(again.port).toBe(server.port);
  });
});
