import { createHash } from "node:crypto";
import { once } from "node:events";
import { chmodSync, copyFileSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { openSqliteStore } from "../../coordinator/store/sqlite/sqlite-store.ts";
import { until } from "../support/until.ts";
import { Home, call, executor, runUntil } from "./programs.ts";

let home: Home;
beforeEach(() => (home = new Home()));
afterEach(() => home.close());

/** How a program ends that says why on stderr and prints no data. */
function refusal(code: number, words: string | RegExp) {
  return { code, stdout: "", stderr: typeof words === "string" ? words : expect.stringMatching(words) };
}

describe("an agent-runner that is started wrongly ends at once with exit code 2", () => {
  it("for a profile that is unknown, naming those that there are", async () => {
    const expected = 'error: no executor profile is named "nosuch"; found: none\n';
    expect(await home.run("agent-runner", ["--profile", "nosuch"])).toEqual(refusal(2, expected));
  });

  it("for an executor whose name is unknown, naming those that there are", async () => {
    const expected = /^error: no executor is named "nosuch"; found: .*test-executor.* --executors-dir DIR\n$/;
    expect(await home.run("agent-runner", ["-x", "nosuch"])).toEqual(refusal(2, expected));
  });

  it("for an executor path that does not exist, naming where it looked", async () => {
    const path = home.path("ao-none-exec");
    const expected = `error: executor ${path} does not exist; looked at ${path}\n`;
    expect(await home.run("agent-runner", ["-e", path])).toEqual(refusal(2, expected));
  });

  it("for an executor that is not executable, naming the command that makes it so", async () => {
    const path = home.path("ao-plain-exec");
    writeFileSync(path, "#!/bin/sh\n");
    const expected = `error: executor ${path} is not executable; run: chmod +x ${path}\n`;
    expect(await home.run("agent-runner", ["-e", path])).toEqual(refusal(2, expected));
  });

  it("for both -x and -e, naming both", async () => {
    const expected = /^error: --executor test-executor and --executor-path ao-x-exec exclude each other; give one/;
    expect(await home.run("agent-runner", ["-x", "test-executor", "-e", "ao-x-exec"])).toEqual(refusal(2, expected));
  });

  it("for a project_dir that is missing", async () => {
    const dir = home.path("nowhere");
    const expected = `error: --project-dir ${dir} does not exist\n`;
    expect(await home.run("agent-runner", ["-x", "test-executor", "-p", dir])).toEqual(refusal(2, expected));
  });
});

describe("a run that asks for what no runner has", () => {
  const following = (...args: string[]) => home.open("ao", ["start", "--prompt", "hi", "--follow", ...args]);

  it("waits with its reason while a runner could still come, and fails with that reason after the no-match time", async () => {
    const { url } = await home.coordinator(["--no-match-timeout", "1s"]);
    await home.runner({ url }, ["-x", "test-executor"]);
    const ao = following("-c", url, "--profile", "nosuch");
    await ao.says(/no runner matches: .*has executor profile test-executor, not nosuch/);
    const { code, stderr } = await ao.ended;
    expect({ code, stderr }).toEqual(refusalOf(1, /failed: no match.*has executor profile test-executor, not nosuch/));
  });

  it("says in `ao runs get` who refused it because its project_dir is missing there, and fails in seconds with that reason", async () => {
    const { url } = await home.coordinator();
    const { runnerId } = await home.runner({ url }, ["-x", "test-executor"]);
    const { run } = await call(url, "RunService/CreateRun", { prompt: "hi", project_dir: home.path("nowhere") });
    const reason = `refused by ${runnerId}: project_dir ${home.path("nowhere")} is not a directory on the runner's host`;
    await until(async () => {
      const found = await call(url, "RunService/GetRun", { run_id: run.run_id });
      return found.run.pending_reasons?.includes(reason);
    }, reason);
    await runUntil(url, run.run_id, "FAILED");
    const shown = await home.run("ao", ["-c", url, "runs", "get", run.run_id]);
    expect(shown.stdout).toContain(reason.replace("refused by ", ""));
  });

  it("fails, with the path, when the executor went away after the runner was started", async () => {
    const path = home.path("ao-goes-exec");
    copyFileSync(executor("remembers"), path);
    const { url } = await home.coordinator();
    await home.runner({ url }, ["-e", path]);
    chmodSync(path, 0o644);
    const { code, stderr } = await following("-c", url).ended;
    expect({ code, stderr }).toEqual(refusalOf(1, /failed: spawn.*ao-goes-exec is not executable; run: chmod \+x/));
  });

  function refusalOf(code: number, words: RegExp) {
    return { code, stderr: expect.stringMatching(words) };
  }
});

describe("a coordinator that cannot be reached", () => {
  const nobody = "http://127.0.0.1:1";
  const expected = /cannot reach coordinator at http:\/\/127\.0\.0\.1:1 \(ECONNREFUSED\).*\n?.*start one with `ao dev`/;

  it("ends ao with exit code 3 and what to do next", async () => {
    expect(await home.run("ao", ["-c", nobody, "runs", "ls"])).toEqual(refusal(3, expected));
  });

  it("ends agent-runner --once with exit code 3; without --once the runner says so and goes on trying", async () => {
    const flags = ["-x", "test-executor", "-c", nobody];
    expect(await home.run("agent-runner", ["--once", ...flags])).toEqual(refusal(3, expected));
    const runner = home.open("agent-runner", [...flags]);
    await runner.says(expected);
    // Two attempts and more, on its way to a coordinator that may still be started.
    await runner.says(/"failures":[2-9]/);
  });
});

describe("a coordinator that cannot have what it needs ends with exit code 4", () => {
  const start = (...flags: string[]) => home.run("agent-coordinator", ["--listen", "127.0.0.1:0", ...flags]);

  it("for a port in use, naming a way out", async () => {
    const busy = createServer().listen(0, "127.0.0.1");
    await once(busy, "listening");
    const { port } = busy.address() as AddressInfo;
    const ended = await home.run("agent-coordinator", ["--listen", `127.0.0.1:${port}`, "--memory"]);
    busy.close();
    const expected = new RegExp(
      `^error: cannot listen on 127.0.0.1:${port}: the port is in use .*--listen 127.0.0.1:0`,
    );
    expect(ended).toEqual(refusal(4, expected));
  });

  it("for a store that another coordinator has", async () => {
    await home.coordinator();
    const store = home.path("store.db");
    const expected = `error: store ${store} is in use by another process. End that one, or name another path.\n`;
    expect(await start("--store", store)).toEqual(refusal(4, expected));
  });

  it.each([
    ["is no database", (path: string) => writeFileSync(path, "these are the runs of last week\n".repeat(100))],
    ["was cut", (path: string) => truncateSync(path, 20_000)],
    ["was cut to nothing", (path: string) => truncateSync(path, 0)],
    ["was written over in its middle", (path: string) => scribble(path, 4_096 * 3)],
  ])("for a store that %s, naming the file and what to do, and leaves the file as it is", async (_what, damage) => {
    const store = home.path("store.db");
    await openSqliteStore({ path: store }).close();
    damage(store);
    const before = digest(store);
    const expected =
      /^error: store \/.*store\.db is damaged \([^]+\)\. It was left untouched: restore a copy, or move it away/;
    expect(await start("--store", store)).toEqual(refusal(4, expected));
    expect(digest(store)).toBe(before);
  });
});

function scribble(path: string, offset: number): void {
  const bytes = readFileSync(path);
  bytes.fill("scribble", offset, offset + 4_096);
  writeFileSync(path, bytes);
}

function digest(path: string): string {
  return createHash("sha256").update(readFileSync(path)).digest("hex");
}

describe("a second live runner of the same identity", () => {
  it("ends with exit code 4 and names --name; with a name of its own it runs beside the first", async () => {
    const coordinator = await home.coordinator();
    const flags = ["-x", "test-executor"];
    const { runnerId } = await home.runner(coordinator, flags);
    const places = ["-c", coordinator.url, "-p", home.path("project")];
    const second = await home.run("agent-runner", [...places, ...flags]);
    const expected = new RegExp(
      `^error: ${runnerId} already runs on this host: it holds /.*give this one a --name of its own`,
    );
    expect(second).toEqual(refusal(4, expected));
    expect((await home.runner(coordinator, [...flags, "--name", "two"])).runnerId).not.toBe(runnerId);
  });

  it("is told by the coordinator when it runs elsewhere, and takes the place once the first is gone", async () => {
    const coordinator = await home.coordinator();
    const flags = ["-x", "test-executor"];
    const first = await home.runner(coordinator, flags);
    const places = ["-c", coordinator.url, "-p", home.path("project"), "--state-dir", home.path("elsewhere")];
    const second = home.open("agent-runner", [...places, ...flags]);
    await second.says(new RegExp(`${first.runnerId} is another live process on .* \\(--name\\)`));
    await first.end("SIGTERM");
    await second.says(new RegExp(`Registered as ${first.runnerId}`));
  });
});
