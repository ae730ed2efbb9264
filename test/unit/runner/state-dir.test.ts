import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { create } from "@bufbuild/protobuf";
import { afterEach, expect, it } from "vitest";
import { ReportSchema, Report_Kind } from "../../../gen/agentrunner/v1/runner_service_pb.ts";
import { Outbox } from "../../../runner/reports/outbox.ts";
import { StateDir } from "../../../runner/leases/state-dir.ts";
import { atEnd, cleanUp, tempDir } from "../../support/test-runner.ts";

afterEach(cleanUp);

const LEASE = { leaseId: "lease_1", runId: "run_1", storeId: "store_a", attempt: 1 };
const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

function open(base: string): StateDir {
  const state = new StateDir(base, "lnch_x", () => undefined);
  atEnd(() => state.abandon());
  return state;
}

function report(leaseId: string, seq: bigint, kind: Report_Kind) {
  return create(ReportSchema, { runId: "run_1", leaseId, seq, kind });
}

it("hands the leases of a process that ended to the next one, with its boot id", async () => {
  const base = tempDir();
  const first = open(base);
  expect([first.previousBootId, first.inherited]).toEqual(["", []]);
  await first.recordAccepting(LEASE);
  await first.recordAccepting({ ...LEASE, leaseId: "lease_2" });
  await first.recordSpawning("lease_2");
  await first.abandon();
  const second = open(base);
  expect(second.previousBootId).toBe(first.bootId);
  expect(second.inherited.map(({ leaseId, phase }) => [leaseId, phase])).toEqual([
    ["lease_1", "ACCEPTING"],
    ["lease_2", "SPAWNING"],
  ]);
});

it("takes every lease from before a restart of the machine as spawned", async () => {
  const base = tempDir();
  const first = open(base);
  await first.recordAccepting(LEASE);
  await first.write(() => first.sql("UPDATE meta SET value = 'other' WHERE key = 'machine_boot_id'").run());
  await first.abandon();
  expect(open(base).inherited).toMatchObject([{ leaseId: "lease_1", phase: "SPAWNING" }]);
});

it("writes lazily what is forgotten, and at the latest when it is closed", async () => {
  const base = tempDir();
  const first = open(base);
  await first.recordAccepting(LEASE);
  first.forgetLease("lease_1");
  await first.close();
  expect(open(base).inherited).toEqual([]);
});

it("keeps reports by store and lease; a final one takes the place of the earlier ones", async () => {
  const state = open(tempDir());
  const outbox = new Outbox(state);
  await outbox.put("store_a", report("lease_1", 3n, Report_Kind.PROGRESS));
  await outbox.put("store_a", report("lease_1", 4n, Report_Kind.COMPLETED));
  await Promise.all([5n, 6n].map((seq) => outbox.put("store_b", report("lease_2", seq, Report_Kind.PROGRESS))));
  expect(outbox.entries().map(({ storeId, final, report }) => [storeId, final, report.seq])).toEqual([
    ["store_a", true, 4n],
    ["store_b", false, 5n],
    ["store_b", false, 6n],
  ]);
  outbox.remove("lease_2", 5n);
  outbox.removeLease("lease_1");
  await state.write(() => undefined);
  expect(outbox.entries().map(({ report }) => report.seq)).toEqual([6n]);
});

it("deletes reports for another store after 7 days, and never those for this one", async () => {
  const outbox = new Outbox(open(tempDir()));
  await outbox.put("store_a", report("lease_1", 2n, Report_Kind.FAILED));
  await outbox.put("store_b", report("lease_2", 2n, Report_Kind.FAILED));
  const writtenMs = Date.now();
  const deleted: number[] = [];
  for (let hours = 0; hours <= 8 * 24; hours += 13) {
    const expired = await outbox.expire("store_a", writtenMs + hours * HOUR_MS);
    expect(expired.clockWasMs).toBeUndefined();
    if (expired.reports > 0) deleted.push(hours);
  }
  expect(deleted).toEqual([7 * 24 + 1]);
  expect(outbox.entries().map(({ storeId }) => storeId)).toEqual(["store_a"]);
});

it("deletes no report in the day after a jump of the wall clock, by whichever process", async () => {
  const base = tempDir();
  const first = open(base);
  await new Outbox(first).put("store_b", report("lease_2", 2n, Report_Kind.FAILED));
  const nowMs = Date.now();
  expect(await new Outbox(first).expire("store_a", nowMs)).toEqual({ reports: 0, clockWasMs: undefined });
  const jumpedMs = nowMs + 31 * DAY_MS;
  expect(await new Outbox(first).expire("store_a", jumpedMs)).toEqual({ reports: 0, clockWasMs: nowMs });
  await first.close();
  const outbox = new Outbox(open(base));
  expect(await outbox.expire("store_a", jumpedMs + HOUR_MS)).toEqual({ reports: 0, clockWasMs: undefined });
  // It was wrong, and is right again.
  expect(await outbox.expire("store_a", nowMs + 2 * HOUR_MS)).toMatchObject({ reports: 0 });
  expect(outbox.entries()).toHaveLength(1);
});

it("deletes what is old after that day, when the clock was right", async () => {
  const outbox = new Outbox(open(tempDir()));
  await outbox.put("store_b", report("lease_2", 2n, Report_Kind.FAILED));
  const nowMs = Date.now() + 31 * DAY_MS;
  // Without a note, the newest report says when somebody was here.
  expect(await outbox.expire("store_a", nowMs)).toMatchObject({ reports: 0, clockWasMs: expect.any(Number) });
  expect(await outbox.expire("store_a", nowMs + 12 * HOUR_MS)).toEqual({ reports: 0, clockWasMs: undefined });
  expect(await outbox.expire("store_a", nowMs + 25 * HOUR_MS)).toEqual({ reports: 1, clockWasMs: undefined });
});

it("cannot be written when its file was deleted, or another one stands there, and says so", async () => {
  const troubles: (string | undefined)[] = [];
  const state = new StateDir(tempDir(), "lnch_x", (reason) => void troubles.push(reason));
  atEnd(() => state.abandon());
  const copy = readFileSync(state.path);
  rmSync(state.path);
  const gone = /state\.db was deleted or replaced while it is open/;
  await expect(state.recordAccepting(LEASE)).rejects.toThrow(gone);
  writeFileSync(state.path, copy);
  await expect(state.recordAccepting(LEASE)).rejects.toThrow(gone);
  expect(state.trouble).toMatch(gone);
  expect(troubles).toEqual([expect.stringMatching(gone)]);
});

it("says why it cannot be written, and when it can be again", async () => {
  const troubles: (string | undefined)[] = [];
  const state = new StateDir(tempDir(), "lnch_x", (reason) => void troubles.push(reason));
  atEnd(() => state.abandon());
  state.sql("PRAGMA query_only = ON").run();
  await expect(state.recordAccepting(LEASE)).rejects.toThrow();
  expect(state.trouble).toContain("readonly");
  state.sql("PRAGMA query_only = OFF").run();
  await state.recordAccepting(LEASE);
  expect(state.trouble).toBeUndefined();
  expect(troubles).toEqual([expect.stringContaining("readonly"), undefined]);
});
