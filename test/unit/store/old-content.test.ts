import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create, toBinary } from "@bufbuild/protobuf";
import type { JsonObject, MessageInitShape } from "@bufbuild/protobuf";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { demandClass, requirementsOf } from "../../../coordinator/core/match.ts";
import { APPLICATION_ID, MIGRATIONS } from "../../../coordinator/store/sqlite/schema.ts";
import { openSqliteStore } from "../../../coordinator/store/sqlite/sqlite-store.ts";
import type { Store } from "../../../coordinator/store/store.ts";
import { AgentBlueprintSchema } from "../../../gen/agentrunner/v1/blueprint_pb.ts";
import { ExecutionMode, InvocationMode, OnLost_Policy, RunSchema } from "../../../gen/agentrunner/v1/run_pb.ts";
import { RegisterRequestSchema } from "../../../gen/agentrunner/v1/runner_service_pb.ts";
import { newId } from "../../../lib/ids.ts";
import { openDatabase } from "../../../lib/sqlite.ts";

/* Stores of 0.1.0, whose `run_specs.content`, `summary` and `sessions.metadata` were messages of type Run. */

/** Schema version of 0.1.0. */
const OLD_STEPS = 4;
const CLASS = demandClass({
  executorProfile: "p",
  hostname: "",
  projectDir: "",
  tags: ["t"],
  affinityRunnerId: "",
  needs: [],
});

let dir: string;
let store: Store | undefined;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "ao-old-"));
});
afterEach(async () => {
  await store?.close();
  store = undefined;
  rmSync(dir, { recursive: true });
});

function encoded(run: MessageInitShape<typeof RunSchema>): Uint8Array {
  return toBinary(RunSchema, create(RunSchema, run));
}

/** A store with a pending run, a callback's run that is interrupted and pending, and a run that has ended. */
function oldStore(): string {
  const path = join(dir, "store.db");
  const db = openDatabase({
    path,
    applicationId: APPLICATION_ID,
    migrations: MIGRATIONS.slice(0, OLD_STEPS),
    what: "store",
  });
  const blueprint = create(AgentBlueprintSchema, { name: "worker", systemPrompt: "Be brief.", tags: ["x"] });
  db.prepare("INSERT INTO agent_snapshots (seq, hash, name, body) VALUES (1, ?, 'worker', ?)").run(
    new Uint8Array([1]),
    toBinary(AgentBlueprintSchema, blueprint),
  );
  const session = db.prepare(
    `INSERT INTO sessions (session_id, session_name, parent_session_id, agent_name, project_dir, executor_session_id, created_at, metadata)
     VALUES (?, ?, ?, ?, ?, ?, 1, ?)`,
  );
  const run = db.prepare(
    `INSERT INTO runs (run_id, session_seq, state, at_head, demand_class, on_lost, max_attempts, attempt, interrupted, created_at, ended_at, first_event)
     VALUES (?, ?, ?, 1, ?, 'RESUME', 3, ?, ?, 1, ?, 1)`,
  );
  const spec = db.prepare(
    "INSERT INTO run_specs (run_seq, request_hash, summary, content, agent_seq) VALUES (?, ?, ?, ?, ?)",
  );
  const none = new Uint8Array();
  const common = { projectDir: "/srv", demands: { executorProfile: "p", tags: ["t"] } };
  const metadata: JsonObject = { ticket: "A-1" };

  session.run("ses_a", "first", "", "worker", "/srv", "", encoded({ metadata }));
  run.run("run_a", 1, "PENDING", CLASS, 0, 0, null);
  const start = { ...common, mode: InvocationMode.START, agentName: "worker", timeout: { seconds: 5n } };
  spec.run(1, none, encoded(start), encoded({ prompt: "go", parameters: { n: 1 }, metadata }), 1);

  session.run("ses_b", "second", "ses_a", "", "/srv", "conv_9", null);
  run.run("run_b", 2, "PENDING", CLASS, 1, 1, null);
  const onLost = { policy: OnLost_Policy.RESUME, maxAttempts: 3, resumePrompt: "Go on." };
  const callback = { childSessionIds: ["ses_a"] };
  const resume = { ...common, mode: InvocationMode.RESUME, parentSessionId: "ses_a", onLost, callback };
  spec.run(2, none, encoded(resume), encoded({ prompt: "children have ended" }), null);

  session.run("ses_c", "third", "", "", "", "", null);
  run.run("run_c", 3, "COMPLETED", null, 1, 0, 2);
  const ended = { mode: InvocationMode.START, executionMode: ExecutionMode.ASYNC_POLL, anyRunner: true };
  spec.run(3, none, encoded(ended), encoded({ prompt: "done long ago" }), null);
  db.close();
  return path;
}

describe("a store of 0.1.0", () => {
  it("shows its runs and sessions as before", async () => {
    store = openSqliteStore({ path: oldStore() });
    expect((await store.getRun("run_a"))?.run).toMatchObject({
      ...{ runId: "run_a", sessionId: "ses_a", sessionName: "first", agentName: "worker", projectDir: "/srv" },
      ...{ prompt: "go", parameters: { n: 1 }, metadata: { ticket: "A-1" }, timeout: { seconds: 5n } },
      mode: InvocationMode.START,
      demands: { executorProfile: "p", tags: ["t"] },
    });
    expect((await store.getRun("run_c"))?.run).toMatchObject({
      ...{ prompt: "done long ago", anyRunner: true, executionMode: ExecutionMode.ASYNC_POLL },
    });
    expect(await store.getSession({ sessionId: "ses_a" })).toMatchObject({ metadata: { ticket: "A-1" } });
    const { items } = await store.listRuns({
      ...{ states: [], sessionId: "", runnerId: "", pageSize: 10, pageToken: "", withinSessionId: undefined },
    });
    expect(items.map(({ runId, prompt }) => [runId, prompt])).toEqual([
      ["run_c", ""],
      ["run_b", ""],
      ["run_a", ""],
    ]);
  });

  it("offers its pending runs with the documents that they were to have", async () => {
    store = openSqliteStore({ path: oldStore() });
    expect(requirementsOf(CLASS)).toMatchObject({ executorProfile: "p", tags: ["t"] });
    const { value } = await store.register(
      create(RegisterRequestSchema, {
        hostname: "h",
        projectDir: "/",
        executorProfile: "p",
        bootId: "boot_1",
        maxConcurrentRuns: 5,
      }),
      { streamOpen: () => true, heardWithinMs: 1, maxRunners: 5 },
      "hash",
      1_000,
      1,
    );
    const candidates = [{ runnerId: value.runnerId, bootId: "boot_1", demandClasses: [CLASS] }];
    const offered = await store.offer(candidates, () => newId("lease"), 1_000, 1);
    expect(offered.value.offers.map(({ invocation }) => invocation)).toMatchObject([
      {
        ...{
          schemaVersion: "2.0",
          mode: "start",
          sessionId: "ses_a",
          sessionName: "first",
          runId: "run_a",
          attempt: 1,
        },
        ...{
          prompt: "go",
          projectDir: "/srv",
          parameters: { n: 1 },
          metadata: { ticket: "A-1" },
          executorSessionId: "",
        },
        agentBlueprint: { name: "worker", systemPrompt: "Be brief." },
      },
      {
        ...{
          mode: "resume",
          sessionId: "ses_b",
          runId: "run_b",
          attempt: 2,
          prompt: "Go on.",
          executorSessionId: "conv_9",
        },
        ...{ parentSessionId: "ses_a", callback: { childSessionIds: ["ses_a"] } },
      },
    ]);
    expect(offered.value.offers[0]?.timeoutMs).toBe(5_000);
  });
});
