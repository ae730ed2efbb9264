import { randomInt, randomUUID } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterEach, expect, test } from "vitest";
import { freePort } from "../support/free-port.ts";
import { connect } from "../../client/connect.ts";
import type { CoordinatorClient } from "../../client/connect.ts";
import { OnLost_Policy, RunState } from "../../gen/agentrunner/v1/run_pb.ts";
import { processesMarked } from "../../runner/execution/processes.ts";
import { Random } from "../support/random.ts";
import { until } from "../support/until.ts";
import { Follower } from "./follower.ts";
import { faultsOfStore, Ledger } from "./ledger.ts";
import { FAULTS, World } from "./world.ts";
import type { Fault } from "./world.ts";

const MINUTES = Number(process.env["SOAK_MINUTES"] ?? 20);
const SEED = Number(process.env["SOAK_SEED"] ?? randomInt(2 ** 31));
const CREATORS = 2;
const OPEN = [RunState.PENDING, RunState.OFFERED, RunState.CLAIMED, RunState.RUNNING, RunState.STOPPING];

let world: World | undefined;
let dir = "";

afterEach(async ({ task }) => {
  await world?.end("SIGKILL");
  if (task.result?.state !== "pass") {
    process.stderr.write(`seed ${SEED} (SOAK_SEED); the files are kept in ${dir}\n`);
    return;
  }
  world?.unmount();
  rmSync(dir, { recursive: true, force: true });
});

test(`no promise is broken in ${MINUTES} minutes of everything at once`, async () => {
  dir = mkdtempSync(join(tmpdir(), "soak-"));
  say(`seed ${SEED} (SOAK_SEED), ${MINUTES} minutes (SOAK_MINUTES), files in ${dir}`);
  const random = new Random(SEED);
  world = await World.start(dir, await freePort());
  if (world.noDisks !== undefined) say(`no disk is filled: ${world.noDisks}`);
  const client = connect(world.url);
  const ledger = new Ledger(dir);
  const stop = new AbortController();
  const followers: Follower[] = [];
  const working = Array.from({ length: CREATORS }, () =>
    create(client, ledger, followers, new Random(random.int(0, 2 ** 31)), stop.signal),
  );
  try {
    await sufferAll(world, random, performance.now() + MINUTES * 60_000);
  } finally {
    stop.abort();
  }
  await Promise.all(working);
  await world.ready();
  await until(async () => (await open(client)) === 0, "every run has ended", 600_000);
  await Promise.all(followers.map(({ ended }) => ended));

  const found = await ledger.violations(client);
  for (const follower of followers) found.push(...(await follower.violations(client)));
  client.close();
  await world.end("SIGTERM");
  found.push(...faultsOfStore(world.storePath));
  say(ledger.summary(followers.length));
  expect(found).toEqual([]);
  await until(() => executorsLeft().length === 0, "no executor process is left");
});

/** Every kind of fault in a random order, again and again, until it is time. */
async function sufferAll(within: World, random: Random, untilMs: number): Promise<void> {
  let left: Fault[] = [];
  const start = performance.now();
  while (performance.now() < untilMs) {
    if (left.length === 0) left = [...FAULTS];
    const [fault] = left.splice(random.int(0, left.length - 1), 1);
    if (fault === undefined) continue;
    const happened = await within.suffer(fault, random);
    say(`${((performance.now() - start) / 60_000).toFixed(1)} min: ${happened}`);
    expect(within.revive(), "programs that ended by themselves").toEqual([]);
    await within.ready();
    await delay(random.int(500, 6_000));
  }
}

/** Creates runs until it is stopped; follows some of them. Each request is repeated until it is answered. */
async function create(
  client: CoordinatorClient,
  ledger: Ledger,
  followers: Follower[],
  random: Random,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    const lines = random.pick([1, 1, 20, 20, 200, 200, 2_000, 2_000, 20_000]);
    const work = random.pick(["0", "0", "0.1", "0.5", "2"]);
    const policy = random.pick([OnLost_Policy.FAIL, OnLost_Policy.RETRY, OnLost_Policy.RESUME]);
    const prompt = `${lines} ${work}`;
    const request = { requestId: randomUUID(), prompt, onLost: { policy, maxAttempts: 3, resumePrompt: prompt } };
    const run = await until(() => answered(client, request), "CreateRun is answered", 300_000);
    ledger.acknowledged(run.runId, request.requestId, lines);
    if (random.int(0, 9) === 0) followers.push(new Follower(client, run.runId));
    await delay(random.int(50, 900));
  }
}

async function answered(client: CoordinatorClient, request: Parameters<CoordinatorClient["runs"]["createRun"]>[0]) {
  try {
    return (await client.runs.createRun(request, { timeoutMs: 5_000 })).run;
  } catch {
    return undefined;
  }
}

async function open(client: CoordinatorClient): Promise<number> {
  return (await client.runs.listRuns({ states: OPEN })).runs.length;
}

function executorsLeft(): number[] {
  return processesMarked([`SOAK_DIR=${dir}`]).filter((pid) => pid !== process.pid);
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}
