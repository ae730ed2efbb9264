import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { SIGNAL_WINDOW_MS } from "../../../lib/signals.ts";
import { processesMarked } from "../../../runner/execution/processes.ts";
import { ao, startAo } from "../../support/ao.ts";
import { FakeCoordinator } from "../../support/fake-run-service.ts";
import { until } from "../../support/until.ts";
import { inRepository } from "../../support/paths.ts";

const MAIN = inRepository("cli/main.ts");

let dir: string;
const started: ChildProcess[] = [];

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "ao-dev-"));
});
afterEach(async () => {
  for (const child of started.splice(0)) {
    for (const pid of [...descendants(child.pid!), child.pid!]) endNow(pid);
  }
  await rm(dir, { recursive: true, force: true });
});

/** Starts a program in a process group of its own, as a shell does, so that a signal to the group is a Ctrl+C. */
function start(args: string[], more: NodeJS.ProcessEnv = {}) {
  const env = { PATH: process.env["PATH"], HOME: dir, TMPDIR: dir, ...more };
  const child = spawn(process.execPath, args, { cwd: dir, env, detached: true, stdio: ["ignore", "pipe", "pipe"] });
  started.push(child);
  let text = "";
  child.stdout.on("data", (chunk) => (text += String(chunk)));
  child.stderr.on("data", (chunk) => (text += String(chunk)));
  const exit = once(child, "close").then(([code]) => code as number | null);
  return { child, exit, text: () => text };
}

/** `ao dev` on a free port, once its banner is there. */
async function startDev(...args: string[]) {
  const dev = start([MAIN, "dev", "--listen", "127.0.0.1:0", ...args]);
  const url = await until(() => {
    if (dev.child.exitCode !== null) throw new Error(`ao dev ended:\n${dev.text()}`);
    return /coordinator +(http:\S+)[^]*stop +Ctrl/.exec(dev.text())?.[1];
  }, "the banner is shown");
  const [coordinator, runner] = ["coordinator", "runner"].map((program) =>
    descendants(dev.child.pid!).find((pid) => commandOf(pid).includes(`${program}/main.ts`)),
  );
  return { ...dev, url, coordinator: coordinator!, runner: runner! };
}

/** Every process below one, by /proc. */
function descendants(pid: number): number[] {
  const path = `/proc/${pid}/task/${pid}/children`;
  const children = existsSync(path) ? readFileSync(path, "utf8").trim().split(" ").filter(Boolean).map(Number) : [];
  return children.flatMap((child) => [child, ...descendants(child)]);
}

function commandOf(pid: number): string {
  return existsSync(`/proc/${pid}/cmdline`) ? readFileSync(`/proc/${pid}/cmdline`, "utf8") : "";
}

function isAlive(pid: number): boolean {
  return commandOf(pid) !== "";
}

function endNow(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has ended.
  }
}

describe("ao dev", () => {
  it("runs an executor of one's own from another folder, and leaves what is in it to the runner", async () => {
    const folder = join(dir, "mine/my-agent");
    await mkdir(folder, { recursive: true });
    await writeFile(join(folder, "ao-my-agent-exec"), "#!/bin/sh\ncat > /dev/null\necho mine\n", { mode: 0o755 });
    const { text } = await startDev("--memory", "-x", "my-agent", "--executors-dir", "mine");
    expect(text()).toMatch(/runner +lnch_\w+ +my-agent/);
    const unknown = start([
      MAIN,
      "dev",
      "--listen",
      "127.0.0.1:0",
      "--memory",
      "-x",
      "nobody",
      "--executors-dir",
      "mine",
    ]);
    expect(await unknown.exit).toBe(2);
    expect(unknown.text()).toMatch(/no executor is named "nobody"; found: .*my-agent/);
  });

  it("refuses a port in use before it starts anything, and names a way out: exit 4", async () => {
    const busy = createServer().listen(0, "127.0.0.1");
    await once(busy, "listening");
    const { port } = busy.address() as AddressInfo;
    const { exitCode, stderr } = await ao(["dev", "--listen", `127.0.0.1:${port}`]);
    busy.close();
    expect({ exitCode, stderr }).toEqual({
      exitCode: 4,
      stderr: `error: port ${port} is in use\nhint: take a free port: \`ao dev --listen 127.0.0.1:0\`\n`,
    });
  });

  it("says so when what has the port is a coordinator", async () => {
    const fake = await new FakeCoordinator().start();
    const { exitCode, stderr } = await ao(["dev", "--listen", new URL(fake.url).host]);
    await fake.stop();
    expect(exitCode).toBe(4);
    expect(stderr).toContain(`in use by a coordinator\nhint: use that one (\`ao -c ${fake.url} runners\`)`);
  });

  it.each([
    ["an unknown executor", ["-x", "none"], 'no executor is named "none"'],
    ["an executor twice", ["-x", "test-executor", "-x", "test-executor"], "given twice"],
    ["--memory with --store", ["--memory", "--store", "x"], "exclude each other"],
    ["an address that is none", ["--listen", "here"], "HOST:PORT"],
    ["an address of another machine", ["--listen", "192.0.2.1:9"], "cannot listen on 192.0.2.1:9"],
  ])("takes %s as a usage error: exit 2", async (_what, args, words) => {
    const { exitCode, stderr } = await ao(["dev", ...args]);
    expect({ exitCode, stderr }).toEqual({ exitCode: 2, stderr: expect.stringContaining(words) });
  });
});

describe.skipIf(process.platform !== "linux")("ao dev, which reads /proc to find its children", () => {
  it("finishes what runs at one Ctrl+C, and leaves no process behind", async () => {
    const dev = await startDev("--store", join(dir, "store.db"));
    expect(dev.text()).toContain(`store        ${join(dir, "store.db")}`);
    const following = startAo(["-c", dev.url, "start", "--prompt", "print up; sleep 1s; result done", "--follow"]);
    await until(() => /^up$/m.test(following.stdout()), "the executor runs");
    process.kill(-dev.child.pid!, "SIGINT");
    expect({ code: await following.exit, stderr: following.stderr() }).toMatchObject({ code: 0 });
    expect(following.stdout()).toMatch(/\nup\ndone\n$/);
    expect(await dev.exit).toBe(0);
    expect([dev.coordinator, dev.runner].filter(isAlive)).toEqual([]);
  });

  it("hands TERM on, and stops what runs at a second one", async () => {
    const dev = await startDev("--memory");
    expect(dev.text()).toContain("in memory");
    const following = startAo(["-c", dev.url, "start", "--prompt", "print up; sleep 10m", "--follow"]);
    await until(() => /^up$/m.test(following.stdout()), "the executor runs");
    dev.child.kill("SIGTERM");
    await until(() => /drain/i.test(dev.text().split("stop         Ctrl+C")[1] ?? ""), "the runner drains");
    await delay(SIGNAL_WINDOW_MS);
    dev.child.kill("SIGTERM");
    await dev.exit;
    expect(await following.exit).not.toBe(0);
    expect([dev.coordinator, dev.runner].filter(isAlive)).toEqual([]);
  });

  it("finishes what runs when it is killed, and leaves no process behind", async () => {
    const dev = await startDev("--memory");
    const following = startAo(["-c", dev.url, "start", "--prompt", "print up; sleep 2s; result done", "--follow"]);
    await until(() => /^up$/m.test(following.stdout()), "the executor runs");
    process.kill(dev.child.pid!, "SIGKILL");
    expect(await following.exit).toBe(0);
    await until(() => ![dev.coordinator, dev.runner].some(isAlive), "both have ended");
  });

  it("ends with the npx that started it", async () => {
    const npx = join(dir, "npx");
    const code = 'require("child_process").spawn(process.execPath, process.argv.slice(2), { stdio: "inherit" })';
    await writeFile(npx, code);
    const run = start([npx, MAIN, "dev", "--listen", "127.0.0.1:0", "--memory"]);
    await until(() => /stop +Ctrl/.test(run.text()), "the banner is shown");
    const all = descendants(run.child.pid!);
    expect(all.length).toBeGreaterThan(2);
    run.child.kill("SIGKILL");
    await until(() => !all.some(isAlive), "all have ended");
  });

  it("does the same for a SIGINT that reaches it alone", async () => {
    const dev = await startDev("--memory");
    dev.child.kill("SIGINT");
    expect(await dev.exit).toBe(0);
    expect([dev.coordinator, dev.runner].filter(isAlive)).toEqual([]);
  });

  it("ends the runner when the coordinator dies, and ends as that did", async () => {
    const dev = await startDev("--memory");
    process.kill(dev.coordinator, "SIGKILL");
    expect(await dev.exit).not.toBe(0);
    expect(isAlive(dev.runner)).toBe(false);
  });

  it("ends the coordinator when the runner dies", async () => {
    const dev = await startDev("--memory");
    process.kill(dev.runner, "SIGKILL");
    expect(await dev.exit).toBe(137);
    expect(isAlive(dev.coordinator)).toBe(false);
  });
});

describe("npm run demo", () => {
  const left = async () => ({
    files: (await readdir(dir)).filter((name) => name.startsWith("agent-runner-demo-")),
    processes: processesMarked([`HOME=${dir}`]),
  });

  it("runs to its end with every outcome as expected, and leaves nothing behind", async () => {
    const demo = start([MAIN, "demo"]);
    const code = await demo.exit;
    expect({ code, text: demo.text() }).toMatchObject({ code: 0, text: expect.stringContaining("All as expected") });
    expect(await left()).toEqual({ files: [], processes: [] });
  });

  it("leaves nothing behind at Ctrl+C either, and says that it was ended: exit 1", async () => {
    const demo = start([MAIN, "demo"]);
    await until(() => demo.text().includes("Hello from a real process"), "the demo is under way");
    process.kill(-demo.child.pid!, "SIGINT");
    expect(await demo.exit).toBe(1);
    expect(demo.text()).toContain("demo failed: ended by SIGINT");
    expect(await left()).toEqual({ files: [], processes: [] });
  });
});
