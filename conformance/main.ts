import "../lib/require-node.ts";
import { randomUUID } from "node:crypto";
import { parseArgs } from "node:util";
import type { JsonObject } from "@bufbuild/protobuf";
import { loadRoster, rosterDirs } from "../executors/lib/roster/load-roster.ts";
import { UsageError } from "../lib/config/config.ts";
import { fileErrorText, isFileError } from "../lib/config/file-problem.ts";
import { endProcess } from "../lib/end-process.ts";
import { EXIT } from "../lib/exit-codes.ts";
import { createLogger } from "../lib/log.ts";
import { onEndSignals } from "../lib/signals.ts";
import { startLeash } from "../runner/execution/leash.ts";
import { Bench } from "./bench.ts";
import { check, LIMITS } from "./check.ts";
import { startModelStub } from "./model-stub/server.ts";
import { startFakeOrchestrator } from "./orchestrator.ts";
import { isOk, POINTS } from "./points.ts";
import type { PointName, PointReport } from "./points.ts";
import { agentsDirOf, targetOf } from "./target.ts";
import type { Target } from "./target.ts";
import { makeWorkspace } from "./workspace.ts";

/*
 * What `ao executors check` asks. It prints JSON, a document a line: {"type":"target"}, a {"type":"point"} as soon as it was looked
 * at, and at last {"type":"end"}. `ao` makes of it what people read.
 */

await endProcess(await main(process.argv.slice(2)));

async function main(argv: readonly string[]): Promise<number> {
  try {
    const { positionals, values } = parse(argv);
    return await checkTarget(positionals[0], values);
  } catch (error) {
    if (error instanceof UsageError) return complain(error.message, EXIT.usage);
    if (isFileError(error)) return complain(fileErrorText(error), EXIT.usage);
    return complain(error instanceof Error ? (error.stack ?? error.message) : String(error), EXIT.bug);
  }
}

type Values = ReturnType<typeof parse>["values"];

function parse(argv: readonly string[]) {
  return parseArgs({
    args: [...argv],
    allowPositionals: true,
    options: {
      profile: { type: "string" },
      "executors-dir": { type: "string", multiple: true, default: [] },
      "project-dir": { type: "string", default: process.cwd() },
      "pass-env": { type: "string", multiple: true, default: [] },
      config: { type: "string", default: "{}" },
      point: { type: "string", multiple: true, default: [] },
      "run-ms": { type: "string", default: String(LIMITS.runMs) },
      "total-ms": { type: "string", default: String(LIMITS.totalMs) },
    },
  });
}

async function checkTarget(operand: string | undefined, values: Values): Promise<number> {
  const target = targetOf({
    operand,
    profile: values.profile,
    executorsDirs: values["executors-dir"],
    projectDir: values["project-dir"],
    config: JSON.parse(values.config) as JsonObject,
    passEnv: values["pass-env"],
    roster: loadRoster(rosterDirs(process.env)),
    env: process.env,
  });
  const only = values.point.map(pointNamed);
  say({ type: "target", name: target.name, path: target.command, agent: target.entry?.name ?? "" });
  const limits = { ...LIMITS, runMs: Number(values["run-ms"]), totalMs: Number(values["total-ms"]) };
  const reports: PointReport[] = [];
  for await (const report of checked(target, only, limits)) {
    reports.push(report);
    say({ type: "point", ...report });
  }
  say({ type: "end", ok: isOk(reports) });
  return isOk(reports) ? EXIT.ok : EXIT.failed;
}

function pointNamed(name: string): PointName {
  const point = POINTS.find((point) => point.name === name);
  if (point === undefined)
    throw new UsageError(`no point is named "${name}"; there are ${POINTS.map(({ name }) => name).join(", ")}`);
  return point.name;
}

/** Everything that a check needs, made and ended around it. */
async function* checked(
  target: Target,
  only: readonly PointName[],
  limits: typeof LIMITS,
): AsyncGenerator<PointReport> {
  const bootId = `check_${randomUUID()}`;
  const log = createLogger({ name: "ao-executors-check", level: "warn", format: "auto" });
  const leash = startLeash(bootId, { log });
  const [stub, orchestrator] = await Promise.all([startModelStub(), startFakeOrchestrator()]);
  const workspace = makeWorkspace(rosterDirs(process.env).userDir);
  const agentsDir = agentsDirOf(process.env);
  const bench = new Bench(target, { stub, orchestrator, workspace, leash, bootId, env: process.env, agentsDir });
  const ending = new AbortController();
  const forget = onEndSignals(() => {
    ending.abort();
    bench.stop();
  });
  try {
    yield* check({
      declaration: target.declaration,
      isAgent: target.entry !== undefined,
      lacks: target.entry?.lacks ?? {},
      only,
      limits,
      bench,
      orchestrator,
      workspace,
      signal: ending.signal,
    });
  } finally {
    forget();
    await bench.close();
    await Promise.all([stub.close(), orchestrator.close(), leash.close()]);
    workspace.remove();
  }
}

function say(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

function complain(message: string, exitCode: number): number {
  process.stderr.write(`error: ${message}\n`);
  return exitCode;
}
