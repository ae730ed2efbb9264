import { create } from "@bufbuild/protobuf";
import { expect, it } from "vitest";
import { openSqliteStore } from "../../../coordinator/store/sqlite/sqlite-store.ts";
import { EventBatchSchema } from "../../../gen/agentrunner/v1/runner_service_pb.ts";
import { OUTPUT_MAX_BYTES } from "../../../lib/protocol/limits.ts";
import { StoreHarness } from "../../support/store-harness.ts";

const MIB = 1024 * 1024;

it.each([
  ["output", (text: string) => ({ case: "output" as const, value: { text } })],
  ["messages", (text: string) => ({ case: "message" as const, value: { role: "assistant", text } })],
  ["statuses", (text: string) => ({ case: "status" as const, value: { text } })],
])("what a run says in %s is kept up to a bound, and then one gap is told", async (_, event) => {
  const harness = await new StoreHarness(openSqliteStore({ path: undefined })).open();
  const { store, runnerId } = harness;
  const { runId, sessionId } = await harness.createRun({});
  await harness.begin(runId);
  const { leaseId } = harness.leaseOf(runId);
  const events = [{ event: event("x".repeat(MIB)) }];
  for (let i = 1; i <= OUTPUT_MAX_BYTES / MIB + 2; i += 1) {
    const batch = create(EventBatchSchema, { runId, leaseId, firstSeq: BigInt(i), events });
    const { value } = await store.appendEvents(runnerId, [batch], harness.now);
    expect(value.verdicts[0]?.committedSeq).toBe(BigInt(i));
  }
  const kinds: (string | undefined)[] = [];
  for (let after = 0, more = true; more;) {
    const page = await store.listEvents({ sessionId, runId, after, limit: 1000, maxBytes: 2 * MIB });
    for (const each of page.events) if (each.event.case === "executor") kinds.push(each.event.value.event.case);
    ({ more } = page);
    after = page.next;
  }
  expect(kinds.filter((kind) => kind === "dropped")).toHaveLength(1);
  expect(kinds.at(-1)).toBe("dropped");
  await store.close();
});
