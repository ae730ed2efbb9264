import { randomInt, randomUUID } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { create } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import type { Client } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { afterEach, expect, test } from "vitest";
import { OnLost_Policy, RunState } from "../../gen/agentrunner/v1/run_pb.ts";
import { CreateRunRequestSchema, RunService } from "../../gen/agentrunner/v1/run_service_pb.ts";
import { SessionService } from "../../gen/agentrunner/v1/session_service_pb.ts";
import { readFileIfThere } from "../../lib/config/read-file.ts";
import { BOOT_VARIABLE } from "../../lib/boot-variable.ts";
import { processesMarked } from "../../runner/execution/processes.ts";
import { Cluster } from "../support/cluster.ts";
import type { Program } from "../support/cluster.ts";
import { fixture } from "../support/executors.ts";
import { violations } from "../support/history.ts";
import type { RunHistory } from "../support/history.ts";
import { Random } from "../support/random.ts";
import { until } from "../support/until.ts";

const KILLS = Number(process.env["CHAOS"] ?? 50);
const SEED = Number(process.env["CHAOS_SEED"] ?? randomInt(2 ** 31));
const RUNNERS = 2;
const CREATORS = 4;

const STATE_NAMES = new Map<number, string>(Object.entries(RunState).map(([name, state]) => [state, name]));

let cluster: Cluster | undefined;
let dir = "";

afterEach(async ({ task }) => {
  await cluster?.stop();
  if (task.result?.state === "pass") rmSync(dir, { recursive: true, force: true });
  else process.stderr.write(`seed ${SEED}; the files are kept in ${dir}\n`);
});

test(`no promise is broken by ${KILLS} kills of the coordinator and ${KILLS} of runners`, async () => {
  dir = mkdtempSync(join(tmpdir(), "chaos-"));
  process.stdout.write(`seed ${SEED} (CHAOS_SEED), ${KILLS} kills a side (CHAOS), files in ${dir}\n`);
  const random = new Random(SEED);
  const runner = { executorPath: fixture("writes-down"), maxRuns: 4 };
  cluster = await Cluster.start(
    dir,
    Array.from({ length: RUNNERS }, () => runner),
  );
  const creators = Array.from(
    { length: CREATORS },
    () => new Creator(cluster?.url ?? "", new Random(random.int(0, 2 ** 31))),
  );
  const creating = Promise.all(creators.map((creator) => creator.run()));
  const hits = await killAll(cluster, random);
  for (const creator of creators) creator.stop();
  await creating;
  const history = await settled(
    cluster.url,
    creators.flatMap(({ runIds }) => runIds),
  );
  report(history, hits);
  expect(violations(history)).toEqual([]);
  expect(hits, "some kills hit runs in flight").toBeGreaterThan(0);
  for (const runner of cluster.runners) await runner.end("SIGKILL");
  await until(() => marked().length === 0, "no executor process is left", 5000);
});

/**
 * Kills the coordinator and runners in a random order, at random moments, and starts again what was killed.
 * @returns how many kills there were while executors worked.
 */
async function killAll(within: Cluster, random: Random): Promise<number> {
  const { coordinator, runners } = within;
  let hits = 0;
  const left = [
    ...Array.from({ length: KILLS }, () => coordinator),
    ...Array.from({ length: KILLS }, () => random.pick(runners)),
  ];
  while (left.length > 0) {
    const [program] = left.splice(random.int(0, left.length - 1), 1) as [Program];
    await within.ready();
    await delay(random.int(50, 800));
    expect(program.running, "a program ended by itself").toBe(true);
    if (count("begun.log") > count("worked.log")) hits += 1;
    await program.end("SIGKILL");
    await delay(random.int(0, 200));
    program.start();
  }
  await within.ready();
  return hits;
}

function count(log: string): number {
  return lines(log).length;
}

function lines(log: string): string[] {
  return (readFileIfThere(join(dir, log)) ?? "").split("\n").filter((line) => line !== "");
}

/** Creates runs all the time, and remembers those that were acknowledged. */
class Creator {
  readonly runIds: string[] = [];
  readonly #client: Client<typeof RunService>;
  readonly #random: Random;
  #stopped = false;

  constructor(url: string, random: Random) {
    this.#client = createClient(RunService, createConnectTransport({ baseUrl: url, httpVersion: "1.1" }));
    this.#random = random;
  }

  stop(): void {
    this.#stopped = true;
  }

  async run(): Promise<void> {
    while (!this.#stopped) {
      const policy = this.#random.pick([OnLost_Policy.FAIL, OnLost_Policy.RETRY, OnLost_Policy.RESUME]);
      const request = create(CreateRunRequestSchema, {
        requestId: randomUUID(),
        prompt: this.#random.pick(["0", "0.05", "0.2", "0.6"]),
        onLost: { policy, maxAttempts: 3 },
      });
      // Repeated until it is answered: the request names itself, so it makes one run.
      const runId = await until(() => this.#create(request), "CreateRun is answered", 30_000);
      this.runIds.push(runId);
      await delay(this.#random.int(20, 200));
    }
  }

  async #create(request: Parameters<Client<typeof RunService>["createRun"]>[0]): Promise<string | undefined> {
    try {
      return (await this.#client.createRun(request, { timeoutMs: 2000 })).run?.runId;
    } catch {
      return undefined;
    }
  }
}

/** Waits until every run has ended, and reads what became of it. */
async function settled(url: string, runIds: readonly string[]): Promise<RunHistory[]> {
  const transport = createConnectTransport({ baseUrl: url, httpVersion: "1.1" });
  const runs = createClient(RunService, transport);
  const sessions = createClient(SessionService, transport);
  const open = [RunState.PENDING, RunState.OFFERED, RunState.CLAIMED, RunState.RUNNING, RunState.STOPPING];
  await until(async () => (await runs.listRuns({ states: open })).runs.length === 0, "every run has ended", 60_000);
  const begun = begunAttempts();
  const history: RunHistory[] = [];
  for (const runId of runIds) {
    const { run } = await runs.getRun({ runId });
    const { events } = await sessions.listSessionEvents({ sessionId: run?.sessionId ?? "", runId, pageSize: 1000 });
    const transitions = events.flatMap(({ event, attempt }) =>
      event.case === "transition" ? [{ state: STATE_NAMES.get(event.value.state) ?? "", attempt }] : [],
    );
    history.push({
      runId,
      transitions: transitions.map(({ state }) => state),
      attempts: transitions.map(({ attempt }) => attempt),
      state: run === undefined ? undefined : STATE_NAMES.get(run.state),
      begun: begun.get(runId) ?? [],
    });
  }
  return history;
}

function begunAttempts(): Map<string, number[]> {
  const begun = new Map<string, number[]>();
  for (const line of lines("begun.log")) {
    const [runId, attempt] = line.split(" ");
    if (runId === undefined || attempt === undefined) continue;
    begun.set(runId, [...(begun.get(runId) ?? []), Number(attempt)]);
  }
  return begun;
}

/** Executor processes of this test that live. */
function marked(): number[] {
  return processesMarked([`CHAOS_DIR=${dir}`]).filter((pid) => environ(pid).includes(`${BOOT_VARIABLE}=`));
}

function environ(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/environ`, "utf8");
  } catch {
    return "";
  }
}

function report(history: readonly RunHistory[], hits: number): void {
  const ended = (state: string): number => history.filter((run) => run.state === state).length;
  const again = history.filter((run) => (run.attempts.at(-1) ?? 0) > 1).length;
  process.stdout.write(
    `${2 * KILLS} kills, ${hits} of them while executors worked; ${history.length} runs acknowledged: ` +
      `${ended("COMPLETED")} completed, ${ended("FAILED")} failed as lost, ${ended("STOPPED")} stopped; ` +
      `${again} took more than one attempt\n`,
  );
}
