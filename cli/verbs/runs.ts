import { timestampDate } from "@bufbuild/protobuf/wkt";
import type { Duration } from "@bufbuild/protobuf/wkt";
import { InvalidArgumentError, Option } from "commander";
import type { Command } from "commander";
import { isFinalState } from "../../lib/protocol/final.ts";
import type { RunState } from "../../gen/agentrunner/v1/run_pb.ts";
import { RunSchema, RunStateSchema } from "../../gen/agentrunner/v1/run_pb.ts";
import { PruneRunsResponseSchema } from "../../gen/agentrunner/v1/run_service_pb.ts";
import type { Cli, Verbs } from "../cli.ts";
import { present } from "../errors.ts";
import { collectPages, sayTotal } from "../collect-pages.ts";
import { count, durationOption, sessionRef } from "../options.ts";
import { runPage, runTable, stateLine } from "../text/runs.ts";
import { addLogs } from "./runs-logs.ts";

/** `ao runs`: ls, get, stop, logs, prune. */
export function addRuns(ao: Command, verbs: Verbs): void {
  const runs = ao.command("runs").description("show, follow and stop runs");
  addList(runs, verbs);
  addGet(runs, verbs);
  addStop(runs, verbs);
  addLogs(runs, verbs);
  addPrune(runs, verbs);
}

function addList(runs: Command, verbs: Verbs): void {
  runs
    .command("ls", { isDefault: true })
    .description("runs, newest first")
    .option("--state <state...>", "only runs in these states, such as pending or running", collectStates)
    .option("--session <session>", "only runs of this session, by name or id")
    .option("--runner <id>", "only runs that this runner holds or held last")
    .option("--limit <n>", "most runs to list", count, 50)
    .addHelpText("after", "\nExample:\n  ao runs ls --state running pending --limit 10")
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

async function sessionIdOf(cli: Cli, text: string): Promise<string> {
  const ref = sessionRef(text);
  if ("sessionId" in ref) return ref.sessionId;
  const { session } = await cli.sessions.getSession(ref);
  return session?.sessionId ?? "";
}

function addGet(runs: Command, verbs: Verbs): void {
  runs
    .command("get <run>")
    .description("one run: where it stands and why, its attempts and its result")
    .addHelpText("after", "\nExample:\n  ao runs get run_…")
    .action(
      verbs.action(async (cli, runId: string) => {
        const run = present((await cli.runs.getRun({ runId })).run, "run");
        cli.printMessage(RunSchema, run, () => runPage(run, Date.now(), cli.paint, cli.columns));
      }),
    );
}

function addStop(runs: Command, verbs: Verbs): void {
  runs
    .command("stop <run>")
    .description("ask for the end of a run: SIGTERM, and SIGKILL after the grace")
    .addOption(new Option("--grace <time>", "time between the two; 0 kills at once").argParser(durationOption))
    .option("--reason <text>", "shown to the people who watch", "")
    .option("--tree", "also stop what runs or waits in every session below its session")
    .addHelpText("after", `\nExample:\n  ao runs stop run_… --grace 5s --reason "wrong prompt"`)
    .action(
      verbs.action(async (cli, runId: string, options: { grace?: Duration; reason: string; tree?: boolean }) => {
        const { grace, reason, tree: cascade = false } = options;
        const answer = await cli.runs.stopRun({ runId, reason, cascade, ...(grace && { grace }) });
        const run = present(answer.run, "run");
        cli.printMessage(RunSchema, run, () => `${run.runId}  ${stateLine(run, Date.now(), cli.paint)}`);
        for (const stopped of answer.stoppedRunIds) cli.say(`${stopped} is stopped too`);
        if (!isFinalState(run.state)) cli.say(`it ends soon; \`ao runs logs -f ${run.runId}\` shows it`);
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
