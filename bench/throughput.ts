import { mkdtempSync } from "node:fs";
import { subscribe } from "node:diagnostics_channel";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import { FailureReason, ExitSchema } from "../gen/agentrunner/v1/run_pb.ts";
import { RunService } from "../gen/agentrunner/v1/run_service_pb.ts";
import { Report_Kind } from "../gen/agentrunner/v1/runner_service_pb.ts";
import { createLogger } from "../lib/log.ts";
import { connectTransport } from "../lib/rpc/transport.ts";
import type { Execute } from "../runner/execution/execute.ts";
import { startRunner } from "../runner/runner.ts";
import type { RunningRunner } from "../runner/runner.ts";
import { until } from "./children.ts";
import type { CoordinatorProcess, Workshop } from "./children.ts";
import type { Figure, Measured } from "./figures.ts";
import { BareTable, concurrently, EmptyCalls } from "./raw.ts";
import { bucketBound, median } from "./stats.ts";

/** CreateRun calls under way at a time. */
const CALLS = 64;
/** Runs that all runners together may hold. */
const SLOTS = 512;
/**
 * Rows that a no-op run writes, from its creation to its end: of sessions 2, runs 6, run_specs 1, events 4, attempts 7,
 * run_results 1.
 */
const ROWS_PER_RUN = 21;
const TARGET_PER_SECOND = 2000;

/** Row 2: how many runs that do nothing go from CreateRun to COMPLETED in a second. */
export async function throughput(workshop: Workshop, quick: boolean): Promise<Measured> {
  const one = await withRunners(workshop, 1, quick);
  const eight = await withRunners(workshop, 8, quick);
  return {
    figures: [one.figure, eight.figure],
    notes: [
      `row 2: the client and the runners share one process, the coordinator has its own; a runner is the real one with its ` +
        `state on disk, but for the executor, which ends at once; ${CALLS} CreateRun under way`,
      one.note,
      eight.note,
    ],
  };
}

/** One measurement of so many runs. */
interface Sample {
  readonly perSecond: number;
  readonly callsPerRun: number;
  readonly commitsPerRun: number;
  readonly commitP99Ms: number;
  /** Processor time of the coordinator, which other programs on the machine change less than the rate. */
  readonly cpuMsPerRun: number;
}

async function withRunners(
  workshop: Workshop,
  count: number,
  quick: boolean,
): Promise<{ figure: Figure; note: string }> {
  const [runs, repetitions] = quick ? [1000, 2] : [6000, 3];
  const coordinator = await workshop.coordinator();
  const fleet = await Promise.all(
    Array.from({ length: count }, (_, i) => startNoOpRunner(workshop, coordinator.url, `runner-${i}`, SLOTS / count)),
  );
  await until(async () => (await coordinator.metrics()).get("agent_runner_streams") === count, "every runner is there");
  await drive(coordinator, Math.ceil(runs / 4));
  const samples: Sample[] = [];
  for (let i = 0; i < repetitions; i += 1) samples.push(await drive(coordinator, runs));
  const of = (value: (sample: Sample) => number): number => median(samples.map(value));
  const perSecond = of((sample) => sample.perSecond);
  const callsPerRun = of((sample) => sample.callsPerRun);
  const commitsPerRun = of((sample) => sample.commitsPerRun);

  const empty = new EmptyCalls(coordinator.url);
  const callsPerSecond = await empty.perSecond(CALLS, quick ? 3000 : 20_000);
  empty.close();
  for (const runner of fleet) runner.drain("the bench is over");
  await Promise.all(fleet.map(({ done }) => done));
  await coordinator.stop();
  const byCalls = callsPerSecond / callsPerRun;
  const byCommits = bareRunsPerSecond(workshop, `row-2-${count}`, commitsPerRun);

  return {
    figure: {
      row: 2,
      what: `durable no-op runs, ${count} ${count === 1 ? "runner" : "runners"}`,
      unit: "/s",
      median: perSecond,
      raw: {
        what: byCalls < byCommits ? "empty calls by our calls per run" : "bare commits of as many rows",
        value: Math.min(byCalls, byCommits),
      },
      target: { says: `≥ ${TARGET_PER_SECOND} /s`, met: perSecond >= TARGET_PER_SECOND },
    },
    note:
      `row 2, ${count}: ${samples.map((sample) => Math.round(sample.perSecond)).join(", ")} /s; ` +
      `${callsPerRun.toFixed(2)} calls and ${commitsPerRun.toFixed(3)} commits a run, commit p99 ≤ ` +
      `${of((sample) => sample.commitP99Ms)} ms, coordinator ${of((sample) => sample.cpuMsPerRun).toFixed(3)} ms of processor ` +
      `a run; limits: ${Math.round(byCalls)} /s by ${Math.round(callsPerSecond)} empty ` +
      `calls/s, ${Math.round(byCommits)} /s by bare commits of ${Math.round(ROWS_PER_RUN / commitsPerRun)} rows`,
  };
}

/** Creates so many runs and waits until all have ended. */
async function drive(coordinator: CoordinatorProcess, runs: number): Promise<Sample> {
  const link = connectTransport(coordinator.url);
  const client = createClient(RunService, link.transport);
  const before = await coordinator.metrics();
  const cpuBefore = await coordinator.cpuMs();
  const callsBefore = calls;
  const start = performance.now();
  await concurrently(CALLS, runs, () => client.createRun({ prompt: "hello" }));
  const ended = (metrics: ReadonlyMap<string, number>): number =>
    metrics.get('agent_runs_ended_total{state="COMPLETED"}') ?? 0;
  await until(async () => ended(await coordinator.metrics()) - ended(before) >= runs, `${runs} runs have ended`);
  const seconds = (performance.now() - start) / 1000;
  const after = await coordinator.metrics();
  const cpuAfter = await coordinator.cpuMs();
  link.abort();
  const grown = (name: string): number => (after.get(name) ?? 0) - (before.get(name) ?? 0);
  return {
    perSecond: runs / seconds,
    callsPerRun: (calls - callsBefore) / runs,
    commitsPerRun: grown("agent_store_commit_seconds_count") / runs,
    commitP99Ms: bucketBound(before, after, "agent_store_commit_seconds", 0.99) * 1000,
    cpuMsPerRun: (cpuAfter - cpuBefore) / runs,
  };
}

/** HTTP/2 requests that this process has made: every call of the client and of the runners. */
let calls = 0;
subscribe("http2.client.stream.start", () => {
  calls += 1;
});

function startNoOpRunner(
  workshop: Workshop,
  coordinatorUrl: string,
  name: string,
  maxRuns: number,
): Promise<RunningRunner> {
  const settings = {
    coordinatorUrl,
    tlsCaPem: undefined,
    hostname: "bench",
    fixedHostname: false,
    projectDir: workshop.dir,
    executorProfile: "no-op",
    executor: { type: "no-op", command: "/no-op", config: {}, portable: false, passEnv: [], maskEnv: [] },
    tags: [],
    requireMatchingTags: false,
    maxRuns,
    name,
    stateDir: mkdtempSync(join(workshop.dir, "runner-")),
    pollTimeoutMs: 30_000,
    heartbeatIntervalMs: 60_000,
    drainTimeoutMs: 0,
    mcp: { type: "own" as const, port: 0 },
    once: false,
  };
  const log = createLogger({ name, level: "silent", format: "json" });
  return startRunner(settings, { log, executor: () => doNothing });
}

/** Reports what a program that exits 0 at once and prints nothing would. */
const doNothing: Execute = (_assignment, hooks) => {
  const done = new Promise<void>((resolve) => {
    setImmediate(() => {
      hooks.onStarted(process.pid);
      resolve();
    });
  }).then(() => ({
    kind: Report_Kind.COMPLETED,
    failure: FailureReason.UNSPECIFIED,
    message: "",
    exit: create(ExitSchema, { code: 0 }),
    result: undefined,
    executorSessionId: "",
    outputBytes: 0,
    malformedEvents: 0,
    malformedReason: "",
  }));
  return { pid: process.pid, done, stop: () => undefined };
};

/** Runs a second that a bare table takes, in as many commits and rows per run. */
function bareRunsPerSecond({ dir }: Workshop, name: string, commitsPerRun: number): number {
  const table = new BareTable(dir, name);
  const rows = Math.max(1, Math.round(ROWS_PER_RUN / commitsPerRun));
  const commitMs = median(Array.from({ length: 300 }, () => table.commitMs(rows)));
  table.close();
  return 1000 / (commitMs * commitsPerRun);
}
