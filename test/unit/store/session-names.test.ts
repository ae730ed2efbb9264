import { DatabaseSync } from "node:sqlite";
import { create } from "@bufbuild/protobuf";
import { FieldMaskSchema } from "@bufbuild/protobuf/wkt";
import { expect, it } from "vitest";
import { openSqliteStore } from "../../../coordinator/store/sqlite/sqlite-store.ts";
import { InvocationMode } from "../../../gen/agentrunner/v1/run_pb.ts";
import { UpdateSessionRequestSchema } from "../../../gen/agentrunner/v1/session_service_pb.ts";
import { file } from "../../support/databases.ts";
import { StoreHarness } from "../../support/store-harness.ts";

it("a session that has a name which none is given any more is found, resumed and changed by it", async () => {
  const path = file("store.db");
  const old = await new StoreHarness(openSqliteStore({ path })).open();
  const { sessionId, runId } = await old.createRun({ sessionName: "old" });
  await old.complete(runId);
  await old.store.close();
  const db = new DatabaseSync(path);
  db.exec("UPDATE sessions SET session_name = 'run_old'");
  db.close();

  const harness = await new StoreHarness(openSqliteStore({ path })).open();
  const { store } = harness;
  expect((await store.getSession({ sessionName: "run_old" }))?.sessionId).toBe(sessionId);
  for (const mode of [InvocationMode.UNSPECIFIED, InvocationMode.RESUME]) {
    expect((await harness.createRun({ sessionName: "run_old", mode })).sessionId).toBe(sessionId);
  }
  const updateMask = create(FieldMaskSchema, { paths: ["session_name", "metadata"] });
  const update = { sessionId, sessionName: "run_old", metadata: { a: 1 }, updateMask };
  const changed = await store.updateSession(create(UpdateSessionRequestSchema, update));
  expect(changed.value).toMatchObject({ sessionName: "run_old", metadata: { a: 1 } });
  const renamed = store.updateSession(create(UpdateSessionRequestSchema, { ...update, sessionName: "run_new" }));
  await expect(renamed).rejects.toMatchObject({ code: "INVALID_ARGUMENT", reason: "SESSION_NAME_INVALID" });
  await store.close();
});
