import { InvalidArgumentError, Option } from "commander";
import type { Command } from "commander";
import { resolve } from "node:path";
import { parseDurationMs } from "../../lib/config/kinds.ts";
import { EXIT } from "../../lib/exit-codes.ts";
import type { Cli, Outcome, Verbs } from "../cli.ts";
import { total } from "../text/table.ts";
import { checkExecutor } from "../conformance.ts";
import type { PointReport } from "../conformance.ts";
import { usage } from "../errors.ts";
import { EXIT_INTERRUPTED } from "../follow/follow.ts";
import { collect } from "../options.ts";
import { executorRows, executorTable, pointText, totals } from "../text/executors.ts";
import type { ExecutorRow } from "../text/executors.ts";
import { listExecutors } from "../programs.ts";
import { inPackage } from "../../lib/package-root.ts";
import { clean } from "../text/format.ts";
import { init, LANGUAGES } from "./executors-init.ts";
import type { InitOptions } from "./executors-init.ts";

interface PlaceOptions {
  readonly executorsDir?: string[];
}

interface CheckOptions extends PlaceOptions {
  readonly profile?: string;
  readonly projectDir?: string;
  readonly config?: string;
  readonly passEnv?: string[];
  readonly point?: string[];
  readonly timeout?: number;
}

/** `ao executors`: ls, check, init. They ask no coordinator. */
export function addExecutors(ao: Command, verbs: Verbs): void {
  const executors = ao.command("executors").description("list, check and begin executors");
  executors
    .command("ls", { isDefault: true })
    .description("the executors and agents of this machine")
    .option("--executors-dir <dir>", "folder with more executors; repeat for more", collect)
    .addHelpText("after", "\nExample:\n  ao executors ls --executors-dir executors")
    .action(verbs.action((cli, options: PlaceOptions) => list(cli, options)));
  executors
    .command("check")
    .description("hold an executor against its contract, point by point; exit 1 when it fails one")
    .argument("[name]", "executor, agent, or the path of a program")
    .option("--profile <name>", "executor profile to check instead")
    .option("--executors-dir <dir>", "folder with more executors; repeat for more", collect)
    .option("--project-dir <dir>", "directory whose profiles are meant (default: the current one)")
    .option("--config <json>", "executor_config for its runs, over that of the profile")
    .option("--pass-env <name>", "variable that it gets beside the usual ones; repeat for more", collect)
    .option("--point <name>", "only this point; repeat for more", collect)
    .option("--timeout <time>", "longest time of one of its runs (default: 60s)", durationMs)
    .addHelpText(
      "after",
      "\nExamples:\n  ao executors check test-executor\n  ao executors check executors/mine/ao-mine-exec",
    )
    .action(verbs.action((cli, name: string | undefined, options: CheckOptions) => check(cli, name, options)));
  executors
    .command("init <name>")
    .description("write an executor that works, to begin with")
    .addOption(new Option("-l, --language <language>", "what it is written in").choices(LANGUAGES).default("bash"))
    .option("--dir <dir>", "folder of executors that it is put into", "executors")
    .addHelpText("after", "\nExample:\n  ao executors init my-agent --language python")
    .action(verbs.action((cli, name: string, options: InitOptions) => init(cli, name, options)));
}

async function list(cli: Cli, { executorsDir = [] }: PlaceOptions): Outcome {
  const flags = executorsDir.flatMap((dir) => ["--executors-dir", resolve(dir)]);
  const found = await listExecutors(flags, cli.io.env);
  const executors = executorRows(found, inPackage("executors"));
  for (const { message } of found.problems) cli.say(`not used: ${clean(message)}`);
  switch (cli.options.output) {
    case "json":
      return cli.printJson({ executors, problems: found.problems });
    case "jsonl":
      return executors.forEach((executor) => cli.printJson(executor));
    case "name":
      return executors.forEach(({ name }) => cli.print(clean(name)));
    default:
      cli.print(executorTable(executors, cli.paint, cli.columns));
      sayInstalls(cli, executors);
  }
}

function sayInstalls(cli: Cli, executors: readonly ExecutorRow[]): void {
  const missing = executors.filter(({ installed }) => !installed);
  if (cli.options.verbose) for (const { name, install } of missing) cli.say(`${clean(name)}: ${clean(install)}`);
  else if (missing.length > 0)
    cli.say(`${total(missing.length, "agent")} not installed; \`ao executors ls -v\` says how to`);
}

async function check(cli: Cli, name: string | undefined, options: CheckOptions): Outcome {
  if ((name === undefined) === (options.profile === undefined))
    throw usage("name an executor, or a profile with --profile", "`ao executors ls` lists the executors");
  const left = new AbortController();
  const undo = cli.io.onInterrupt(() => left.abort());
  const { output } = cli.options;
  const points: PointReport[] = [];
  let facts = { executor: name ?? options.profile ?? "", path: "", agent: "" };
  try {
    for await (const said of checkExecutor(checkArgs(name, options), cli.io.env, left.signal)) {
      if (said.type === "target") {
        facts = { executor: said.name, path: said.path, agent: said.agent };
        if (output === "text") cli.say(`checking ${clean(said.path)}`);
      } else if (said.type === "point") {
        const { type: _, ...point } = said;
        points.push(point);
        if (output === "text") cli.print(pointText(point, cli.paint, cli.columns));
        else if (output === "jsonl") cli.printJson(point);
        else if (output === "name" && point.status === "fail") cli.print(point.name);
      }
    }
  } finally {
    undo();
  }
  if (left.signal.aborted) return EXIT_INTERRUPTED;
  const ok = points.every(({ status, known }) => status !== "fail" || known !== "");
  if (output === "json") cli.printJson({ ok, ...facts, points });
  cli.say(totals(points));
  return ok ? EXIT.ok : EXIT.failed;
}

function checkArgs(name: string | undefined, options: CheckOptions): string[] {
  const { profile, projectDir, config, passEnv = [], point = [], timeout } = options;
  const one = (flag: string, value: string | undefined): string[] =>
    value === undefined ? [] : [`--${flag}=${value}`];
  return [
    ...places(options),
    ...one("profile", profile),
    ...one("project-dir", resolve(projectDir ?? ".")),
    ...one("config", config === undefined ? undefined : configJson(config)),
    ...passEnv.map((one) => `--pass-env=${one}`),
    ...point.map((one) => `--point=${one}`),
    ...one("run-ms", timeout === undefined ? undefined : String(timeout)),
    ...(name === undefined ? [] : ["--", name]),
  ];
}

function places({ executorsDir = [] }: PlaceOptions): string[] {
  return executorsDir.map((dir) => `--executors-dir=${resolve(dir)}`);
}

function configJson(text: string): string {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return text;
  } catch {
    // Told of below, in the same words.
  }
  throw usage(`--config must be a JSON object, not ${text.slice(0, 60)}`);
}

function durationMs(text: string): number {
  const ms = parseDurationMs(text);
  if (ms === undefined || ms === 0) throw new InvalidArgumentError("it must be a duration such as 30s or 5m.");
  return ms;
}
