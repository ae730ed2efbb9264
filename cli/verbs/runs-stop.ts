import type { Duration } from "@bufbuild/protobuf/wkt";
import { Option } from "commander";
import type { Command } from "commander";
import type { Run } from "../../gen/agentrunner/v1/run_pb.ts";
import { RunSchema } from "../../gen/agentrunner/v1/run_pb.ts";
import { OPEN_STATES, isFinalState } from "../../lib/protocol/final.ts";
import type { Cli, Verbs } from "../cli.ts";
import { present } from "../errors.ts";
import { durationOption } from "../options.ts";
import { RUN_OPERAND, parseRef, runIdOf, sessionOf } from "../refs.ts";
import { stateLine } from "../text/runs.ts";
import { pathOf } from "./command-path.ts";

interface StopOptions {
  readonly grace?: Duration;
  readonly reason?: string;
  readonly tree?: boolean;
}

/** `stop RUN`: of a session, every run that has not ended. */
export function addStop(parent: Command, verbs: Verbs): void {
  parent
    .command("stop")
    .argument("<run>", `${RUN_OPERAND}; of a session, every run that has not ended`)
    .description("ask for the end of a run: SIGTERM, and SIGKILL after the grace")
    .addOption(new Option("--grace <time>", "time between the two; 0 kills at once").argParser(durationOption))
    .option("--reason <text>", "shown to the people who watch")
    .option("--tree", "also stop what runs or waits in every session below its session")
    .addHelpText("after", `\nExample:\n  ${pathOf(parent)} stop hello --grace 5s --reason "wrong prompt"`)
    .action(
      verbs.action(async (cli, ref: string, options: StopOptions) => {
        const { type } = parseRef(ref);
        if (type === "run-id" || type === "last") {
          const run = await stopRun(cli, await runIdOf(cli, ref), options);
          return cli.printMessage(RunSchema, run, () => line(cli, run));
        }
        const { sessionId, lastRunId } = await sessionOf(cli, ref);
        const open = await openRuns(cli, sessionId);
        const stopped: Run[] = [];
        // The newest first, so that none of them begins because the one before it has ended.
        for (const runId of open.length === 0 ? [lastRunId] : open) stopped.push(await stopRun(cli, runId, options));
        cli.printList("runs", RunSchema, stopped, () => stopped.map((run) => line(cli, run)).join("\n"));
      }),
    );
}

async function openRuns(cli: Cli, sessionId: string): Promise<string[]> {
  const ids: string[] = [];
  for (let pageToken = ""; ;) {
    const page = await cli.runs.listRuns({ sessionId, states: [...OPEN_STATES], pageSize: 1000, pageToken });
    ids.push(...page.runs.map(({ runId }) => runId));
    if (page.nextPageToken === "") return ids;
    pageToken = page.nextPageToken;
  }
}

async function stopRun(cli: Cli, runId: string, options: StopOptions): Promise<Run> {
  const { grace, reason = "", tree: cascade = false } = options;
  const answer = await cli.runs.stopRun({ runId, reason, cascade, ...(grace && { grace }) });
  const run = present(answer.run, "run");
  for (const stopped of answer.stoppedRunIds) cli.say(`${stopped} is stopped too`);
  if (!isFinalState(run.state)) cli.say(`it ends soon; \`ao logs -f ${run.runId}\` shows it`);
  return run;
}

function line(cli: Cli, run: Run): string {
  return `${run.runId}  ${stateLine(run, Date.now(), cli.paint)}`;
}
