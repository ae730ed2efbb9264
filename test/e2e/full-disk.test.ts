import { execFileSync } from "node:child_process";
import { appendFileSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { afterEach, expect, it } from "vitest";
import { until } from "../support/until.ts";
import { Home, call, curl, executor, runUntil, skipAloud } from "./programs.ts";

const home = new Home();
const disk = home.path("disk");
let mounted = false;

afterEach(async () => {
  if (mounted) execFileSync("umount", ["--lazy", disk]);
  await home.close();
});

/** Mounts a file system of 4 MiB; returns why it cannot. */
function mountSmallDisk(): string | undefined {
  if (process.platform !== "linux") return "only Linux has tmpfs";
  mkdirSync(disk);
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], { stdio: "pipe" });
  } catch (error) {
    return `no small disk can be mounted: ${String(error)}`;
  }
  mounted = true;
  return undefined;
}

/** Writes until nothing more fits. */
function fill(path: string): void {
  writeFileSync(path, "");
  for (const size of [65_536, 4_096, 512]) {
    try {
      for (;;) appendFileSync(path, Buffer.alloc(size));
    } catch (error) {
      expect(error).toMatchObject({ code: "ENOSPC" });
    }
  }
}

// Seven starts of Node one after the other, three of them by `ao doctor`.
const TIMEOUT = { timeout: 60_000 };

it(
  "a full disk refuses new runs, loses none, and is over as soon as there is room, without a restart",
  TIMEOUT,
  async ({ skip }) => {
    const trouble = mountSmallDisk();
    if (trouble !== undefined) skipAloud(skip, trouble);
    const flags = ["--store", `${disk}/store.db`, "--lease-ttl", "5m"];
    const coordinator = await home.coordinator(flags);
    const { url } = coordinator;
    await home.runner(coordinator, ["--executor-path", executor("ticks"), "--max-runs", "1"]);
    const create = (prompt: string) => curl(url, "RunService/CreateRun", { prompt });
    const ready = async () => (await fetch(`${url}/ready`)).status;
    const acknowledged: string[] = [];
    const keep = ({ answer }: { answer: any }): string => {
      acknowledged.push(answer.run.run_id);
      return answer.run.run_id;
    };
    const underWay = keep(await create("works while the disk is full"));
    await runUntil(url, underWay, "RUNNING");
    for (let i = 0; i < 5; i += 1) keep(await create("waits"));

    const filler = `${disk}/filler`;
    fill(filler);
    // Pages that the store has set aside may still take some.
    let refused = await create("x".repeat(100_000));
    for (; refused.status === 200; refused = await create("x".repeat(100_000))) keep(refused);
    expect(refused).toMatchObject({
      status: 503,
      answer: {
        code: "unavailable",
        details: [{ type: "google.rpc.ErrorInfo", debug: { reason: "STORE_FULL", domain: "agentrunner" } }],
        message: expect.stringMatching(
          /could not be written: .*full.*\. Free disk space and repeat; nothing was changed/,
        ),
      },
    });
    const page = await fetch(`${url}/ready`);
    expect([page.status, await page.text()]).toEqual([503, expect.stringMatching(/^not ready: .*full/)]);
    const ao = await home.run("ao", ["-c", url, "start", "--prompt", "x".repeat(100_000)]);
    expect(ao).toMatchObject({
      code: 4,
      stdout: "",
      stderr: expect.stringMatching(/full.*\nhint: `ao doctor` checks/),
    });
    const doctor = await home.run("ao", ["-c", url, "doctor"]);
    expect(doctor).toMatchObject({
      code: 1,
      stdout: expect.stringMatching(/^FAIL +store +\/ready answers 503.*full/m),
    });
    const known = async (): Promise<string[]> => {
      const { runs } = await call(url, "RunService/ListRuns", { page_size: 1000 });
      return runs.map(({ run_id }: { run_id: string }) => run_id).toReversed();
    };
    expect(await known(), "reads work").toEqual(acknowledged);

    // The executor ends while its end cannot be stored.
    writeFileSync(home.path("project/enough"), "");
    await until(() => coordinator.stderr().includes("the disk of the store is full"), "the log says so");
    rmSync(filler);
    await until(async () => (await ready()) === 200, "ready again");
    const done = await runUntil(url, underWay, "COMPLETED");
    expect(done.attempts).toMatchObject([{ attempt: 1, outcome: "RUN_STATE_COMPLETED" }]);
    keep(await create("after"));
    for (const runId of acknowledged) await runUntil(url, runId, "COMPLETED");

    await coordinator.end("SIGKILL");
    fill(filler);
    const refusedStart = await home.run("agent-coordinator", [...flags, "--listen", "127.0.0.1:0"]);
    expect(refusedStart).toMatchObject({
      code: 4,
      stderr: expect.stringMatching(/the disk of store .* is full\..*free space/),
    });
    rmSync(filler);
    await home.coordinator(flags, coordinator.port);
    expect(await known(), "what was acknowledged is there after a kill, and nothing else").toEqual(acknowledged);
  },
);
