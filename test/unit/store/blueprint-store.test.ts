import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { create } from "@bufbuild/protobuf";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { APPLICATION_ID, MIGRATIONS } from "../../../coordinator/store/sqlite/schema.ts";
import { openSqliteStore } from "../../../coordinator/store/sqlite/sqlite-store.ts";
import type { Store } from "../../../coordinator/store/store.ts";
import { AgentBlueprintSchema } from "../../../gen/agentrunner/v1/blueprint_pb.ts";
import { CreateRunRequestSchema } from "../../../gen/agentrunner/v1/run_service_pb.ts";
import { newId } from "../../../lib/ids.ts";

const LIMITS = { maxDepth: 10, maxChildren: 10 };

let path: string;
let open: Store | undefined;
beforeEach(() => {
  path = join(mkdtempSync(join(tmpdir(), "ao-store-")), "store.db");
});
afterEach(async () => {
  await open?.close();
  open = undefined;
  rmSync(join(path, ".."), { recursive: true });
});

/** A store of the first layout, made by hand, as it was when profiles were called executor types. */
function oldStore(): void {
  const db = new DatabaseSync(path);
  const [first] = MIGRATIONS;
  db.exec(String(first).replaceAll("executor_profile", "executor_type"));
  db.exec(`
    PRAGMA user_version = 1; PRAGMA application_id = ${APPLICATION_ID};
    INSERT INTO sessions (session_id, session_name, parent_session_id, agent_name, project_dir, executor_type, created_at)
      VALUES ('ses_old', 'old', '', '', '/srv', 'claude-code', 1);
    INSERT INTO runners (runner_id, boot_id, hostname, project_dir, executor_type, name, portable, tags,
        require_matching_tags, max_runs, registered_at, last_heard_at)
      VALUES ('lnch_old', 'boot_1', 'h', '/srv', 'claude-code', '', 0, '[]', 0, 1, 1, 1);`);
  db.close();
}

describe("a store from before the rename of executor_type", () => {
  it("is migrated: its sessions and runners have executor profiles, and it opens again as it is then", async () => {
    oldStore();
    for (let i = 0; i < 2; i += 1) {
      open = openSqliteStore({ path });
      expect(await open.getSession({ sessionName: "old" })).toMatchObject({ executorProfile: "claude-code" });
      expect((await open.runnerFacts("all"))[0]?.facts).toMatchObject({ executorProfile: "claude-code" });
      await open.close();
      open = undefined;
    }
  });
});

describe("copies of blueprints in the store", () => {
  it("are shared by runs with the same content, and deleted with the last of them", async () => {
    open = openSqliteStore({ path });
    const store = open;
    const blueprint = (systemPrompt: string) =>
      create(AgentBlueprintSchema, { name: "a", systemPrompt, enabled: true });
    const run = async (systemPrompt: string): Promise<void> => {
      const request = create(CreateRunRequestSchema, { prompt: "go", agentName: "a" });
      const ids = { runId: newId("run"), sessionId: newId("ses") };
      const { value } = await store.createRun(
        request,
        { blueprint: blueprint(systemPrompt), violations: undefined },
        ids,
        LIMITS,
        1,
      );
      await store.stopRun(value.runId, { graceMs: 0, reason: "" }, false, systemPrompt === "one" ? 10 : 20);
    };
    for (const text of ["one", "one", "two", "two", "one"]) await run(text);
    const copies = (): number => {
      const db = new DatabaseSync(path, { readOnly: true });
      const n = Number(db.prepare("SELECT count(*) AS n FROM agent_snapshots").get()?.["n"]);
      db.close();
      return n;
    };
    const counted = async (): Promise<number> => {
      await open?.close();
      const n = copies();
      open = openSqliteStore({ path });
      return n;
    };
    expect(await counted()).toBe(2);
    const prune = { dryRun: false, from: undefined, budgetMs: 60_000 };
    await open.pruneRuns({ ...prune, before: 15 });
    expect(await counted()).toBe(1);
    await open.pruneRuns({ ...prune, before: 25 });
    expect(await counted()).toBe(0);
  });
});
