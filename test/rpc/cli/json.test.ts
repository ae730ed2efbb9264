import { Code, ConnectError } from "@connectrpc/connect";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { RunState } from "../../../gen/agentrunner/v1/run_pb.ts";
import { errorInfo } from "../../../lib/rpc/error-info.ts";
import { ao } from "../../support/ao.ts";
import { FakeCoordinator } from "../../support/fake-run-service.ts";
import { startTestCoordinator, stopTestCoordinators } from "../../support/coordinator.ts";

let fake: FakeCoordinator;
beforeEach(async () => {
  fake = await new FakeCoordinator().start();
});
afterEach(async () => {
  await fake.stop();
  await stopTestCoordinators();
});

interface ErrorDocument {
  readonly error: Readonly<Record<string, unknown>>;
}

describe("-o json", () => {
  it("gives lists their field when they are empty", async () => {
    const { url } = await startTestCoordinator();
    const documents = await Promise.all(
      ["runs", "runners", "sessions", "blueprints"].map(
        async (noun) => JSON.parse((await ao(["-c", url, noun, "-o", "json"])).stdout) as unknown,
      ),
    );
    expect(documents).toEqual([{ runs: [] }, { runners: [] }, { sessions: [] }, { blueprints: [], broken: [] }]);
    const pruned = await ao(["-c", url, "runs", "prune", "--older-than", "1d", "-o", "json"]);
    expect(JSON.parse(pruned.stdout)).toMatchObject({ runs: "0" });
  });

  it("gives a message its fields when they are empty, but for what lists leave out", async () => {
    fake.addRun({ state: RunState.COMPLETED });
    const run = JSON.parse((await ao(["-c", fake.url, "runs", "get", "run_1", "-o", "json"])).stdout) as object;
    expect(run).toMatchObject({ message: "", pending_reasons: [], attempts: [], prompt: "" });
    const { runs } = JSON.parse((await ao(["-c", fake.url, "runs", "-o", "json"])).stdout) as { runs: object[] };
    expect(runs[0]).toMatchObject({ message: "", runner_id: "" });
    expect(runs[0]).not.toHaveProperty("pending_reasons");
  });

  it.each([
    ["json", ["runs", "get", "run_none", "-o", "json"], { code: "not_found", exit_code: 7 }],
    ["jsonl", ["-o", "jsonl", "runs", "get", "run_none"], { code: "not_found", exit_code: 7 }],
    ["json in one argument", ["--output=json", "runs", "get", "x"], { code: "not_found", exit_code: 7 }],
    ["an option that is none", ["runs", "-ojson", "--nix"], { code: "invalid_argument", exit_code: 2 }],
    [
      "a command that is missing",
      ["-o", "json"],
      { code: "invalid_argument", message: "no command is given", exit_code: 2 },
    ],
    ["a prompt that is missing", ["start", "-o", "json"], { code: "invalid_argument", exit_code: 2 }],
  ])("writes an error to stderr as JSON, alone: %s", async (_what, args, wanted) => {
    const { exitCode, stdout, stderr } = await ao(["-c", fake.url, ...args]);
    const { error } = JSON.parse(stderr) as ErrorDocument;
    expect(stdout).toBe("");
    expect(error).toMatchObject(wanted);
    expect(exitCode).toBe(wanted.exit_code);
    expect(Object.keys(error)).toEqual(["code", "message", "reason", "hint", "exit_code"]);
  });

  it("passes the coordinator's reason on, and says what cannot be reached", async () => {
    fake.failures.push(
      new ConnectError("the disk is full", Code.ResourceExhausted, undefined, [errorInfo("STORE_FULL")]),
    );
    const full = await ao(["-c", fake.url, "runs", "-o", "json"]);
    expect((JSON.parse(full.stderr) as ErrorDocument).error).toMatchObject({
      code: "resource_exhausted",
      reason: "STORE_FULL",
      hint: expect.stringContaining("ao doctor") as string,
    });
    const gone = await ao(["-c", "http://127.0.0.1:1", "runs", "-o", "json"]);
    expect((JSON.parse(gone.stderr) as ErrorDocument).error).toMatchObject({ code: "unavailable", exit_code: 3 });
  });
});
