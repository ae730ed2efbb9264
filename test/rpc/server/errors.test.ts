import { getEventListeners } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import type { ServiceImpl } from "@connectrpc/connect";
import { afterEach, describe, expect, it } from "vitest";
import { RunService } from "../../../gen/agentrunner/v1/run_service_pb.ts";
import {
  healthClient,
  PROTOCOL_NAMES,
  PROTOCOLS,
  startTestServer,
  stopTestServers,
} from "../../support/test-server.ts";
import type { TestServer } from "../../support/test-server.ts";
import { until } from "../../support/until.ts";

afterEach(stopTestServers);

const runId = "run_1";

function startWith(implementation: Partial<ServiceImpl<typeof RunService>>): Promise<TestServer> {
  return startTestServer({ routes: (router) => router.service(RunService, implementation) });
}

/** Reads a stream to its end and returns how many messages came and the error it ended with. */
async function drain(stream: AsyncIterable<unknown>): Promise<{ messages: number; error: unknown }> {
  let messages = 0;
  try {
    for await (const message of stream) messages += message === undefined ? 0 : 1;
    return { messages, error: undefined };
  } catch (error) {
    return { messages, error };
  }
}

/** The one line about a failed handler; fails when the id the client was told is not in it. */
function failureLogged(server: TestServer, error: unknown): Record<string, unknown> {
  const { code, rawMessage } = ConnectError.from(error);
  expect(code).toBe(Code.Internal);
  expect(rawMessage).toMatch(/^internal error err_[\da-f]{12}; the log of the coordinator has its cause$/);
  const lines = server.logged.filter(({ msg }) => msg === "handler failed");
  expect(lines).toHaveLength(1);
  expect(rawMessage).toContain(String(lines[0]!["error_id"]));
  return lines[0]!;
}

describe.each(PROTOCOL_NAMES)("over %s", (protocol) => {
  const client = (server: TestServer) => createClient(RunService, PROTOCOLS[protocol](server.url));

  it("a handler that throws gives INTERNAL with an id; the cause is only in the log", async () => {
    const server = await startWith({
      getRun() {
        throw new Error("disk on fire", { cause: new Error("heat") });
      },
    });
    const error: unknown = await client(server)
      .getRun({ runId })
      .catch((reason: unknown) => reason);
    const line = failureLogged(server, error);
    expect(line["rpc"]).toBe("agentrunner.v1.RunService/GetRun");
    expect(JSON.stringify(line["err"])).toMatch(/disk on fire.*heat/);
  });

  it("a stream that throws keeps the messages before the error", async () => {
    const server = await startWith({
      async *watchRun() {
        yield { cursor: "1" };
        yield { cursor: "2" };
        throw new TypeError("no such thing");
      },
    });
    const { messages, error } = await drain(client(server).watchRun({ runId }));
    expect(messages).toBe(2);
    expect(JSON.stringify(failureLogged(server, error)["err"])).toContain("no such thing");
  });

  it("a ConnectError passes as it is and is not logged as a failure", async () => {
    const server = await startWith({
      getRun() {
        throw new ConnectError("no run run_1", Code.NotFound);
      },
      async *watchRun() {
        yield {};
        throw new ConnectError("gone", Code.OutOfRange);
      },
    });
    await expect(client(server).getRun({ runId })).rejects.toThrow("[not_found] no run run_1");
    const { error } = await drain(client(server).watchRun({ runId }));
    expect(ConnectError.from(error).code).toBe(Code.OutOfRange);
    expect(server.logged).toEqual([]);
  });

  it("an abort inside a handler whose deadline has passed is DEADLINE_EXCEEDED, not a failure", async () => {
    const server = await startWith({
      async getRun(_, { signal }) {
        await delay(60_000, undefined, { signal });
        return {};
      },
    });
    const call = client(server).getRun({ runId }, { timeoutMs: 50 });
    await expect(call).rejects.toMatchObject({ code: Code.DeadlineExceeded });
    expect(server.logged.filter(({ msg }) => msg === "handler failed")).toEqual([]);
  });

  it("a client that leaves ends the handler's stream, without an error in the log", async () => {
    let ended = false;
    const server = await startWith({
      async *watchRun(_, { signal }) {
        try {
          yield { cursor: "1" };
          await delay(60_000, undefined, { signal });
        } finally {
          ended = true;
        }
      },
    });
    const leave = new AbortController();
    for await (const { cursor } of client(server).watchRun({ runId }, { signal: leave.signal })) {
      expect(cursor).toBe("1");
      break;
    }
    leave.abort();
    await until(() => ended, "the handler ends");
    expect(server.logged.filter(({ level }) => level !== "debug")).toEqual([]);
  });

  it("finished calls leave no listener on the shutdown signal", async () => {
    const server = await startWith({
      getRun: () => ({}),
      async *watchRun() {
        yield {};
      },
    });
    for (let call = 0; call < 20; call += 1) {
      await client(server).getRun({ runId });
      await drain(client(server).watchRun({ runId }));
    }
    await until(() => getEventListeners(server.shutdownSignal, "abort").length === 0, "no listener is left");
  });
});

describe("the server", () => {
  it("runs given interceptors before it validates", async () => {
    const seen: string[] = [];
    const server = await startTestServer({
      routes: (router) => router.service(RunService, {}),
      interceptors: [
        (next) => async (request) => {
          seen.push(request.method.name);
          return next(request);
        },
      ],
    });
    const call = createClient(RunService, PROTOCOLS["gRPC over h2c"](server.url)).getRun({ runId: "" });
    await expect(call).rejects.toMatchObject({ code: Code.InvalidArgument });
    expect(seen).toEqual(["GetRun"]);
  });

  it("answers a page that throws with 500 and logs why", async () => {
    const server = await startTestServer({
      pages: {
        "/ready": () => {
          throw new Error("the store is gone");
        },
      },
    });
    const answer = await fetch(`${server.url}/ready`);
    expect([answer.status, await answer.text()]).toEqual([500, "internal error\n"]);
    expect(JSON.stringify(server.logged)).toContain("the store is gone");
  });

  it("answers a method nobody implements with UNIMPLEMENTED", async () => {
    const server = await startWith({});
    for (const protocol of PROTOCOL_NAMES) {
      const call = createClient(RunService, PROTOCOLS[protocol](server.url)).getRun({ runId });
      await expect(call).rejects.toMatchObject({ code: Code.Unimplemented });
    }
    await expect(healthClient(server.url).check({})).resolves.toBeDefined();
  });
});
