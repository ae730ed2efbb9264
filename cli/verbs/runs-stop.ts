import type { Duration } from "@bufbuild/protobuf/wkt";
import { Option } from "commander";
import type { Command } from "commander";
import { stopRuns } from "../../client/stop-runs.ts";
import type { Run } from "../../gen/agentrunner/v1/run_pb.ts";
import { RunSchema } from "../../gen/agentrunner/v1/run_pb.ts";
import type { StopRunResponse } from "../../gen/agentrunner/v1/run_service_pb.ts";
import { isFinalState } from "../../lib/protocol/final.ts";
import { wrap } from "../../lib/width.ts";
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
        const stopped: Run[] = [];
        for await (const answer of stop(cli, ref, options)) stopped.push(told(cli, answer));
        cli.printList("runs", RunSchema, stopped, () => stopped.map((run) => line(cli, run)).join("\n"));
      }),
    );
}

/** Stops what a text means. */
async function* stop(cli: Cli, ref: string, options: StopOptions): AsyncGenerator<StopRunResponse, void> {
  const { grace, reason = "", tree: cascade = false } = options;
  const how = { reason, cascade, ...(grace && { grace }) };
  const { type } = parseRef(ref);
  if (type === "run-id" || type === "last") {
    yield await cli.runs.stopRun({ ...how, runId: await runIdOf(cli, ref) });
    return;
  }
  for await (const { answer } of stopRuns(cli, await sessionOf(cli, ref), how)) yield answer;
}

/** Says what besides becomes of a stop, and returns its run. */
function told(cli: Cli, answer: StopRunResponse): Run {
  const run = present(answer.run, "run");
  for (const stopped of answer.stoppedRunIds) cli.say(`${stopped} is stopped too`);
  if (!isFinalState(run.state)) cli.say(`it ends soon; \`ao logs -f ${run.runId}\` shows it`);
  return run;
}

function line(cli: Cli, run: Run): string {
  return wrap(`${run.runId}  ${stateLine(run, Date.now(), cli.paint)}`, cli.columns, "  ");
}
