import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, expect, it } from "vitest";
import { startTestCoordinator, stopTestCoordinators } from "../../support/coordinator.ts";
import { RawRunner } from "../../support/raw-runner.ts";
import { atEnd, cleanUp, tempDir } from "../../support/test-runner.ts";
import { inRepository } from "../../support/paths.ts";
import { until } from "../../support/until.ts";

afterEach(cleanUp);
afterEach(stopTestCoordinators);

it("a run that eleven runners cannot start for trouble of their own waits, says why, and goes to one that can", async () => {
  const c = await startTestCoordinator();
  const { runId } = await c.create();
  const trouble = { runnerTrouble: true, message: "the runner rests: spawn EMFILE" };
  for (let n = 1; n <= 11; n += 1) {
    const sick = await RawRunner.online(c, { maxConcurrentRuns: 1 });
    const offer = await sick.offer();
    // Nothing is offered to it again while another one is awaited.
    await sick.heartbeat({ draining: true });
    await sick.ok(offer, "REFUSE", trouble);
  }
  const sick = await RawRunner.online(c, { maxConcurrentRuns: 1 });
  const claimed = await sick.take("CLAIMED");
  await sick.heartbeat({ draining: true });
  await sick.ok(claimed, "NOT_STARTED", { ...trouble, message: "spawn EAGAIN" });
  const { pendingReasons } = await c.reached(runId, "PENDING");
  const reasons = pendingReasons.filter((reason) => reason.startsWith("refused by"));
  expect(reasons).toHaveLength(10);
  expect(reasons.at(-1)).toBe(`refused by ${sick.runnerId}: spawn EAGAIN (the runner's own trouble, not counted)`);
  const well = await RawRunner.online(c);
  await well.ok(await well.take(), "COMPLETED");
  expect(await c.reached(runId, "COMPLETED")).toMatchObject({ attempt: 2 });
});

it("a fleet of one runner with few file descriptors fails no run: it takes as many as it can start", async () => {
  const c = await startTestCoordinator({ heartbeatMs: 200 });
  const dir = tempDir();
  const executor = join(dir, "ao-slow-exec");
  const go = join(dir, "go");
  writeFileSync(executor, `#!/bin/sh\ncat >/dev/null\nwhile [ ! -e ${go} ]; do sleep 0.1; done\n`, { mode: 0o755 });
  const flags = ["-c", c.url, "-e", executor, "--state-dir", join(dir, "state"), "--max-runs", "60"];
  const command = [process.execPath, inRepository("runner/main.ts"), ...flags].map((word) => `'${word}'`).join(" ");
  const child = spawn("sh", ["-c", `ulimit -n 64; exec ${command}`], {
    cwd: dir,
    env: { PATH: process.env["PATH"], HOME: dir },
    stdio: ["ignore", "ignore", "pipe"],
  });
  let log = "";
  child.stderr.on("data", (chunk) => (log += chunk));
  atEnd(async () => {
    const exited = once(child, "exit");
    if (child.kill("SIGKILL")) await exited;
  });
  const runs = await Promise.all(Array.from({ length: 30 }, () => c.create()));
  await until(() => log.includes("nothing can be started on this machine"), "a shortage");
  writeFileSync(go, "");
  for (const { runId } of runs) await c.reached(runId, "COMPLETED");
  expect(child.exitCode).toBeNull();
});
