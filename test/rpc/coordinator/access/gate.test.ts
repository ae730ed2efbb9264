import { create, createFileRegistry } from "@bufbuild/protobuf";
import type { DescService } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, createClient } from "@connectrpc/connect";
import { afterEach, describe, expect, it } from "vitest";
import { callerOf } from "../../../../coordinator/access/caller.ts";
import { createGate } from "../../../../coordinator/access/gate.ts";
import type { GateDeps } from "../../../../coordinator/access/gate.ts";
import { POLICY } from "../../../../coordinator/access/policy.ts";
import type { Policy } from "../../../../coordinator/access/policy.ts";
import { RunTokens } from "../../../../coordinator/access/run-tokens.ts";
import { RunService } from "../../../../gen/agentrunner/v1/run_service_pb.ts";
import { RunnerService } from "../../../../gen/agentrunner/v1/runner_service_pb.ts";
import { PROTOCOLS, startTestServer, stopTestServers } from "../../../support/test-server.ts";

afterEach(stopTestServers);

const runTokens = new RunTokens("secret");

/** A store that knows one runner with any token, and counts how often it was asked for tokens. */
class OneRunner implements Pick<GateDeps["store"], "runnerOfToken" | "leaseOfToken"> {
  asked = 0;
  runnerOfToken: GateDeps["store"]["runnerOfToken"] = (runnerId) => {
    this.asked += 1;
    return Promise.resolve(runnerId === "lnch_1" ? { bootId: "b" } : "UNKNOWN");
  };
  leaseOfToken: GateDeps["store"]["leaseOfToken"] = () => {
    this.asked += 1;
    return Promise.resolve({ runId: "run_1", sessionId: "ses_1", live: true });
  };
}

function gateOf(policy: Policy, store: Partial<GateDeps["store"]> = new OneRunner()) {
  return createGate({ store: store as GateDeps["store"], runTokens, policy });
}

/** A service that no policy knows: `test.Extra` with the method Do. */
function extraService(): DescService {
  const string = { name: "name", number: 1, type: 9, label: 1 } as const;
  const file = {
    name: "extra.proto",
    package: "test",
    syntax: "proto3",
    messageType: [{ name: "Note", field: [string] }],
    service: [{ name: "Extra", method: [{ name: "Do", inputType: ".test.Note", outputType: ".test.Note" }] }],
  };
  const service = createFileRegistry(create(FileDescriptorSetSchema, { file: [file] })).getService("test.Extra");
  if (service === undefined) throw new Error("the registry lost its service");
  return service;
}

describe("a server", () => {
  it("does not start with a service that nobody said may be called, and names method and file", async () => {
    const start = startTestServer({
      gate: gateOf(POLICY),
      routes: (router) => router.service(RunService, {}).service(extraService(), {}),
    });
    await expect(start).rejects.toThrow(
      "who may call is not settled, see coordinator/access/policy.ts: /test.Extra/Do has no row",
    );
  });

  it("does not start with a method of a known service, or a page, that has no row", async () => {
    const { "/agentrunner.v1.RunService/StopRun": _, "/metrics": __, ...policy } = POLICY;
    const page = () => ({ status: 200, contentType: "text/plain", body: "" });
    const start = startTestServer({
      gate: gateOf(policy),
      routes: (router) => router.service(RunService, {}),
      pages: { "/metrics": page },
      protocols: { "/chat": () => Promise.resolve() },
    });
    await expect(start).rejects.toThrow(
      "/agentrunner.v1.RunService/StopRun has no row; /metrics has no row; /chat has no row",
    );
  });

  it("does not start with a row that names a field which the request does not have, nor with a page for some", async () => {
    const policy: Policy = {
      ...POLICY,
      "/agentrunner.v1.RunService/GetRun": { type: "runner", idField: "runnerId" },
      "/agentrunner.v1.RunService/CreateRun": {
        type: "person-or-run",
        reach: [{ type: "continued-session", idField: "sessionId", nameField: "mode" }],
      },
      "/ready": { type: "person", denied: "pages" },
    };
    const start = startTestServer({
      gate: gateOf(policy),
      routes: (router) => router.service(RunService, {}),
      pages: { "/ready": () => ({ status: 200, contentType: "text/plain", body: "" }) },
    });
    await expect(start).rejects.toThrow(
      "/agentrunner.v1.RunService/CreateRun: its request has no text mode; " +
        "/agentrunner.v1.RunService/GetRun: its request has no text runnerId; /ready: a page can only be for anyone",
    );
  });

  it("starts with health, reflection and all that the policy lists", async () => {
    const server = await startTestServer({ gate: gateOf(POLICY), routes: (router) => router.service(RunService, {}) });
    expect(server.port).toBeGreaterThan(0);
  });
});

describe("the gate", () => {
  it("refuses a method without a row, should one ever be mounted", async () => {
    const gate = { ...gateOf({}), check: () => undefined };
    const server = await startTestServer({ gate, routes: (router) => router.service(RunService, {}) });
    const call = createClient(RunService, PROTOCOLS["Connect over HTTP/2"](server.url)).getRun({ runId: "run_1" });
    await expect(call).rejects.toMatchObject({ code: Code.Internal });
    expect(JSON.stringify(server.logged)).toContain("bug[GATE1]: /agentrunner.v1.RunService/GetRun has no row");
  });

  it.each(["gRPC over h2c", "gRPC-web over HTTP/1.1", "Connect over HTTP/1.1", "Connect over HTTP/2"] as const)(
    "tells handlers who calls, after one look-up, also where the answer is a stream: %s",
    async (protocol) => {
      const store = new OneRunner();
      const seen: unknown[] = [];
      const server = await startTestServer({
        gate: gateOf(POLICY, store),
        routes: (router) =>
          router
            .service(RunnerService, {
              register: (_, context) => (seen.push(callerOf(context)), {}),
              heartbeat: (_, context) => (seen.push(callerOf(context)), {}),
              async *watchRuns({ runnerId }, context) {
                seen.push([runnerId, callerOf(context)]);
                yield {};
              },
            })
            .service(RunService, { listRuns: (_, context) => (seen.push(callerOf(context)), {}) }),
      });
      const runners = createClient(RunnerService, PROTOCOLS[protocol](server.url));
      const runs = createClient(RunService, PROTOCOLS[protocol](server.url));
      const who = { runnerId: "lnch_1", bootId: "b" };
      await runners.register({ hostname: "h", projectDir: "/p", executorProfile: "x", bootId: "b" });
      await runs.listRuns({});
      expect(store.asked).toBe(0);
      await runners.heartbeat(who);
      expect(store.asked).toBe(1);
      let messages = 0;
      for await (const _ of runners.watchRuns(who)) messages += 1;
      expect([store.asked, messages]).toEqual([2, 1]);
      await runs.listRuns({}, { headers: { authorization: `Bearer ${runTokens.issue("lease_1")}` } });
      expect(store.asked).toBe(3);
      const runner = { type: "runner", runnerId: "lnch_1", bootId: "b" };
      expect(seen).toEqual([
        { type: "anonymous" },
        { type: "person" },
        runner,
        ["lnch_1", runner],
        { type: "run", runId: "run_1", sessionId: "ses_1" },
      ]);
    },
  );

  it("judges a request by the rules of its message before it asks who sends it", async () => {
    const store = new OneRunner();
    const server = await startTestServer({
      gate: gateOf(POLICY, store),
      routes: (router) => router.service(RunnerService, {}),
    });
    const runners = createClient(RunnerService, PROTOCOLS["Connect over HTTP/2"](server.url));
    await expect(runners.heartbeat({})).rejects.toMatchObject({ code: Code.InvalidArgument });
    const stream = runners.watchRuns({})[Symbol.asyncIterator]();
    await expect(stream.next()).rejects.toMatchObject({ code: Code.InvalidArgument });
    expect(store.asked).toBe(0);
    const unknown = runners.watchRuns({ runnerId: "lnch_2", bootId: "b" })[Symbol.asyncIterator]();
    await expect(unknown.next()).rejects.toMatchObject({ code: Code.NotFound });
  });
});
