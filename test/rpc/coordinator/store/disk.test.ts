import { execFileSync } from "node:child_process";
import { mkdtempSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Code, ConnectError } from "@connectrpc/connect";
import { afterEach, describe, expect, it } from "vitest";
import { reasonOf } from "../../../../lib/rpc/error-info.ts";
import { startTestCoordinator, stopTestCoordinators } from "../../../support/coordinator.ts";
import { output, RawRunner } from "../../../support/raw-runner.ts";
import { until } from "../../../support/until.ts";

const mounts: string[] = [];

function unmount(): void {
  for (const mount of mounts.splice(0)) {
    execFileSync("umount", [mount]);
    rmdirSync(mount);
  }
}

afterEach(async () => {
  await stopTestCoordinators();
  unmount();
});

/** A file system of 2 MiB of its own; undefined where this user may not mount. */
function smallDisk(): string | undefined {
  const mount = mkdtempSync(join(tmpdir(), "ao-disk-"));
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=2m", "tmpfs", mount], { stdio: "ignore" });
  } catch {
    rmdirSync(mount);
    return undefined;
  }
  mounts.push(mount);
  return mount;
}

const mayMount = smallDisk() !== undefined;
unmount();
if (!mayMount) process.stderr.write("skipped: a full disk needs the right to mount a tmpfs\n");

describe.skipIf(!mayMount)("on a disk that is full", () => {
  /** A coordinator whose disk has no room left, and what to remove to have some. */
  async function full() {
    const mount = smallDisk() as string;
    const c = await startTestCoordinator({ memory: false, store: join(mount, "coordinator.db"), leaseTtlMs: 2_000 });
    const runner = await RawRunner.online(c);
    const { runId } = await c.create({ lostAfter: { seconds: 600n } });
    const offer = await runner.take();
    const ballast = join(mount, "ballast");
    expect(() => writeFileSync(ballast, Buffer.alloc(4 * 1024 * 1024))).toThrow(/ENOSPC/);
    const free = (): void => rmSync(ballast);
    return { c, runner, runId, offer, free };
  }

  it("a run is refused with UNAVAILABLE and STORE_FULL, reads go on, and it works again as soon as there is room", async () => {
    const { c, runner, runId, offer, free } = await full();
    const prompt = "x".repeat(64 * 1024);
    const acknowledged: string[] = [];
    await expect(
      (async () => {
        for (;;) acknowledged.push((await c.create({ prompt })).runId);
      })(),
    ).rejects.toSatisfy(
      (error) => ConnectError.from(error).code === Code.Unavailable && reasonOf(error) === "STORE_FULL",
    );
    await expect(c.create({ prompt })).rejects.toThrow(/Free disk space and repeat; nothing was changed/);
    const append = runner.append(
      offer,
      1,
      Array.from({ length: 40 }, () => output(prompt)),
    );
    await expect(append).rejects.toSatisfy((error) => reasonOf(error) === "STORE_FULL");
    expect((await c.run(runId)).state).toBe(4);
    const { runs } = await c.runs.listRuns({ pageSize: 1000 });
    expect(runs.map((run) => run.runId).toReversed()).toEqual([runId, ...acknowledged]);
    expect(await c.metric("agent_store_failures_total")).toBeGreaterThanOrEqual(3);
    const lines = c.logged.filter(({ msg }) => String(msg).includes("the disk of the store is full"));
    expect(lines, "said once, however many calls were refused").toHaveLength(1);
    expect((await c.page("/health")).status).toBe(200);
    free();
    await until(async () => (await c.page("/ready")).status === 200, "ready again");
    expect((await c.create({ prompt: "after" })).prompt).toBe("after");
    await runner.ok(offer, "COMPLETED");
    expect(await c.state(runId)).toBe("COMPLETED");
  });

  it("/ready says 503 and why", async () => {
    const { c, free } = await full();
    const ready = await until(async () => {
      await c.create({ prompt: "y".repeat(3000) }).catch(() => undefined);
      const page = await c.page("/ready");
      return page.status === 503 && page;
    }, "not ready");
    expect(ready.text).toMatch(/not ready: the store could not be written/);
    free();
    expect((await c.page("/ready")).status).toBe(200);
  });
});
