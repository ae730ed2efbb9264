import { once } from "node:events";
import { constants, createServer } from "node:http2";
import type { Http2Server, ServerHttp2Stream } from "node:http2";
import { createServer as createHttp1Server } from "node:http";
import { createServer as createTcpServer } from "node:net";
import type { AddressInfo, Server } from "node:net";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { afterEach, describe, expect, it } from "vitest";
import { RunnerService } from "../../../gen/agentrunner/v1/runner_service_pb.ts";
import { errorInfo } from "../../../lib/rpc/error-info.ts";
import { EXIT } from "../../../lib/exit-codes.ts";
import { CLIENT_WRITE_MAX_BYTES } from "../../../lib/protocol/limits.ts";
import { connectTransport, describeConnectError } from "../../../lib/rpc/transport.ts";
import { FakeCoordinator } from "../../support/fake-coordinator.ts";
import { atEnd, cleanUp } from "../../support/test-runner.ts";

afterEach(cleanUp);

async function listen(server: Server | Http2Server): Promise<string> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

function clientOf(url: string) {
  const link = connectTransport(url);
  atEnd(() => link.abort());
  return createClient(RunnerService, link.transport);
}

describe("a transport", () => {
  it("opens another HTTP/2 session when one answers ENHANCE_YOUR_CALM", async () => {
    const sessions: object[] = [];
    const server = createServer();
    server.on("session", (session) => {
      sessions.push(session);
      session.on("error", () => undefined);
      atEnd(() => session.destroy());
    });
    server.on("stream", (stream: ServerHttp2Stream) => {
      stream.on("error", () => undefined);
      if (sessions.length === 1) return stream.close(constants.NGHTTP2_ENHANCE_YOUR_CALM);
      stream.respond({ ":status": 200, "content-type": "application/proto" });
      return stream.end();
    });
    const client = clientOf(await listen(server));
    atEnd(() => server.close());
    await expect(client.deregister({})).rejects.toThrow(/ENHANCE_YOUR_CALM/);
    await client.deregister({});
    expect(sessions).toHaveLength(2);
  });

  it("refuses to send what a server would not take, and goes on working", async () => {
    const fake = await new FakeCoordinator().start();
    atEnd(() => fake.stop());
    const client = clientOf(fake.url);
    const request = { runnerId: "r", bootId: "x".repeat(CLIENT_WRITE_MAX_BYTES) };
    for (let i = 0; i < 3; i += 1) {
      const error = await client.deregister(request).catch((error: unknown) => ConnectError.from(error));
      expect(error).toMatchObject({ code: Code.ResourceExhausted });
    }
    await client.deregister({ runnerId: "r", bootId: "b" });
    expect(fake.of("deregister")).toHaveLength(1);
  });

  it("survives that its connection breaks under a call and is closed at the same moment", async () => {
    const server = createHttp1Server((_, response) => response.end("not a coordinator"));
    const url = await listen(server);
    atEnd(() => server.close());
    const link = connectTransport(url);
    const error = await createClient(RunnerService, link.transport)
      .deregister({})
      .catch((error: unknown) => error);
    link.abort();
    expect(describeConnectError(error, url)).toMatchObject({
      exitCode: EXIT.unreachable,
      hint: expect.stringContaining("no coordinator"),
    });
  });
});

describe("a failed call is explained", () => {
  it("when nobody listens: what was tried, why, and what to do", async () => {
    const server = createTcpServer();
    const url = await listen(server);
    server.close();
    await once(server, "close");
    const error = await clientOf(url)
      .deregister({})
      .catch((error: unknown) => error);
    expect(describeConnectError(error, url)).toEqual({
      text: `cannot reach coordinator at ${url} (ECONNREFUSED)`,
      hint: "start one with `ao dev`, or set AGENT_ORCHESTRATOR_API_URL",
      exitCode: EXIT.unreachable,
    });
  });

  it.each([
    [Code.Unauthenticated, EXIT.refused],
    [Code.FailedPrecondition, EXIT.refused],
    [Code.AlreadyExists, EXIT.refused],
    [Code.Unimplemented, EXIT.refused],
    [Code.InvalidArgument, EXIT.usage],
    [Code.NotFound, EXIT.notFound],
    [Code.OutOfRange, EXIT.refused],
    [Code.ResourceExhausted, EXIT.refused],
    [Code.Aborted, EXIT.unreachable],
    [Code.Unavailable, EXIT.unreachable],
    [Code.Canceled, EXIT.unreachable],
    [Code.Internal, EXIT.bug],
  ])("with code %i, which ends a program with %i", (code, exitCode) => {
    expect(describeConnectError(new ConnectError("why", code), "http://h").exitCode).toBe(exitCode);
  });

  it("of a store that cannot be written: the coordinator is there, and says no", () => {
    const error = new ConnectError("the disk is full", Code.Unavailable, undefined, [errorInfo("STORE_FULL")]);
    expect(describeConnectError(error, "http://h")).toEqual({
      text: "the disk is full",
      hint: "`ao doctor` checks the store and the disk",
      exitCode: EXIT.refused,
    });
  });

  it("whatever was thrown", () => {
    expect(describeConnectError("text", "http://h").text).toContain("text");
  });
});
