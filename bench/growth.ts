import { statSync } from "node:fs";
import { parseArgs } from "node:util";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { FleetService } from "../gen/agentrunner/v1/fleet_service_pb.ts";
import { RunState } from "../gen/agentrunner/v1/run_pb.ts";
import { EXIT } from "../lib/exit-codes.ts";
import { RunService } from "../gen/agentrunner/v1/run_service_pb.ts";
import { SessionStatus } from "../gen/agentrunner/v1/session_pb.ts";
import { SessionService } from "../gen/agentrunner/v1/session_service_pb.ts";
import { connectTransport } from "../lib/rpc/transport.ts";
import { BareRunner } from "./bare-runner.ts";
import { Workshop } from "./children.ts";
import type { CoordinatorProcess } from "./children.ts";
import { fillStore } from "./growth-store.ts";
import type { Filling } from "./growth-store.ts";
import { LoopProbe } from "./loop-probe.ts";
import { formatTable, median } from "./stats.ts";

const USAGE = `Usage: npm run bench:growth -- [--finished N] [--pending N] [--turns N]

  What each call costs in an empty store, in one with pending runs that nobody takes (--pending, 100000), and in one with as
  many and finished runs (--finished, 1000000), of which --turns (100000) are those of one session. For each call the median
  and, in brackets, the shortest; and the longest time in which the coordinator did not answer a Health.Check beside it. Fills a file of about 1.3 KB a run beside the installed packages.
`;

/** Calls of which the median is taken. */
const CALLS = 20;

process.exit(await main());

async function main(): Promise<number> {
  const options = readOptions();
  if (options === undefined) {
    process.stderr.write(USAGE);
    return EXIT.usage;
  }
  const { finished, pending, turns } = options;
  const sizes: Filling[] = [
    { finished: 0, pending: 0, turns: 0 },
    { finished: 0, pending, turns: 0 },
    { finished, pending, turns: Math.min(turns, finished) },
  ];
  const workshop = new Workshop();
  const columns: Map<string, Cell>[] = [];
  for (const size of sizes) columns.push(await measure(workshop, size));
  const head = ["what", "empty", `${pending} pending`, `${finished} finished + ${pending} pending`];
  const names = [...(columns.at(-1)?.keys() ?? [])];
  const rows = names.map((name) => [name, ...columns.map((column) => text(column.get(name)))]);
  process.stdout.write(`${formatTable(head, rows)}\n`);
  return EXIT.ok;
}

function readOptions(): { finished: number; pending: number; turns: number } | undefined {
  const number = (fallback: number) => ({ type: "string" as const, default: String(fallback) });
  try {
    const { values } = parseArgs({
      options: { finished: number(1_000_000), pending: number(100_000), turns: number(100_000) },
    });
    const [finished, pending, turns] = [Number(values.finished), Number(values.pending), Number(values.turns)];
    return [finished, pending, turns].every(Number.isSafeInteger) ? { finished, pending, turns } : undefined;
  } catch {
    // An unknown option: the usage says what there is.
    return undefined;
  }
}

interface Cell {
  /** The median; undefined where only the gap says something. */
  readonly ms: number | undefined;
  /** The shortest, which other programs on the machine change least. */
  readonly leastMs?: number;
  /** Longest time in which a Health.Check was not answered. */
  readonly gapMs: number | undefined;
}

function text(cell: Cell | undefined): string {
  if (cell === undefined) return "";
  const ms = cell.ms === undefined ? "" : `${cell.ms.toFixed(cell.ms < 10 ? 2 : 0)} ms`;
  const least = cell.leastMs === undefined ? "" : ` (${cell.leastMs.toFixed(2)})`;
  return cell.gapMs === undefined ? ms : `${ms}${least}${ms === "" ? "" : ", "}gap ${cell.gapMs.toFixed(0)}`;
}

async function measure(workshop: Workshop, size: Filling): Promise<Map<string, Cell>> {
  process.stderr.write(`${size.finished} finished, ${size.pending} pending: filling the store …\n`);
  const store = workshop.storePath();
  await fillStore(store, size);
  process.stderr.write(`  ${Math.round(statSync(store).size / 1024 / 1024)} MiB\n`);
  const start = performance.now();
  // Nothing is deleted for its age: the bench says when.
  const coordinator = await workshop.coordinator(store, [
    "--retain",
    "0",
    "--no-match-timeout",
    "0",
    "--restart-grace",
    "0",
  ]);
  const cells = new Map<string, Cell>([["start → listening", { ms: performance.now() - start, gapMs: undefined }]]);
  cells.set("processor time of the start", { ms: await coordinator.cpuMs(), gapMs: undefined });
  cells.set("processor time of a no-op run", { ms: await noOpRuns(coordinator), gapMs: undefined });
  const probe = await LoopProbe.start(coordinator.url);
  for (const [name, call] of calls(coordinator, size)) {
    process.stderr.write(`  ${name}\n`);
    const times: number[] = [];
    await probe.begin();
    const once = name.endsWith("(once)");
    for (let i = 0; i < (once ? 1 : CALLS); i += 1) {
      const began = performance.now();
      await call();
      times.push(performance.now() - began);
    }
    const gapMs = await probe.end();
    cells.set(name, once ? { ms: undefined, gapMs } : { ms: median(times), leastMs: Math.min(...times), gapMs });
  }
  probe.close();
  await coordinator.stop();
  return cells;
}

function calls(coordinator: CoordinatorProcess, size: Filling): Map<string, () => Promise<unknown>> {
  const { url } = coordinator;
  const link = connectTransport(url);
  const runs = createClient(RunService, link.transport);
  const sessions = createClient(SessionService, link.transport);
  const fleet = createClient(FleetService, link.transport);
  const nobody = { tags: ["nobody-has-this"] };
  let parent = "";
  const all = new Map<string, () => Promise<unknown>>([
    [
      "CreateRun",
      async () => (parent = (await runs.createRun({ prompt: "go", demands: nobody })).run?.sessionId ?? ""),
    ],
    ["CreateRun with parent", () => runs.createRun({ prompt: "go", demands: nobody, parentSessionId: parent })],
    ["GetSession", () => sessions.getSession({ sessionId: parent })],
    ["ListRuns", () => runs.listRuns({})],
    ["ListRuns of a rare state", () => runs.listRuns({ states: [RunState.STOPPED] })],
    ["ListRuns of a runner without runs", () => runs.listRuns({ runnerId: "lnch_none" })],
    ["ListSessions", () => sessions.listSessions({})],
    ["ListSessions of a rare status", () => sessions.listSessions({ statuses: [SessionStatus.STOPPED] })],
    ["ListRunners", () => fleet.listRunners({})],
    ["/metrics", () => coordinator.metrics()],
    ["StopRun of a tree", async () => stopTree(url)],
    ["DeleteSession", async () => deleteOne(url)],
    ["PruneRuns, dry (once)", () => runs.pruneRuns({ dryRun: true, olderThan: durationFromMs(0) })],
  ]);
  if (size.turns > 0) {
    const sessionName = "long";
    const id = async (): Promise<string> => (await sessions.getSession({ sessionName })).session?.sessionId ?? "";
    all.set("GetSessionResult of a long session", async () => sessions.getSessionResult({ sessionId: await id() }));
    all.set("ListSessionEvents of a run in a long session", async () => {
      const [run] = (await runs.listRuns({ sessionId: await id(), pageSize: 1 })).runs;
      return sessions.listSessionEvents({ sessionId: await id(), runId: run?.runId ?? "" });
    });
    all.set("DeleteSession of a long session (once)", async () => sessions.deleteSession({ sessionId: await id() }));
    all.set("10 s of the rest of it (once)", () => new Promise((resolve) => setTimeout(resolve, 10_000)));
    all.set("10 s of PruneRuns (once)", () =>
      runs.pruneRuns({ olderThan: durationFromMs(0) }, { timeoutMs: 10_000 }).catch(() => undefined),
    );
  }
  return all;
}

async function stopTree(url: string): Promise<void> {
  const link = connectTransport(url);
  const runs = createClient(RunService, link.transport);
  const demands = { tags: ["nobody-has-this"] };
  const { run } = await runs.createRun({ prompt: "go", demands });
  await runs.createRun({ prompt: "go", demands, parentSessionId: run?.sessionId ?? "" });
  await runs.stopRun({ runId: run?.runId ?? "", cascade: true });
  link.abort();
}

async function deleteOne(url: string): Promise<void> {
  const link = connectTransport(url);
  const runs = createClient(RunService, link.transport);
  const { run } = await runs.createRun({ prompt: "go", demands: { tags: ["nobody-has-this"] } });
  await runs.stopRun({ runId: run?.runId ?? "" });
  await createClient(SessionService, link.transport).deleteSession({ sessionId: run?.sessionId ?? "" });
  link.abort();
}

/** Processor time of the coordinator for each of some runs that a bare runner accepts and completes at once. */
async function noOpRuns(coordinator: CoordinatorProcess): Promise<number> {
  const runs = 200;
  const runner = await BareRunner.open(coordinator.url, "growth", 64);
  const link = connectTransport(coordinator.url);
  const client = createClient(RunService, link.transport);
  let ended = 0;
  const over = Promise.withResolvers<void>();
  runner.onOffer = (offer) => {
    void runner
      .accept(offer)
      .then(() => runner.complete(offer))
      .then(() => (++ended === runs ? over.resolve() : undefined), over.reject);
  };
  const before = await coordinator.cpuMs();
  for (let i = 0; i < runs; i += 1) await client.createRun({ prompt: "hello" });
  await over.promise;
  const spent = (await coordinator.cpuMs()) - before;
  link.abort();
  runner.close();
  return spent / runs;
}
