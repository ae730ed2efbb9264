import { timestampDate } from "@bufbuild/protobuf/wkt";
import type { Duration } from "@bufbuild/protobuf/wkt";
import { InvalidArgumentError } from "commander";
import type { Command } from "commander";
import type { RunState } from "../../gen/agentrunner/v1/run_pb.ts";
import { RunSchema, RunStateSchema } from "../../gen/agentrunner/v1/run_pb.ts";
import { PruneRunsResponseSchema } from "../../gen/agentrunner/v1/run_service_pb.ts";
import type { Verbs } from "../cli.ts";
import { present } from "../errors.ts";
import { collectPages, sayTotal } from "../collect-pages.ts";
import { count, durationOption } from "../options.ts";
import { RUN_OPERAND, SESSION_OPERAND, runIdOf, sessionIdOf } from "../refs.ts";
import { runPage, runTable } from "../text/runs.ts";
import { pathOf } from "./command-path.ts";
import { addLogs } from "./runs-logs.ts";
import { addStop } from "./runs-stop.ts";

/** `ao runs`: ls, get, stop, logs, prune; and what is said most often without `runs`: ps, get, stop, logs. */
export function addRuns(ao: Command, verbs: Verbs): void {
  addList(ao.command("ps"), verbs, "ao ps");
  const runs = ao.command("runs").description("show, follow and stop runs");
  addList(runs.command("ls", { isDefault: true }), verbs, "ao runs ls");
  for (const parent of [ao, runs]) {
    addGet(parent, verbs);
    addLogs(parent, verbs);
    addStop(parent, verbs);
  }
  addPrune(runs, verbs);
}

function addList(command: Command, verbs: Verbs, path: string): void {
  command
    .description("runs, newest first")
    .option("--state <state...>", "only runs in these states, such as pending or running", collectStates)
    .option("--session <session>", `only runs of this session: ${SESSION_OPERAND}`)
    .option("--runner <id>", "only runs that this runner holds or held last")
    .option("--limit <n>", "most runs to list", count, 50)
    .addHelpText("after", `\nExample:\n  ${path} --state running pending --limit 10`)
    .action(
      verbs.action(async (cli, options: { state?: RunState[]; session?: string; runner?: string; limit: number }) => {
        const sessionId = options.session === undefined ? "" : await sessionIdOf(cli, options.session);
        const found = await collectPages(options.limit, async (page) => {
          const filter = { states: options.state ?? [], sessionId, runnerId: options.runner ?? "" };
          const { runs, nextPageToken } = await cli.runs.listRuns({ ...filter, ...page });
          return { items: runs, nextPageToken };
        });
        const { list } = found;
        if (list.length === 0) cli.say("no runs; `ao start` makes one");
        cli.printList("runs", RunSchema, list, () => runTable(list, Date.now(), cli.paint, cli.columns));
        sayTotal(cli, found, "run");
      }),
    );
}

const STATES = RunStateSchema.values.filter((value) => value.number !== 0);

function collectStates(text: string, before: RunState[] | undefined): RunState[] {
  const state = STATES.find((value) => value.localName.toLowerCase() === text.toLowerCase());
  if (state === undefined) {
    throw new InvalidArgumentError(
      `it must be one of ${STATES.map((value) => value.localName.toLowerCase()).join(", ")}.`,
    );
  }
  return [...(before ?? []), state.number as RunState];
}

function addGet(parent: Command, verbs: Verbs): void {
  parent
    .command("get")
    .argument("<run>", RUN_OPERAND)
    .description("one run: where it stands and why, its attempts and its result")
    .addHelpText("after", `\nExample:\n  ${pathOf(parent)} get hello`)
    .action(
      verbs.action(async (cli, ref: string) => {
        const runId = await runIdOf(cli, ref);
        const run = present((await cli.runs.getRun({ runId })).run, "run");
        cli.printMessage(RunSchema, run, () => runPage(run, Date.now(), cli.paint, cli.columns));
      }),
    );
}

function addPrune(runs: Command, verbs: Verbs): void {
  runs
    .command("prune")
    .description("delete finished runs, their events, and sessions that are left without runs")
    .requiredOption(
      "--older-than <time>",
      "delete runs that ended longer ago; 0 deletes every finished run",
      durationOption,
    )
    .option("--dry-run", "only count")
    .addHelpText("after", "\nExample:\n  ao runs prune --older-than 30d --dry-run")
    .action(
      verbs.action(async (cli, { olderThan, dryRun = false }: { olderThan: Duration; dryRun?: boolean }) => {
        const answer = await cli.runs.pruneRuns({ olderThan, dryRun });
        const before =
          answer.before === undefined ? "" : ` that ended before ${timestampDate(answer.before).toISOString()}`;
        cli.printMessage(
          PruneRunsResponseSchema,
          answer,
          () => `${dryRun ? "would delete" : "deleted"} ${answer.runs} ${answer.runs === 1n ? "run" : "runs"}${before}`,
        );
      }),
    );
}
