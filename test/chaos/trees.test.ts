import { randomInt, randomUUID } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { afterEach, expect, test } from "vitest";
import { ExecutionMode, FailureReason, OnLost_Policy, RunState } from "../../gen/agentrunner/v1/run_pb.ts";
import type { Run } from "../../gen/agentrunner/v1/run_pb.ts";
import { RunService } from "../../gen/agentrunner/v1/run_service_pb.ts";
import { Notification_State } from "../../gen/agentrunner/v1/session_pb.ts";
import { SessionService } from "../../gen/agentrunner/v1/session_service_pb.ts";
import { Cluster } from "../support/cluster.ts";
import type { Program } from "../support/cluster.ts";
import { nameOf } from "../support/coordinator.ts";
import { Random } from "../support/random.ts";
import { randomTree } from "../support/random-tree.ts";
import { treeViolations } from "../support/tree-history.ts";
import type { SessionHistory } from "../support/tree-history.ts";
import { until } from "../support/until.ts";
import { inRepository } from "../support/paths.ts";

const TREES = Number(process.env["TREES"] ?? 200);
const SEED = Number(process.env["TREES_SEED"] ?? randomInt(2 ** 31));
const AT_A_TIME = 6;
const SCRIPT_AGENT = inRepository("executors/script-agent/ao-script-agent-exec");
const RUNNER = { executorPath: SCRIPT_AGENT, maxRuns: 4 };
const RUNNERS = [
  { ...RUNNER, tags: ["alpha"] },
  { ...RUNNER, tags: ["beta"] },
  { ...RUNNER, tags: ["alpha", "beta"] },
];
const OPEN = [RunState.PENDING, RunState.OFFERED, RunState.CLAIMED, RunState.RUNNING, RunState.STOPPING];
const CALL_MS = 2000;

let cluster: Cluster | undefined;
let dir = "";

afterEach(async ({ task }) => {
  await cluster?.stop();
  if (task.result?.state === "pass") rmSync(dir, { recursive: true, force: true });
  else process.stderr.write(`seed ${SEED}; the files are kept in ${dir}\n`);
});

test(`every callback of ${TREES} trees of agents is delivered once, whatever is killed and stopped meanwhile`, async () => {
  dir = mkdtempSync(join(tmpdir(), "chaos-trees-"));
  process.stdout.write(`seed ${SEED} (TREES_SEED), ${TREES} trees (TREES), files in ${dir}\n`);
  const random = new Random(SEED);
  cluster = await Cluster.start(dir, RUNNERS);
  const forest = new Forest(cluster.url, new Random(random.int(0, 2 ** 31)));
  const began = performance.now();
  const kills = await killWhile(cluster, random, forest.grow());
  const seconds = (performance.now() - began) / 1000;
  const history = await forest.history();
  report(history, forest, kills, seconds);
  expect(treeViolations(history)).toEqual([]);
});

/** Kills the coordinator and runners at random moments, and starts them again, until `work` is done. Returns how often. */
async function killWhile({ coordinator, runners }: Cluster, random: Random, work: Promise<void>): Promise<number> {
  const over = new AbortController();
  const done = work.finally(() => over.abort());
  let kills = 0;
  while (!over.signal.aborted) {
    await Promise.race([delay(random.int(500, 2000)), done]);
    const program: Program = random.int(0, 3) === 0 ? coordinator : random.pick(runners);
    if (over.signal.aborted) break;
    expect(program.running, "a program ended by itself").toBe(true);
    await program.end("SIGKILL");
    await delay(random.int(0, 200));
    program.start();
    kills += 1;
  }
  await done;
  return kills;
}

/** Trees of agents that grow some at a time, and in which somebody stops a run now and then. */
class Forest {
  readonly stops: { readonly sessionId: string; readonly tree: boolean }[] = [];
  readonly #random: Random;
  readonly #runs;
  readonly #sessions;
  /** Root of every session that was seen at work. */
  readonly #roots = new Map<string, string>();
  #planted = 0;

  constructor(url: string, random: Random) {
    const transport = createConnectTransport({ baseUrl: url, httpVersion: "1.1" });
    this.#runs = createClient(RunService, transport);
    this.#sessions = createClient(SessionService, transport);
    this.#random = random;
  }

  /** Plants every tree, and waits until nothing of them is at work. */
  async grow(): Promise<void> {
    for (;;) {
      const open = await this.#open();
      const growing = new Set<string>();
      for (const { sessionId } of open) growing.add(await this.#rootOf(sessionId));
      if (growing.size === 0 && this.#planted === TREES) return;
      if (growing.size < AT_A_TIME && this.#planted < TREES) await this.#plant();
      else if (open.length > 0 && this.#random.int(0, 24) === 0) await this.#stop(this.#random.pick(open));
      else await delay(100);
    }
  }

  /** Repeated until it is answered: a killed coordinator comes back, and every call is safe to repeat. */
  #answered<T>(call: () => Promise<T>, what: string): Promise<T> {
    const once = () => call().catch(() => undefined);
    return until(once, `${what} is answered`, 30_000);
  }

  async #open(): Promise<Run[]> {
    const page = () => this.#runs.listRuns({ states: OPEN, pageSize: 1000 }, { timeoutMs: CALL_MS });
    return (await this.#answered(page, "ListRuns")).runs;
  }

  async #rootOf(sessionId: string): Promise<string> {
    const known = this.#roots.get(sessionId);
    if (known !== undefined) return known;
    const { parentSessionId } = await this.#session(sessionId);
    const root = parentSessionId === "" ? sessionId : await this.#rootOf(parentSessionId);
    this.#roots.set(sessionId, root);
    return root;
  }

  async #session(sessionId: string) {
    const get = () => this.#sessions.getSession({ sessionId }, { timeoutMs: CALL_MS });
    const { session } = await this.#answered(get, "GetSession");
    if (session === undefined) throw new Error(`no session ${sessionId}`);
    return session;
  }

  async #plant(): Promise<void> {
    const { FAIL, RETRY, RESUME } = OnLost_Policy;
    const onLost = { policy: this.#random.pick([FAIL, FAIL, RETRY, RESUME]), resumePrompt: '{"result":"went on"}' };
    const prompt = JSON.stringify(randomTree(this.#random, ["alpha", "beta"]));
    const request = { requestId: randomUUID(), sessionName: `tree-${this.#planted}`, prompt, onLost };
    const create = () => this.#runs.createRun(request, { timeoutMs: CALL_MS });
    const { run } = await this.#answered(create, "CreateRun");
    this.#roots.set(run?.sessionId ?? "", run?.sessionId ?? "");
    this.#planted += 1;
  }

  async #stop({ runId, sessionId }: Run): Promise<void> {
    const tree = this.#random.int(0, 2) === 0;
    this.stops.push({ sessionId, tree });
    await this.#answered(() => this.#runs.stopRun({ runId, cascade: tree }, { timeoutMs: CALL_MS }), "StopRun");
  }

  /** What became of every session of every tree. */
  async history(): Promise<SessionHistory[]> {
    const roots = new Set(this.#roots.values());
    const histories: SessionHistory[] = [];
    for (const root of roots) histories.push(...(await this.#below(root, false)));
    return histories;
  }

  async #below(sessionId: string, treeStopped: boolean): Promise<SessionHistory[]> {
    const session = await this.#session(sessionId);
    const list = () => this.#runs.listRuns({ sessionId, pageSize: 1000 }, { timeoutMs: CALL_MS });
    const runs = (await this.#answered(list, "ListRuns")).runs.toReversed();
    const stopped = treeStopped || this.stops.some((stop) => stop.tree && stop.sessionId === sessionId);
    const below = [];
    for (const child of session.childSessionIds) below.push(...(await this.#below(child, stopped)));
    const own: SessionHistory = {
      sessionId,
      parentSessionId: session.parentSessionId,
      runs: runs.map((run) => ({
        runId: run.runId,
        state: nameOf(RunState, run.state),
        failure: run.failure === FailureReason.UNSPECIFIED ? "" : nameOf(FailureReason, run.failure),
        started: run.startedAt !== undefined,
        delivers: run.callback?.childSessionIds ?? [],
      })),
      callbackOwed: session.callbackOwed,
      withCallback: runs.some(({ executionMode }) => executionMode === ExecutionMode.ASYNC_CALLBACK),
      treeStopped,
      notifications: session.notifications.map(({ childSessionId, childRunId, state, runId, deliveries }) => ({
        childSessionId,
        childRunId,
        state: nameOf(Notification_State, state),
        runId,
        deliveries,
      })),
    };
    return [own, ...below];
  }
}

function report(history: readonly SessionHistory[], { stops }: Forest, kills: number, seconds: number): void {
  const runs = history.flatMap((session) => session.runs);
  const told = history.flatMap((session) => session.notifications);
  const ended = (state: string): number => runs.filter((run) => run.state === state).length;
  const inState = (state: string): number => told.filter((one) => one.state === state).length;
  process.stdout.write(
    `${TREES} trees in ${Math.round(seconds)} s: ${history.length} sessions, ${runs.length} runs ` +
      `(${(runs.length / TREES).toFixed(1)} a tree); ${ended("COMPLETED")} completed, ${ended("FAILED")} failed, of them ` +
      `${runs.filter(({ failure }) => failure === "LOST").length} lost, ${ended("STOPPED")} stopped; ` +
      `${kills} kills, ${stops.length} stops, ${stops.filter(({ tree }) => tree).length} of them of a tree; ` +
      `${told.length} callbacks: ${inState("CONSUMED")} consumed, ${inState("WAITING")} wait for a person, ` +
      `${inState("GIVEN_UP")} given up; ${told.filter(({ deliveries }) => deliveries > 1).length} delivered again\n`,
  );
}
