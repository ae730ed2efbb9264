import { connect } from "node:net";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { EXIT } from "../../lib/exit-codes.ts";
import { configure, findNginx } from "../support/nginx.ts";
import type { Way } from "../support/nginx.ts";
import { inRepository } from "../support/paths.ts";
import { until } from "../support/until.ts";
import { call, Home, runUntil } from "./programs.ts";
import type { RunningCoordinator } from "./programs.ts";

/*
 * Real programs with nginx between them, as a distribution ships it: 1 MB a body, buffers, 60 s. It is skipped where there is none.
 */

const nginx = findNginx();
if (nginx === undefined) process.stderr.write("skipped: nginx is not installed (apt-get install nginx-light)\n");

let home: Home;
beforeEach(() => (home = new Home()));
afterEach(() => home.close());

const CA = ["--tls-ca", inRepository("test/fixtures/tls/cert.pem")];
/** Leases and accepts outlast a machine that is busy with other work. */
const CALM = ["--lease-ttl", "30s", "--heartbeat", "1s", "--accept-deadline", "30s"];

/** The worker processes of an nginx. */
function workersOf(pid: number): string[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ");
}

async function accepts(port: number): Promise<boolean> {
  const socket = connect(port, "127.0.0.1");
  try {
    await once(socket, "connect");
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

/** nginx before a coordinator, and `ao` and runners that know only nginx. */
async function behind(way: Way, more = "") {
  const coordinator = await home.coordinator(CALM);
  const { args, url, port } = await configure({ dir: home.dir, way, coordinatorPort: coordinator.port, more });
  const proxy = home.start([nginx ?? "", ...args]);
  await until(() => accepts(port), "nginx listens");
  const ao = (...verb: string[]) => home.run("ao", ["-c", url, ...CA, ...verb]);
  const runner = () => home.runner({ url }, [...CA, "--executor", "test-executor", "--poll-timeout", "2s"]);
  return { coordinator, proxy, url, ao, runner };
}

const start = async ({ url }: RunningCoordinator, prompt: string): Promise<string> =>
  (await call(url, "RunService/CreateRun", { prompt, demands: { executor_profile: "test-executor" } })).run.run_id;

describe.skipIf(nginx === undefined).each(["grpc_pass", "proxy_pass"] as const)(
  "nginx with %s",
  { timeout: 180_000 },
  (way) => {
    it("passes large outputs and results whole", async () => {
      const { coordinator, ao, runner } = await behind(way);
      await runner();
      const [loud, large] = [
        await start(coordinator, "flood 3MB"),
        await start(coordinator, `result ${"r".repeat(200_000)}`),
      ];
      const { result } = await runUntil(coordinator.url, large, "COMPLETED");
      expect(result.text).toBe("r".repeat(200_000));
      const { attempts } = await runUntil(coordinator.url, loud, "COMPLETED");
      expect(attempts.map((one: any) => one.events_missing ?? "0")).toEqual(["0"]);
      const logs = await ao("runs", "logs", loud);
      expect([logs.code, logs.stdout.length >= 3_000_000]).toEqual([0, true]);
    });

    it("may be reloaded under a runner and a follower, with short timeouts and connections", async () => {
      const more = "keepalive_requests 10; proxy_read_timeout 5s; grpc_read_timeout 5s; keepalive_timeout 3s;";
      const { coordinator, proxy, url, ao, runner } = await behind(way, more);
      await runner();
      const runId = await start(coordinator, "print before; wait-for-file enough; print after; result done");
      const follower = home.open("ao", ["-c", url, ...CA, "runs", "logs", "-f", runId]);
      await follower.says(/before/);
      for (let i = 0; i < 2; i += 1) {
        const [old = ""] = workersOf(proxy.pid);
        process.kill(proxy.pid, "SIGHUP");
        // It cuts what is open a second after that.
        await until(() => !workersOf(proxy.pid).includes(old), "the old worker has ended");
        expect(await ao("runs", "ls")).toMatchObject({ code: 0 });
      }
      writeFileSync(home.path("project/enough"), "");
      await runUntil(coordinator.url, runId, "COMPLETED");
      const { code, stdout } = await follower.ended;
      expect([code, stdout]).toEqual([0, (await ao("runs", "logs", runId)).stdout]);
    });

    it("says no, and `ao` says who: too large a prompt, and a coordinator that is gone", async () => {
      const { coordinator, ao } = await behind(way);
      writeFileSync(home.path("prompt"), "p".repeat(1_400_000));
      const large = await ao("start", "--prompt-file", home.path("prompt"));
      expect(large).toMatchObject({ code: EXIT.refused, stderr: expect.stringContaining("HTTP 413") });
      expect(large.stderr).toContain("client_max_body_size");
      await coordinator.end("SIGTERM");
      const gone = await ao("runs", "ls");
      expect(gone).toMatchObject({ code: EXIT.unreachable, stderr: expect.stringContaining("HTTP 502 of a proxy") });
    });
  },
);

describe.skipIf(nginx === undefined)("nginx that keeps streams back", { timeout: 180_000 }, () => {
  it("gets no run for its runner, which is seen at the runner, the run and by doctor", async () => {
    const { coordinator, ao, runner } = await behind("buffering");
    const program = await runner();
    const runId = await start(coordinator, "result done");
    await program.says(/Not even its first message came/);
    const { run } = await call(coordinator.url, "RunService/GetRun", { run_id: runId });
    expect(run).toMatchObject({ state: "RUN_STATE_PENDING" });
    expect(run.attempts ?? []).toEqual([]);
    const reasons = until(async () => {
      const { stdout } = await ao("runs", "get", runId);
      return stdout.includes("has not said that its stream arrives") && stdout;
    }, "the reason");
    expect(await reasons).toContain(program.runnerId);
    expect((await ao("doctor")).stdout).toMatch(/FAIL +stream .*does not come/);
  });
});
