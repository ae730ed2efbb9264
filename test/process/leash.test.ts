import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { BOOT_VARIABLE } from "../../lib/boot-variable.ts";
import { reapBoot, startLeash } from "../../runner/execution/leash.ts";
import type { Leash } from "../../runner/execution/leash.ts";
import { hasEnded, ProcessGroup, processesMarked } from "../../runner/execution/processes.ts";
import { fixture } from "../support/executors.ts";
import { until } from "../support/until.ts";
import { inRepository } from "../support/paths.ts";

let boot: string;
let warnings: string[];
let spawned: ChildProcess[];
let leash: Leash | undefined;

beforeEach(() => {
  boot = `leash-${randomUUID()}`;
  warnings = [];
  spawned = [];
  leash = undefined;
});

afterEach(async () => {
  await leash?.close();
  for (const child of spawned) {
    if (child.pid !== undefined && child.exitCode === null && child.signalCode === null)
      process.kill(-child.pid, "SIGKILL");
  }
  await until(() => marked(boot).length === 0, "no process of the test is left");
});

const log = { warn: (_: object, message?: string) => void warnings.push(message ?? "") } as Parameters<
  typeof startLeash
>[1]["log"];

function marked(bootId: string): number[] {
  return processesMarked([`${BOOT_VARIABLE}=${bootId}`]);
}

/** Whether the process ignores HUP, INT and TERM, signals 1, 2 and 15. */
function hasTrap(pid: number): boolean {
  const mask = /^SigIgn:\s*([0-9a-f]+)$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? "0";
  return (Number.parseInt(mask, 16) & 0x4003) === 0x4003;
}

/** A process group that sleeps; without a marker unless one is given. */
function sleeper(bootId?: string): ProcessGroup {
  const env = { PATH: process.env["PATH"], ...(bootId !== undefined && { [BOOT_VARIABLE]: bootId }) };
  const child = spawn("sleep", ["60"], { detached: true, stdio: "ignore", env });
  spawned.push(child);
  return new ProcessGroup(child.pid!);
}

describe("a runner that is killed with SIGKILL", () => {
  it("leaves no executor: not one that ignores SIGTERM, nor one that left its group, nor one that cleared its environment", async () => {
    const program = inRepository("test/fixtures/leash-runner.ts");
    const executors = ["ignores-term", "leaves-group", "clears-environment"].map(fixture);
    const runner = spawn(process.execPath, [program, boot, ...executors], { stdio: ["ignore", "pipe", "inherit"] });
    const [line] = (await once(runner.stdout, "data")) as [Buffer];
    const { leash, pids } = JSON.parse(line.toString()) as { leash: number; pids: number[] };
    const groups = pids.map((pid) => new ProcessGroup(pid));
    expect(groups.every((group) => group.alive())).toBe(true);
    expect(marked(boot)).not.toContain(leash);

    runner.kill("SIGKILL");
    const killedAt = performance.now();
    const left = () => marked(boot).length + groups.filter((group) => group.alive()).length;
    await until(() => left() === 0, "every executor is gone");
    expect(performance.now() - killedAt).toBeGreaterThan(900);
    await until(() => hasEnded(leash), "the leash is gone too");
  });
});

describe("a leash", () => {
  it("ignores INT, TERM and HUP", async () => {
    leash = startLeash(boot, { log });
    const group = sleeper();
    leash.add(group.pgid);
    const { pid } = leash;
    // It ignores SIGTERM from its first line on; before that it is told nothing.
    await until(() => hasTrap(pid!), "the leash has started");
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.kill(-pid!, signal);
    await leash.close();
    expect(warnings).toEqual([]);
    await until(() => !group.alive(), "the group is ended by a leash that is still there");
  });

  it("leaves a group alone that was taken off it", async () => {
    leash = startLeash(boot, { log });
    const [kept, ended] = [sleeper(), sleeper()];
    leash.add(kept.pgid);
    leash.add(ended.pgid);
    leash.remove(kept.pgid);
    await leash.close();
    await until(() => !ended.alive(), "the other group is ended");
    expect(kept.alive()).toBe(true);
  });

  it("that dies is started again, told everything, and said so", async () => {
    leash = startLeash(boot, { log });
    const group = sleeper();
    leash.add(group.pgid);
    const first = leash.pid!;
    process.kill(first, "SIGKILL");
    await until(() => leash!.pid !== undefined && leash!.pid !== first, "there is another leash");
    expect(warnings).toEqual(["the leash ended and is started again"]);
    await leash.close();
    await until(() => !group.alive(), "the second leash knew the group");
  });

  it("that cannot run is tried again more and more slowly, and can be closed", async () => {
    leash = startLeash(boot, { log, script: "/nowhere/leash.sh" });
    await until(() => warnings.length === 3, "three attempts");
    await until(() => leash!.pid === undefined, "it waits");
    await leash.close();
    leash.add(2_000_000_000);
    expect(warnings).toHaveLength(3);
  });
});

describe("reapBoot", () => {
  it("kills what carries the marker of that boot, and nothing else", async () => {
    const other = `${boot}-other`;
    const [mine, others] = [sleeper(boot), sleeper(other)];
    await until(() => marked(boot).length === 1 && marked(other).length === 1, "both run");
    expect(await reapBoot(boot)).toEqual({ killed: [mine.pgid], left: [] });
    expect([mine.alive(), others.alive()]).toEqual([false, true]);
    others.signal("SIGKILL");
  });

  it("finds nothing when nothing is left", async () => {
    expect(await reapBoot(boot)).toEqual({ killed: [], left: [] });
  });
});

describe("a process group", () => {
  it("is never signalled again once it was seen gone", () => {
    const sent: unknown[] = [];
    const group = new ProcessGroup(12_345, (_, signal) => {
      sent.push(signal);
      throw Object.assign(new Error("no such process"), { code: "ESRCH" });
    });
    expect([group.signal("SIGTERM"), group.signal("SIGKILL"), group.alive()]).toEqual([false, false, false]);
    expect(sent).toEqual(["SIGTERM"]);
  });

  it("cannot be one that would mean other processes", () => {
    for (const pgid of [-1, 0, 1, 1.5, Number.NaN]) expect(() => new ProcessGroup(pgid)).toThrow(RangeError);
  });
});
