import { cpSync, mkdirSync, readFileSync, renameSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { writeIdentity } from "../../../runner/leases/identity-file.ts";
import { Code, ConnectError } from "@connectrpc/connect";
import { Report_Kind } from "../../../gen/agentrunner/v1/runner_service_pb.ts";
import { EXIT } from "../../../lib/exit-codes.ts";
import { runnerId as derivedId } from "../../../lib/ids.ts";
import type { RunnerSettings } from "../../../runner/settings/settings.ts";
import { StateRefusedError } from "../../../runner/leases/state-dir.ts";
import { FakeCoordinator } from "../../support/fake-coordinator.ts";
import { atEnd, cleanUp, startTestRunner, tempDir, testSettings } from "../../support/test-runner.ts";
import { until } from "../../support/until.ts";

let fake: FakeCoordinator;
let settings: RunnerSettings;
let reaped: string[];

beforeEach(async () => {
  fake = await new FakeCoordinator().start();
  atEnd(() => fake.stop());
  settings = testSettings(fake.url);
  reaped = [];
});

afterEach(cleanUp);

/** Starts the runner with other settings, and returns what it registered with. */
async function registered(changes: Partial<RunnerSettings> = {}) {
  const before = fake.of("register").length;
  const deps = { reap: async (bootId: string) => reaped.push(bootId) };
  const started = await startTestRunner(fake, { ...settings, ...changes, deps });
  const { request } = await until(() => fake.of("register")[before], "Register");
  return { ...started, request };
}

/** As `registered`, of a runner that is killed then. */
async function killed(changes: Partial<RunnerSettings> = {}) {
  const started = await registered(changes);
  await until(() => started.runner.connectionState().type === "attached", "the stream");
  started.runner.kill();
  await started.runner.done;
  return started;
}

describe("a runner whose host gets another name", () => {
  it("is the same runner, with the state and the leases that it had", async () => {
    const before = await killed();
    expect(before.request.runnerId).toBe(derivedId(settings));
    const { runner, request, log } = await registered({ hostname: "dhcp-10-0-7-23" });
    expect(runner.runnerId).toBe(before.runner.runnerId);
    expect(request).toMatchObject({
      runnerId: before.runner.runnerId,
      hostname: "dhcp-10-0-7-23",
      previousBootId: before.runner.bootId,
    });
    expect(reaped).toEqual([before.runner.bootId]);
    expect(log.join("")).toContain("the host has another name; the runner is the same");
  });

  it("is the one that worked last, when it had several names before there was this rule", async () => {
    const first = await killed({ hostname: "one", fixedHostname: true });
    const second = await killed({ hostname: "two", fixedHostname: true });
    expect(second.runner.runnerId).not.toBe(first.runner.runnerId);
    writeIdentity(settings.stateDir, first.runner.runnerId, { ...settings, hostname: "one" });
    utimesSync(join(settings.stateDir, first.runner.runnerId, "identity.json"), 1, 1);
    writeIdentity(settings.stateDir, second.runner.runnerId, { ...settings, hostname: "two" });
    expect((await registered({ hostname: "three" })).runner.runnerId).toBe(second.runner.runnerId);
  });

  it("leaves the state of a runner whose host name is given to that one", async () => {
    const given = await killed({ hostname: "given", fixedHostname: true });
    expect((await registered({ hostname: "three" })).runner.runnerId).not.toBe(given.runner.runnerId);
  });

  it.each([
    ["its host name is given", { fixedHostname: true }],
    ["it works in another directory", { projectDir: "/" }],
    ["it has another profile", { executorProfile: "other" }],
    ["it has a name", { name: "other" }],
  ])("is another one when %s", async (_, changes) => {
    await killed();
    const other = { ...settings, hostname: "b", ...changes };
    const { runner, request } = await registered(other);
    expect(runner.runnerId).toBe(derivedId(other));
    expect(request.previousBootId).toBe("");
  });

  it("is another one while the first is at work, or on a machine that is another one", async () => {
    const first = await killed();
    const file = join(settings.stateDir, first.runner.runnerId, "identity.json");
    const told = readFileSync(file, "utf8");
    writeFileSync(file, JSON.stringify({ ...JSON.parse(told), machine_id: "another" }));
    expect((await registered({ hostname: "b" })).runner.runnerId).not.toBe(first.runner.runnerId);
    const again = await registered();
    expect(again.runner.runnerId).toBe(first.runner.runnerId);
    expect((await registered({ hostname: "c" })).runner.runnerId).not.toBe(first.runner.runnerId);
  });

  it("keeps a directory of the layout before, and is found again from its next start on", async () => {
    const { runner } = await killed();
    const dir = join(settings.stateDir, runner.runnerId);
    rmSync(join(dir, "identity.json"));
    change(dir, (db) => db.exec("DELETE FROM meta WHERE key = 'place'"));
    const second = await killed();
    expect(second.request).toMatchObject({ runnerId: runner.runnerId, previousBootId: runner.bootId });
    expect((await registered({ hostname: "b" })).runner.runnerId).toBe(runner.runnerId);
  });
});

/** Changes what a process left in its state. */
function change(dir: string, how: (db: DatabaseSync) => void): void {
  const db = new DatabaseSync(join(dir, "state.db"));
  how(db);
  db.close();
}

describe("a copy of a state directory", () => {
  it("beside its original is refused, and touches no executor", async () => {
    const { runner, execution } = await registered();
    const { runId } = await fake.offer();
    await execution(runId);
    const stateDir = join(tempDir(), "copy");
    cpSync(settings.stateDir, stateDir, { recursive: true });
    const copy = registered({ stateDir });
    await expect(copy).rejects.toThrow(StateRefusedError);
    await expect(copy).rejects.toThrow(
      `${join(stateDir, runner.runnerId)} is a copy of ${join(settings.stateDir, runner.runnerId)}, which is still there`,
    );
    expect(reaped).toEqual([]);
    await registered({ stateDir, name: "other" });
    expect(runner.activeRuns()).toBe(1);
  });

  it("whose original was only moved is no copy", async () => {
    const { runner } = await killed();
    const stateDir = join(tempDir(), "moved");
    renameSync(settings.stateDir, stateDir);
    mkdirSync(settings.stateDir);
    expect((await registered({ stateDir })).request.previousBootId).toBe(runner.bootId);
  });

  /** As on the clone of a machine, or one that was started again. */
  const ofAnotherBoot = (dir: string) =>
    change(dir, (db) => db.exec("UPDATE meta SET value = 'other' WHERE key = 'machine_boot_id'"));

  it("that may be one claims nothing until the coordinator has taken it for the runner", async () => {
    fake.onReport = ({ kind }) => (kind === Report_Kind.ACCEPT ? "silence" : 1);
    const first = await registered();
    await fake.offer();
    await until(() => fake.reports(Report_Kind.ACCEPT).length > 0, "an accept");
    first.runner.kill();
    await first.runner.done;
    ofAnotherBoot(join(settings.stateDir, first.runner.runnerId));
    const { request, runner, log } = await killed();
    expect(request).toMatchObject({ runnerId: first.runner.runnerId, previousBootId: "", held: [] });
    expect(reaped).toEqual([]);
    expect(log.join("")).toContain("is dead: the machine was started again since it was written");
    // From then on it is this process's.
    expect((await registered()).request.previousBootId).toBe(runner.bootId);
    expect(reaped).toEqual([runner.bootId]);
    expect(fake.reports(Report_Kind.NOT_STARTED)).toEqual([]);
  });

  it("that is one stays one, however often it is started, and says what to do", async () => {
    const { runner } = await killed();
    const dir = join(settings.stateDir, runner.runnerId);
    ofAnotherBoot(dir);
    fake.onRegister = () => {
      throw new ConnectError(`${runner.runnerId} is another live process on host-a`, Code.AlreadyExists);
    };
    for (let start = 0; start < 2; start += 1) {
      const twin = await startTestRunner(fake, { ...settings, deps: { twinPatienceMs: 0 } });
      expect(await twin.runner.done).toBe(EXIT.refused);
      expect(twin.log.join("")).toContain(
        `${dir} may be a copy of that process's state (the machine was started again`,
      );
      expect(fake.of("register").at(-1)!.request.previousBootId).toBe("");
    }
  });
});

describe("a state directory that is deleted under its runner", () => {
  it.each(["deleted", "replaced"])("%s: no offer is taken, and the reason is said", async (how) => {
    const { runner, log } = await registered();
    const dir = join(settings.stateDir, runner.runnerId);
    await fake.offer();
    await until(() => fake.reports(Report_Kind.ACCEPT).length === 1, "an accept");
    renameSync(dir, join(settings.stateDir, "away"));
    if (how === "replaced") mkdirSync(dir);
    const { leaseId } = await fake.offer();
    const refusal = await until(() => fake.reports(Report_Kind.REFUSE)[0], "the refusal");
    expect(refusal).toMatchObject({ leaseId, runnerTrouble: true });
    expect(refusal.message).toContain(`${dir} was deleted or replaced under the runner`);
    rmSync(dir, { recursive: true, force: true });
    renameSync(join(settings.stateDir, "away"), dir);
    await until(() => log.some((line) => line.includes("can be written again")), "its return");
  });
});
