import { create } from "@bufbuild/protobuf";
import type { Command } from "commander";
import { retry } from "../../client/retry.ts";
import { PATIENCE } from "../../client/watch.ts";
import type { Run } from "../../gen/agentrunner/v1/run_pb.ts";
import { InvocationMode, RunSchema, RunState } from "../../gen/agentrunner/v1/run_pb.ts";
import type { CreateRunRequest } from "../../gen/agentrunner/v1/run_service_pb.ts";
import { CreateRunRequestSchema } from "../../gen/agentrunner/v1/run_service_pb.ts";
import { sessionNameProblem } from "../../lib/protocol/session-name.ts";
import type { Cli, Outcome, Verbs } from "../cli.ts";
import { cliError, present, usage } from "../errors.ts";
import { followSession } from "../follow/follow-session.ts";
import { sayWhyPending } from "../follow/follow.ts";
import type { RunOptions } from "../options.ts";
import { addRunOptions, runRequest } from "../options.ts";
import { fields } from "../text/fields.ts";

/** `ao start [NAME]`: the first run of a session. */
export function addStart(ao: Command, verbs: Verbs): void {
  addRunOptions(ao.command("start").description("start a session: queue its first run"))
    .argument("[name]", "name of the session (default: its id)")
    .option("--agent <name>", "agent blueprint; `ao blueprints` lists them")
    .addHelpText(
      "after",
      `\nExample:\n  ao start hello --profile test-executor --prompt "Say hello" --follow` +
        `\n  ao start --agent reviewer --parameters '{"branch": "main"}'`,
    )
    .action(
      verbs.action(async (cli, name: string | undefined, options: RunOptions) => {
        const sessionName = name ?? "";
        const problem = name === undefined ? undefined : sessionNameProblem(name);
        if (problem !== undefined) throw usage(problem);
        const request = await runRequest(options, cli);
        return queueRun(
          cli,
          create(CreateRunRequestSchema, { ...request, sessionName, mode: InvocationMode.START }),
          options.follow ?? false,
        );
      }),
    );
}

/**
 * Creates a run, and follows it when asked to. The request has an id of its own, so that repeating it makes one run.
 */
export async function queueRun(cli: Cli, request: CreateRunRequest, follow: boolean): Outcome {
  const response = await retry(() => cli.runs.createRun(request), { patienceMs: PATIENCE.firstMs });
  const run = present(response.run, "run");
  if (!follow) {
    cli.printMessage(RunSchema, run, () => idLines(run, cli));
    return sayWhyItWaits(cli, run);
  }
  if (cli.options.output === "text") cli.say(idLines(run, cli));
  if (cli.options.output === "name") cli.print(run.runId);
  return followSession(cli, run);
}

/** Tells who does not follow at once what keeps the run from starting: a typo would be found minutes later. */
async function sayWhyItWaits(cli: Cli, { runId, state }: Run): Promise<void> {
  if (state !== RunState.PENDING || cli.options.quiet === true) return;
  try {
    const { run } = await cli.runs.getRun({ runId });
    if (run !== undefined) sayWhyPending(cli, run);
  } catch (error) {
    // The run is made all the same.
    cli.say(`whether a runner takes it cannot be told now: ${cliError(error, cli.url).message}`);
  }
}

function idLines(run: Run, cli: Cli): string {
  const name = run.sessionName === run.sessionId ? "" : `  ${run.sessionName}`;
  return fields(
    [
      ["run", run.runId],
      ["session", `${run.sessionId}${name}`],
    ],
    cli.paint,
    cli.columns,
  );
}
