import { randomBytes } from "node:crypto";
import { closeSync, copyFileSync, mkdtempSync, renameSync, openSync, readFileSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Code } from "@connectrpc/connect";
import type { ConnectError } from "@connectrpc/connect";
import { afterEach, beforeEach, expect, it } from "vitest";
import { storeErrors } from "../../../coordinator/services/store-errors.ts";
import { openSqliteStore } from "../../../coordinator/store/sqlite/sqlite-store.ts";
import { StoreHarness } from "../../support/store-harness.ts";

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "ao-damage-"));
});
afterEach(() => rmSync(directory, { recursive: true }));

it("a large store is opened without being read as a whole; what is damaged in it is said when it is read", async () => {
  const path = join(directory, "store.db");
  const harness = await new StoreHarness(openSqliteStore({ path })).open();
  const { runId } = await harness.createRun({ prompt: "x".repeat(200_000) });
  await harness.store.close();
  // The prompt's pages are in the middle of its text; every page of the text names the next one.
  const bytes = readFileSync(path);
  const at = bytes.indexOf("x".repeat(4_050)) & ~4095;
  const fd = openSync(path, "r+");
  for (let page = at; page < at + 10 * 4096; page += 4096) writeSync(fd, randomBytes(4), 0, 4, page);
  closeSync(fd);
  expect(() => openSqliteStore({ path })).toThrow(`store ${path} is damaged`);

  const store = openSqliteStore({ path, checkedUpToBytes: 4096 });
  const said: string[] = [];
  const interceptor = storeErrors({
    store: path,
    onDamage: (_, message) => void said.push(message),
  });
  const call = interceptor(async () => {
    await store.getRun(runId);
    throw new Error("the run was read");
  });
  const error: unknown = await call({} as never).catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({ code: Code.Internal });
  expect((error as ConnectError).rawMessage).toMatch(/^STORE_DAMAGED: .*store\.db cannot be read \(.*malformed\)/);
  expect(said).toEqual([(error as ConnectError).rawMessage]);
  await store.close();
});

it.each(["deleted", "replaced", "robbed of its log"])(
  "a store that is %s while it is open acknowledges nothing and is not ready",
  async (how) => {
    const path = join(directory, "store.db");
    const yard = await new StoreHarness(openSqliteStore({ path })).open();
    const { runId } = await yard.createRun({});
    await yard.store.probe();
    if (how === "replaced") copyFileSync(path, `${path}.copy`);
    rmSync(how === "robbed of its log" ? `${path}-wal` : path);
    if (how === "replaced") renameSync(`${path}.copy`, path);
    for (const write of [yard.createRun({}), yard.store.probe(), yard.begin(runId)]) {
      await expect(write).rejects.toThrow(/store\.db(-wal)? was deleted or replaced while it is open/);
      await expect(write).rejects.toMatchObject({ name: "CommitError", gone: true });
    }
    expect((await yard.store.gauges()).openRuns["PENDING"]).toBe(1);
    await yard.store.close();
  },
);
