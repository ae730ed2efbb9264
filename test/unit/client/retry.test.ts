import { Code, ConnectError, createRouterTransport } from "@connectrpc/connect";
import { describe, expect, it } from "vitest";
import { servicesOver, withToken } from "../../../client/connect.ts";
import type { Services } from "../../../client/connect.ts";
import { retry, withPatience } from "../../../client/retry.ts";
import { errorInfo } from "../../../lib/rpc/error-info.ts";
import { RunService } from "../../../gen/agentrunner/v1/run_service_pb.ts";

const gone = () => new ConnectError("restarting", Code.Unavailable);

function fake(routes: Parameters<typeof createRouterTransport>[0], patienceMs = 2_000): Services {
  return servicesOver(withPatience(withToken(createRouterTransport(routes), "rt_token"), patienceMs));
}

describe("retry", () => {
  it("repeats a call while the coordinator is away, and no longer than its patience", async () => {
    let calls = 0;
    const call = () => Promise.reject(++calls < 3 ? gone() : new ConnectError("no", Code.NotFound));
    await expect(retry(call, { patienceMs: 2_000 })).rejects.toMatchObject({ code: Code.NotFound });
    expect(calls).toBe(3);
    await expect(retry(() => Promise.reject(gone()), { patienceMs: 50 })).rejects.toMatchObject({
      code: Code.Unavailable,
    });
  });

  it("does not repeat what a full disk refused: a person has to make room", async () => {
    let calls = 0;
    const call = () => {
      calls += 1;
      return Promise.reject(new ConnectError("full", Code.Unavailable, undefined, [errorInfo("STORE_FULL")]));
    };
    await expect(retry(call, { patienceMs: 2_000 })).rejects.toThrow("full");
    expect(calls).toBe(1);
  });

  it("repeats what a killed coordinator's connection leaves behind", async () => {
    let calls = 0;
    const call = () =>
      ++calls < 2 ? Promise.reject(new ConnectError("reset", Code.Canceled)) : Promise.resolve("answer");
    expect(await retry(call, { patienceMs: 2_000 })).toBe("answer");
  });

  it("says how much patience is left, and does not repeat what took all of it", async () => {
    const left: number[] = [];
    const call = async (leftMs: number) => {
      left.push(leftMs);
      await new Promise((resolve) => setTimeout(resolve, leftMs + 5));
      throw new ConnectError("too late", Code.DeadlineExceeded);
    };
    await expect(retry(call, { patienceMs: 20 })).rejects.toThrow("too late");
    expect(left).toEqual([20]);
  });

  it("does not repeat what is no error of a call", async () => {
    let calls = 0;
    const call = () => Promise.reject(new TypeError(String(++calls)));
    await expect(retry(call, { patienceMs: 2_000 })).rejects.toThrow("1");
  });
});

describe("a call of a patient transport", () => {
  it("carries the token, and is repeated while no coordinator is there", async () => {
    const tokens: (string | null)[] = [];
    const services = fake((router) =>
      router.rpc(RunService.method.getRun, (_, { requestHeader }) => {
        tokens.push(requestHeader.get("authorization"));
        if (tokens.length < 3) throw gone();
        return { run: { runId: "run_1" } };
      }),
    );
    expect((await services.runs.getRun({ runId: "run_1" })).run?.runId).toBe("run_1");
    expect(tokens).toEqual(["Bearer rt_token", "Bearer rt_token", "Bearer rt_token"]);
  });

  it("is not repeated after an answer, nor for ever, nor for a caller that left", async () => {
    let calls = 0;
    const failing = (error: ConnectError) =>
      fake((router) => {
        router.rpc(RunService.method.getRun, () => {
          calls += 1;
          throw error;
        });
      }, 100).runs;
    await expect(failing(new ConnectError("no", Code.NotFound)).getRun({})).rejects.toThrow("no");
    expect(calls).toBe(1);
    await expect(failing(gone()).getRun({})).rejects.toThrow("restarting");
    const before = calls;
    await expect(failing(gone()).getRun({}, { signal: AbortSignal.abort() })).rejects.toThrow();
    expect(calls).toBeLessThanOrEqual(before + 1);
  });
});
