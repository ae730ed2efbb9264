import { copyFileSync, existsSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Code, ConnectError } from "@connectrpc/connect";
import { afterEach, describe, expect, it } from "vitest";
import type { SessionEvent } from "../../../../gen/agentrunner/v1/session_pb.ts";
import { reasonOf } from "../../../../lib/rpc/error-info.ts";
import { startTestCoordinator, stopTestCoordinators, tempDir } from "../../../support/coordinator.ts";
import type { TestCoordinator } from "../../../support/coordinator.ts";
import { cleanUp, startTestRunner } from "../../../support/test-runner.ts";
import { until } from "../../../support/until.ts";

afterEach(cleanUp);
afterEach(stopTestCoordinators);

const FILE = { memory: false, reconnectMinMs: 10, reconnectMaxMs: 50, leaseTtlMs: 60_000 };

/** Puts a copy in the place of the store, as `docs/guide/operating.md` says. */
function restore(copy: string, store: string): void {
  for (const beside of ["", "-wal", "-shm"]) rmSync(`${store}${beside}`, { force: true });
  copyFileSync(copy, store);
}

async function eventsAfter(c: TestCoordinator, sessionId: string, cursor: string): Promise<SessionEvent[]> {
  return (await c.sessions.listSessionEvents({ sessionId, cursor, pageSize: 1000 })).events;
}

async function nextOf<T>(messages: AsyncIterable<T>): Promise<unknown> {
  const iterator = messages[Symbol.asyncIterator]();
  return iterator.next();
}

/** Creates runs, one after the other, until it is told to end. Returns their ids. */
function writing(c: TestCoordinator): () => Promise<string[]> {
  const ids: string[] = [];
  const end = new AbortController();
  const done = (async () => {
    while (!end.signal.aborted) ids.push((await c.create({ demands: { tags: ["nobody-has-this"] } })).runId);
  })();
  return async () => {
    end.abort();
    await done;
    return ids;
  };
}

describe("a backup", () => {
  it("of a store in use has all that was there, and is this store with an older memory when it is restored", async () => {
    const c = await startTestCoordinator(FILE);
    const { runner, execution } = await startTestRunner({ url: c.url, note: () => undefined });
    const before = await c.create({ sessionName: "before" });
    (await execution(before.runId)).end();
    await c.reached(before.runId, "COMPLETED");
    const working = await c.create({ sessionName: "working" });
    const worked = await execution(working.runId);
    await c.reached(working.runId, "RUNNING");
    const [known] = (await eventsAfter(c, before.sessionId, "")).slice(-1);

    const path = join(tempDir(), "copy.db");
    const stop = writing(c);
    const answer = await c.runs.backupStore({ path });
    const written = await stop();
    expect(answer).toMatchObject({ path, bytes: BigInt(statSync(path).size) });
    expect(readdirSync(join(path, ".."))).toEqual(["copy.db"]);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(written.length).toBeGreaterThan(0);

    // More happens, which the copy does not have.
    const after = await c.create({ sessionName: "after" });
    (await execution(after.runId)).end();
    await c.reached(after.runId, "COMPLETED");
    const lost = await c.create({ sessionId: before.sessionId });
    (await execution(lost.runId)).end();
    await c.reached(lost.runId, "COMPLETED");
    const [unknown] = (await eventsAfter(c, before.sessionId, "")).slice(-1);
    const held = await c.create({ sessionName: "held" });
    const orphan = await execution(held.runId);
    await c.reached(held.runId, "RUNNING");
    const { store, storeId } = { store: c.running.store ?? "", storeId: c.store.storeId };

    await c.stop();
    restore(path, store);
    await c.start();

    expect(c.store.storeId).toBe(storeId);
    expect(await c.state(before.runId)).toBe("COMPLETED");
    await expect(c.run(after.runId)).rejects.toMatchObject({ code: Code.NotFound });
    // The runner comes back, ends what nobody knows any more, and goes on with what the copy knows.
    await until(() => orphan.stops.length > 0, "what the store forgot was stopped");
    worked.end();
    await c.reached(working.runId, "COMPLETED");
    // Followers: one from before the copy goes on, one that is ahead of it hears that it is.
    const next = await c.create({ sessionId: before.sessionId });
    (await execution(next.runId)).end();
    await c.reached(next.runId, "COMPLETED");
    const events = await eventsAfter(c, before.sessionId, known?.cursor ?? "");
    expect(new Set(events.map(({ runId }) => runId))).toEqual(new Set([next.runId]));
    expect(events.length).toBeGreaterThan(2);
    for (const call of [
      () => eventsAfter(c, before.sessionId, unknown?.cursor ?? ""),
      () => c.watched(next.runId, unknown?.cursor),
      () => nextOf(c.sessions.watchSession({ sessionId: before.sessionId, cursor: unknown?.cursor ?? "" })),
    ]) {
      const refused = await call().then(
        () => undefined,
        (error: unknown) => ConnectError.from(error),
      );
      expect(refused).toMatchObject({ code: Code.OutOfRange, rawMessage: expect.stringContaining("older copy") });
      expect(reasonOf(refused)).toBe("STORE_WENT_BACK");
    }
    runner.kill();
  });

  it("replaces no file, and says what is wrong with a path", async () => {
    const c = await startTestCoordinator();
    const directory = tempDir();
    const taken = join(directory, "taken");
    writeFileSync(taken, "mine");
    const cases = [
      [taken, Code.AlreadyExists],
      [join(directory, "none", "copy.db"), Code.FailedPrecondition],
      ["copy.db", Code.InvalidArgument],
      ["", Code.InvalidArgument],
    ] as const;
    for (const [path, code] of cases) await expect(c.runs.backupStore({ path })).rejects.toMatchObject({ code });
    expect(readdirSync(directory)).toEqual(["taken"]);
  });

  it("that is under way refuses another, and leaves nothing when the coordinator ends", async () => {
    const c = await startTestCoordinator(FILE);
    for (let i = 0; i < 4; i += 1) await c.create({ prompt: "x".repeat(2_000_000) });
    const directory = tempDir();
    const first = c.store.backup(join(directory, "first.db"));
    const given = expect(first).rejects.toMatchObject({ code: "FAILED_PRECONDITION" });
    await expect(c.store.backup(join(directory, "second.db"))).rejects.toMatchObject({ code: "FAILED_PRECONDITION" });
    await c.stop();
    await given;
    expect(existsSync(directory) && readdirSync(directory)).toEqual([]);
  });
});

describe("a cursor", () => {
  it("of any start since goes on after more starts", async () => {
    const c = await startTestCoordinator(FILE);
    const { runId, sessionId } = await c.create();
    const cursors: string[] = [];
    for (let i = 0; i < 3; i += 1) {
      const { nextCursor } = await c.sessions.listSessionEvents({ sessionId });
      cursors.push(nextCursor);
      await c.restart();
    }
    await c.runs.stopRun({ runId });
    for (const cursor of cursors) expect(await eventsAfter(c, sessionId, cursor)).toHaveLength(1);
    expect(new Set(cursors).size).toBe(3);
  });
});
