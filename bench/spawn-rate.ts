import { create } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import { ExecutorInvocationSchema } from "../gen/agentrunner/v1/executor_pb.ts";
import { RunService } from "../gen/agentrunner/v1/run_service_pb.ts";
import { newId } from "../lib/ids.ts";
import { invocationJson } from "../lib/invocation.ts";
import { connectTransport } from "../lib/rpc/transport.ts";
import { until } from "./children.ts";
import type { Child, CoordinatorProcess, Workshop } from "./children.ts";
import type { Measured } from "./figures.ts";
import { concurrently } from "./raw.ts";
import { median } from "./stats.ts";

const EXECUTOR = "/bin/cat";
const MAX_RUNS = 8;
const TARGET_SHARE = 0.6;

/**
 * Row 3: runs of a program that prints its stdin, through a coordinator and a runner of their own, beside the same program
 * spawned as often by a process that does nothing else. The two take turns, so that what disturbs the machine disturbs
 * both.
 */
export async function spawnRate(workshop: Workshop, quick: boolean): Promise<Measured> {
  const [runs, repetitions] = quick ? [200, 2] : [1000, 3];
  const coordinator = await workshop.coordinator();
  const runner = await workshop.runner(coordinator.url, EXECUTOR, MAX_RUNS);
  await execute(coordinator, Math.ceil(runs / 4));
  const { rssBytes } = await runner.memory();
  const samples = { ours: [] as number[], bare: [] as number[], small: [] as number[] };
  for (let i = 0; i < repetitions; i += 1) {
    samples.ours.push(await execute(coordinator, runs));
    samples.bare.push(await spawnBare(workshop, runs, rssBytes));
    samples.small.push(await spawnBare(workshop, runs, 0));
  }
  await runner.stop();
  await coordinator.stop();

  const [ours, bare, small] = [median(samples.ours), median(samples.bare), median(samples.small)];
  const what = `${EXECUTOR} runs, start to COMPLETED, ${MAX_RUNS} at a time`;
  const size = `${Math.round(rssBytes / 2 ** 20)} MiB`;
  return {
    figures: [
      {
        row: 3,
        what,
        unit: "/s",
        median: ours,
        raw: { what: `bare spawn from a process of the runner's ${size}`, value: bare },
        target: { says: `≥ ${TARGET_SHARE * 100} % of raw`, met: ours >= TARGET_SHARE * bare },
      },
      { row: 3, what, unit: "/s", median: ours, raw: { what: "bare spawn from a small process", value: small } },
    ],
    notes: [
      `row 3: ours ${list(samples.ours)} /s, bare ${list(samples.bare)}, bare and small ${list(samples.small)}; ` +
        "each with the same stdin, ours with coordinator, runner and client on the same processors",
    ],
  };
}

/** Runs a second, of so many. */
async function execute(coordinator: CoordinatorProcess, runs: number): Promise<number> {
  const link = connectTransport(coordinator.url);
  const client = createClient(RunService, link.transport);
  const ended = async (): Promise<number> =>
    (await coordinator.metrics()).get('agent_runs_ended_total{state="COMPLETED"}') ?? 0;
  const before = await ended();
  const start = performance.now();
  await concurrently(2 * MAX_RUNS, runs, () => client.createRun({ prompt: "hello" }));
  await until(async () => (await ended()) - before >= runs, `${runs} runs have ended`);
  const seconds = (performance.now() - start) / 1000;
  link.abort();
  return runs / seconds;
}

async function spawnBare(workshop: Workshop, count: number, rssBytes: number): Promise<number> {
  const helper: Child = workshop.helper();
  const order = { command: EXECUTOR, stdin: sampleInvocation(), count, concurrency: MAX_RUNS, rssBytes };
  const perSecond = await helper.ask<number>("spawnBare", order);
  await helper.stop();
  return perSecond;
}

/** What a run of this row has on its stdin. */
export function sampleInvocation(): string {
  const sessionId = newId("ses");
  return invocationJson(
    create(ExecutorInvocationSchema, {
      schemaVersion: "2.0",
      mode: "start",
      sessionId,
      sessionName: sessionId,
      prompt: "hello",
      projectDir: "/bench",
      runId: newId("run"),
      attempt: 1,
    }),
  );
}

function list(rates: readonly number[]): string {
  return rates.map(Math.round).join(", ");
}
