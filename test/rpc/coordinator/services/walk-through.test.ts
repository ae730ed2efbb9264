import { credentials, loadPackageDefinition, Metadata, status } from "@grpc/grpc-js";
import type { ClientReadableStream, GrpcObject, ServiceClientConstructor, ServiceError } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { afterEach, describe, expect, it } from "vitest";
import { startTestCoordinator, stopTestCoordinators } from "../../../support/coordinator.ts";
import { inRepository } from "../../../support/paths.ts";

/**
 * A client that shares no code with ours: grpc-js, on the .proto files as they are. What it is answered has the field
 * names of the .proto files.
 */
type Answer = Record<string, any>;
const closing: (() => void)[] = [];

afterEach(async () => {
  for (const close of closing.splice(0)) close();
  await stopTestCoordinators();
});

function folder(name: string): string {
  return inRepository(name);
}

const SERVICES = ["runner_service", "run_service", "session_service", "fleet_service"];
const definition = loadSync(
  SERVICES.map((name) => `agentrunner/v1/${name}.proto`),
  {
    includeDirs: [folder("proto"), folder("vendor")],
    keepCase: true,
    longs: String,
    enums: String,
    oneofs: true,
    defaults: true,
  },
);
const { v1 } = loadPackageDefinition(definition)["agentrunner"] as GrpcObject;

function service(port: number, name: string) {
  const Service = (v1 as GrpcObject)[name] as ServiceClientConstructor;
  const client = new Service(`127.0.0.1:${port}`, credentials.createInsecure());
  closing.push(() => client.close());
  const method = (rpc: string): CallableFunction => (client[rpc] as CallableFunction).bind(client);
  return {
    call: (rpc: string, request: object, metadata = new Metadata()) =>
      new Promise<Answer>((resolve, reject) => {
        method(rpc)(request, metadata, (error: ServiceError | null, answer: Answer) =>
          error === null ? resolve(answer) : reject(error),
        );
      }),
    stream: (rpc: string, request: object, metadata = new Metadata()): ClientReadableStream<Answer> =>
      method(rpc)(request, metadata),
  };
}

async function nextOf(stream: AsyncIterator<Answer>): Promise<Answer> {
  const { value, done } = await stream.next();
  if (done === true) throw new Error("the stream has ended");
  return value;
}

describe("a gRPC client that knows only the .proto files", () => {
  it("registers, sees the offer, accepts, starts and completes a run, and sees it end", async () => {
    const { running } = await startTestCoordinator();
    const runners = service(running.port, "RunnerService");
    const runs = service(running.port, "RunService");
    const registered = await runners.call("Register", {
      hostname: "walker",
      project_dir: "/srv/project",
      executor_profile: "by-hand",
      boot_id: "boot_by_hand",
    });
    const { runner_id, runner_token } = registered;
    expect(runner_id).toMatch(/^lnch_/);
    const token = new Metadata();
    token.set("authorization", `Bearer ${runner_token}`);
    const stream = runners.stream("WatchRuns", { runner_id, boot_id: "boot_by_hand" }, token);
    closing.push(() => stream.cancel());
    stream.on("error", () => undefined);
    const messages = stream[Symbol.asyncIterator]() as AsyncIterator<Answer>;
    expect((await nextOf(messages))["event"]).toBe("opened");

    const { run } = await runs.call("CreateRun", { prompt: "Héllo, wörld", parameters: { fields: {} } });
    const watch = runs.stream("WatchRun", { run_id: run.run_id });
    closing.push(() => watch.cancel());
    watch.on("error", () => undefined);
    const { offer } = await nextOf(messages);
    expect(offer).toMatchObject({ run_id: run.run_id, attempt: 1 });
    expect(offer.invocation).toMatchObject({ schema_version: "2.0", mode: "start", prompt: "Héllo, wörld" });

    const report = async (seq: number, kind: string, more: object = {}): Promise<Answer> => {
      const { run_id, lease_id } = offer;
      const reports = [{ run_id, lease_id, seq, kind, ...more }];
      return (await runners.call("ReportStatus", { runner_id, reports }, token))["verdicts"][0];
    };
    expect(await report(1, "KIND_ACCEPT")).toMatchObject({ kind: "KIND_OK", run_state: "RUN_STATE_CLAIMED" });
    expect(await report(2, "KIND_STARTED", { pid: 42 })).toMatchObject({ run_state: "RUN_STATE_RUNNING" });
    const held = [{ run_id: offer.run_id, lease_id: offer.lease_id, phase: "PHASE_RUNNING" }];
    const beat = await runners.call("Heartbeat", { runner_id, boot_id: "boot_by_hand", held }, token);
    expect(beat).toMatchObject({ verdicts: [{ kind: "KIND_RENEWED" }], stream_missing: false });
    const events = [{ message: { role: "assistant", text: "hi" } }];
    const batches = [{ run_id: offer.run_id, lease_id: offer.lease_id, first_seq: 1, events }];
    const appended = await runners.call("AppendEvents", { runner_id, batches }, token);
    expect(appended["verdicts"]).toMatchObject([{ kind: "KIND_OK", committed_seq: "1" }]);
    const completed = { exit: { code: 0 }, result: { text: "done" } };
    expect(await report(3, "KIND_COMPLETED", completed)).toMatchObject({ run_state: "RUN_STATE_COMPLETED" });

    const seen: string[] = [];
    for await (const { update, run: seenRun, event } of watch as AsyncIterable<Answer>) {
      if (update === "run") seen.push(`run ${seenRun.state}`);
      else if (event.event === "transition") seen.push(event.transition.state);
      else seen.push(event.executor.event);
    }
    expect(seen.shift()).toMatch(/^run RUN_STATE_(PENDING|OFFERED)$/);
    expect(seen).toEqual([
      "RUN_STATE_PENDING",
      "RUN_STATE_CLAIMED",
      "RUN_STATE_RUNNING",
      "message",
      "RUN_STATE_COMPLETED",
      "run RUN_STATE_COMPLETED",
    ]);
    const got = await runs.call("GetRun", { run_id: run.run_id });
    expect(got["run"]).toMatchObject({ result: { text: "done" }, exit: { code: 0 }, attempts: [{ pid: 42 }] });
  });

  it("reads sessions and the fleet", async () => {
    const { running } = await startTestCoordinator();
    const { run } = await service(running.port, "RunService").call("CreateRun", { prompt: "x", session_name: "talk" });
    const sessions = service(running.port, "SessionService");
    const { session } = await sessions.call("GetSession", { session_name: "talk" });
    expect(session).toMatchObject({ session_id: run.session_id, status: "SESSION_STATUS_PENDING" });
    expect(await service(running.port, "FleetService").call("ListRunners", {})).toMatchObject({ runners: [] });
  });

  it("gets a status with words for what it does wrong", async () => {
    const { running } = await startTestCoordinator();
    const runs = service(running.port, "RunService");
    const refused = (call: Promise<Answer>) =>
      call.then(
        () => expect.unreachable(),
        ({ code, details }: ServiceError) => ({ code, details }),
      );
    expect(await refused(runs.call("GetRun", { run_id: "run_none" }))).toEqual({
      code: status.NOT_FOUND,
      details: "no run run_none",
    });
    expect((await refused(runs.call("CreateRun", {}))).code).toBe(status.INVALID_ARGUMENT);
    const deaf = service(running.port, "RunnerService").call("Heartbeat", { runner_id: "lnch_none", boot_id: "b" });
    expect((await refused(deaf)).code).toBe(status.NOT_FOUND);
    const unknown = service(running.port, "SessionService").call("DeleteSession", { session_id: "ses_x" });
    expect((await refused(unknown)).code).toBe(status.NOT_FOUND);
  });
});
