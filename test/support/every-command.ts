import { create } from "@bufbuild/protobuf";
import { FieldMaskSchema } from "@bufbuild/protobuf/wkt";
import type { Store } from "../../coordinator/store/store.ts";
import { AgentBlueprintSchema } from "../../gen/agentrunner/v1/blueprint_pb.ts";
import { ExecutionMode, OnLost_Policy, RunState } from "../../gen/agentrunner/v1/run_pb.ts";
import { SessionStatus } from "../../gen/agentrunner/v1/session_pb.ts";
import { HeldLease_Phase } from "../../gen/agentrunner/v1/runner_pb.ts";
import { EventBatchSchema, Report_Kind } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import { UpdateSessionRequestSchema } from "../../gen/agentrunner/v1/session_service_pb.ts";
import { StoreHarness } from "./store-harness.ts";

/** Those that are looked for in different ways. */
const STATUSES = [
  [],
  [SessionStatus.IDLE],
  [SessionStatus.FAILED, SessionStatus.STOPPED, SessionStatus.PENDING],
  [SessionStatus.RUNNING, SessionStatus.STOPPING],
];
const CALLBACK = ExecutionMode.ASYNC_CALLBACK;

/** Gives the store every command in every form that makes a statement of its own, and closes it. */
export async function everyCommand(store: Store): Promise<void> {
  const harness = await new StoreHarness(store).open();
  const { runnerId } = harness;
  await lives(harness);
  await lists(harness);
  await trees(harness);
  await toldInVain(harness);
  await runners(harness);
  await store.gauges();
  await store.keepClockNote(await store.clockNote(harness.now));
  await store.probe();
  await store.forgetRunners(harness.now + 1, harness.now + 1);
  await store.removeRunner(runnerId, harness.now).catch(() => undefined);
  await store.close();
}

async function lives(harness: StoreHarness): Promise<void> {
  const { store, runnerId } = harness;
  const agent = { blueprint: create(AgentBlueprintSchema, { name: "a", outputSchema: {} }), violations: [] };
  const named = await harness.createRun(
    { sessionName: "one", agentName: "a", requestId: "r1", metadata: { a: 1 } },
    agent,
  );
  await harness.createRun({ sessionName: "one", agentName: "a", requestId: "r1", metadata: { a: 1 } }, agent);
  await store.lastBlueprint(named, "a");
  await store.outputSchemas([named.runId]);
  await harness.begin(named.runId);
  const { leaseId } = harness.leaseOf(named.runId);
  const events = [{ event: { case: "output" as const, value: { text: "x" } } }];
  const batch = create(EventBatchSchema, { runId: named.runId, leaseId, firstSeq: 1n, events });
  await store.appendEvents(runnerId, [batch], harness.now);
  await store.leaseOfToken(leaseId);
  const held = [harness.heldLease(named.runId, HeldLease_Phase.RUNNING)];
  await store.beat(runnerId, { bootId: "boot_harness", held, freeSlots: 1 }, 1000, harness.now);
  await harness.report(named.runId, {
    kind: Report_Kind.COMPLETED,
    executorSessionId: "x",
    exit: { code: 0 },
    result: { text: "done", data: {} },
  });
  await harness.report(named.runId, { kind: Report_Kind.REFUSE });
  const second = await harness.createRun({ sessionId: named.sessionId, prompt: "on" }, agent);
  await harness.createRun({ sessionId: named.sessionId, prompt: "and on" }, agent);
  await store.hasEnded(second.runId);
  await store.getRun(second.runId);
  await harness.begin(second.runId);
  const late = harness.leaseOf(second.runId).leaseId;
  await harness.lose();
  await harness.report(second.runId, { leaseId: late, kind: Report_Kind.COMPLETED, result: { text: "late" } });
  await store.sessionResult(named.sessionId, "");
  await store.sessionResult("ses_none", "").catch(() => undefined);
  await store.listEvents({ sessionId: named.sessionId, runId: "", after: 0, limit: 100, maxBytes: 1e6 });
  const refused = await harness.createRun({ onLost: { policy: OnLost_Policy.RETRY } });
  await harness.offer();
  await harness.report(refused.runId, { kind: Report_Kind.REFUSE, message: "no", permanent: true });
  await harness.offer();
  await store.openOffers(runnerId);
  await store.withdrawOffers(runnerId, undefined, harness.now);
  await store.withdrawOffers(undefined, undefined, harness.now);
  await store.expire(harness.now, false);
  await store.clampTimes(1000, 1000, harness.now - 3_600_000);
  await store.holders();
  const [demandClass = ""] = await store.pendingClasses();
  await store.firstPending(demandClass);
  await store.setUnmatched(demandClass, 1);
  await store.unmatchedClasses(harness.now);
  await store.setUnmatched(demandClass, undefined);
  await store.failPending(demandClass, "UNMATCHED", "m", 0, harness.now);
  await store.failPending(demandClass, "AFFINITY_LOST", "m", 0, harness.now);
}

async function lists({ store, runnerId }: StoreHarness): Promise<void> {
  const page = { pageSize: 10, pageToken: "" };
  for (const sessionId of ["", "ses_x"]) {
    for (const withinSessionId of [undefined, "ses_x"]) {
      for (const states of [[], [RunState.FAILED], [RunState.COMPLETED, RunState.PENDING]]) {
        for (const ofRunner of ["", runnerId]) {
          await store.listRuns({ ...page, sessionId, withinSessionId, states, runnerId: ofRunner });
        }
      }
      for (const statuses of STATUSES) {
        await store.listSessions({ ...page, statuses, parentSessionId: sessionId, withinSessionId });
      }
    }
  }
  for (const type of ["run-id", "session-id", "request-id"] as const) {
    for (const withinSessionId of [undefined, "ses_x"]) {
      await store.findRuns({
        type,
        prefix: type === "request-id" ? "r" : type.slice(0, 3),
        limit: 10,
        withinSessionId,
      });
    }
  }
  await store.isWithin("ses_x", "ses_y");
  await store.getSession({ sessionName: "one" });
}

async function trees(harness: StoreHarness): Promise<void> {
  const { store } = harness;
  const boss = await harness.createRun({ sessionName: "boss" });
  const child = await harness.createRun({ parentSessionId: boss.sessionId, executionMode: CALLBACK });
  const other = await harness.createRun({ parentSessionId: boss.sessionId, executionMode: CALLBACK });
  await harness.complete(boss.runId);
  await harness.complete(child.runId);
  await store.getSession({ sessionId: boss.sessionId });
  for (const { runId } of await harness.openRuns()) if (runId !== other.runId) await harness.complete(runId);
  await harness.stop(boss.runId, true);
  const updateMask = create(FieldMaskSchema, { paths: ["session_name", "metadata"] });
  const named = { sessionId: boss.sessionId, sessionName: "chief", metadata: { a: 1 }, updateMask };
  await store.updateSession(create(UpdateSessionRequestSchema, named));
  const grown = await harness.createRun({ parentSessionId: boss.sessionId, sessionName: "grown" });
  await harness.createRun({ sessionId: grown.sessionId });
  await harness.stop(grown.runId, true);
  for (const run of await harness.runsOf(grown.sessionId)) await harness.stop(run.runId);
  await store.deleteSession(boss.sessionId, 60_000);
  const asked = { sessionName: "asked", requestId: "r2" };
  const first = await harness.createRun(asked);
  const next = await harness.createRun({ sessionName: "asked", requestId: "r3" });
  for (const { runId } of [first, next]) await harness.stop(runId);
  await store.deleteSession(first.sessionId, 0);
  await harness.createRun({ requestId: "r3" });
  await store.finishDeletions(60_000);
  const prune = { before: harness.now + 1, from: undefined, budgetMs: 60_000 };
  await store.pruneRuns({ ...prune, dryRun: true });
  await store.pruneRuns({ ...prune, dryRun: false });
}

/** A session is deleted while its parent is told of it, in a run that is lost then. */
async function toldInVain(harness: StoreHarness): Promise<void> {
  const boss = await harness.createRun({});
  await harness.complete(boss.runId);
  const { sessionId, runId } = await harness.createRun({ parentSessionId: boss.sessionId });
  await harness.complete(runId);
  const child = await harness.createRun({ sessionId, parentSessionId: boss.sessionId, executionMode: CALLBACK });
  await harness.complete(child.runId);
  for (const open of await harness.runsOf(boss.sessionId)) await harness.begin(open.runId);
  await harness.store.deleteSession(sessionId, 0);
  await harness.lose();
  await harness.store.finishDeletions(60_000);
}

async function runners({ store, runnerId, now, again }: StoreHarness): Promise<void> {
  await again("boot_harness");
  await again("boot_next");
  await store.runnerOfToken(runnerId, "other");
  await store.runnerFacts("all");
  await store.runnerFacts([runnerId]);
  await store.listRunners(10, "");
  await store.drainRunner(runnerId, "d");
  await store.directives(runnerId);
  await store.silentRunners(now);
  await store.deregister(runnerId, "boot_next", now);
}
