import { spawn } from "node:child_process";
import { text } from "node:stream/consumers";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { createClient } from "@connectrpc/connect";
import type { Client } from "@connectrpc/connect";
import { ExecutionMode } from "../gen/agentrunner/v1/run_pb.ts";
import type { Run } from "../gen/agentrunner/v1/run_pb.ts";
import { RunService } from "../gen/agentrunner/v1/run_service_pb.ts";
import { SessionService } from "../gen/agentrunner/v1/session_service_pb.ts";
import { connectTransport } from "../lib/rpc/transport.ts";
import type { Workshop } from "./children.ts";
import type { Measured } from "./figures.ts";
import { sampleInvocation } from "./spawn-rate.ts";
import { median, percentile } from "./stats.ts";

/** Says when it has read its invocation, which is also when it ends. */
const EXECUTOR = fileURLToPath(new URL("says-when", import.meta.url));
const MAX_RUNS = 4;
const TARGET_MS = 15;
/** Several times what both runs take. */
const UNSEEN_MS = 120;

/**
 * Row 5: from the end of a child's executor to the moment at which the executor that resumes its parent has read its
 * invocation, one callback after the other, through a coordinator and a runner of their own; beside the same program
 * spawned by this process.
 */
export async function callbackLatency(workshop: Workshop, quick: boolean): Promise<Measured> {
  const [warmUp, callbacks] = quick ? [10, 60] : [50, 500];
  const coordinator = await workshop.coordinator();
  const runner = await workshop.runner(coordinator.url, EXECUTOR, MAX_RUNS);
  const link = connectTransport(coordinator.url);
  const runs = createClient(RunService, link.transport);
  const sessions = createClient(SessionService, link.transport);
  const parent = await ended(runs, await create(runs, {}));
  const samples = { callback: [] as number[], spawn: [] as number[] };
  for (let i = 0; i < warmUp + callbacks; i += 1) {
    const owing = { parentSessionId: parent.sessionId, executionMode: ExecutionMode.ASYNC_CALLBACK };
    const childId = await create(runs, owing);
    // To look at it meanwhile would be work for the coordinator.
    await delay(UNSEEN_MS);
    const child = await ended(runs, childId);
    const { session } = await sessions.getSession({ sessionId: parent.sessionId });
    const resumed = await ended(runs, session?.lastRunId ?? "");
    if (resumed.callback?.childSessionIds[0] !== child.sessionId) throw new Error("the parent was not called back");
    // Spawns are measured between the callbacks, so that what disturbs the machine disturbs both.
    const spawned = await spawnMs();
    if (i < warmUp) continue;
    samples.callback.push(saidMs(resumed.result?.text) - saidMs(child.result?.text));
    samples.spawn.push(spawned);
  }
  link.abort();
  await runner.stop();
  await coordinator.stop();

  const [p50, p99, spawned] = [median(samples.callback), percentile(samples.callback, 0.99), median(samples.spawn)];
  return {
    figures: [
      {
        row: 5,
        what: "end of a child → parent's executor has read stdin",
        unit: "ms",
        median: p50,
        p99,
        raw: { what: "bare spawn to the same moment", value: spawned },
        target: { says: `median ≤ ${TARGET_MS} ms`, met: p50 <= TARGET_MS },
      },
    ],
    notes: [
      `row 5: ${callbacks} callbacks, one after the other; in each an executor ends, its report and the notification are ` +
        "committed, the parent's next run is offered, accepted and spawned; the clock is that of the two executors",
    ],
  };
}

async function create(runs: Client<typeof RunService>, request: object): Promise<string> {
  return (await runs.createRun({ prompt: "hello", ...request })).run?.runId ?? "";
}

/** Follows a run to its end. */
async function ended(runs: Client<typeof RunService>, runId: string): Promise<Run> {
  for await (const _ of runs.watchRun({ runId })) continue;
  const { run } = await runs.getRun({ runId });
  if (run?.result === undefined) throw new Error(`${runId} gave no result: ${run?.message}`);
  return run;
}

/** Milliseconds from the call of spawn to what the executor says. */
async function spawnMs(): Promise<number> {
  const began = performance.timeOrigin + performance.now();
  const child = spawn(EXECUTOR, { stdio: ["pipe", "pipe", "inherit"] });
  child.stdin.end(sampleInvocation());
  const { text: said } = JSON.parse(await text(child.stdout)) as { text: string };
  return saidMs(said) - began;
}

/** Epoch milliseconds of what the executor said. */
function saidMs(said: string | undefined): number {
  // Where numbers are written with a comma, bash does so too.
  const ms = Number(said?.replace(",", ".")) * 1000;
  if (said === undefined || said === "" || Number.isNaN(ms))
    throw new Error("bash 5 is needed for this row: no EPOCHREALTIME");
  return ms;
}
