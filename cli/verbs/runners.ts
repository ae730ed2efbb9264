import type { Command } from "commander";
import { DrainRunnerResponseSchema, RemoveRunnerResponseSchema } from "../../gen/agentrunner/v1/fleet_service_pb.ts";
import { RunnerSchema } from "../../gen/agentrunner/v1/runner_pb.ts";
import type { Verbs } from "../cli.ts";
import { present } from "../errors.ts";
import { collectPages, sayTotal } from "../collect-pages.ts";
import { count } from "../options.ts";
import { runnerPage, runnerTable } from "../text/runners.ts";

/** `ao runners`: ls, get, drain, rm. */
export function addRunners(ao: Command, verbs: Verbs): void {
  const runners = ao.command("runners").description("show and manage runners");
  runners
    .command("ls", { isDefault: true })
    .description("runners by host and id")
    .option("--limit <n>", "most runners to list", count, 1000)
    .addHelpText("after", "\nExample:\n  ao runners")
    .action(
      verbs.action(async (cli, { limit }: { limit: number }) => {
        const found = await collectPages(limit, async (page) => {
          const { runners, nextPageToken } = await cli.fleet.listRunners(page);
          return { items: runners, nextPageToken };
        });
        const { list } = found;
        if (list.length === 0) cli.say("no runners; `agent-runner` or `ao dev` starts one");
        cli.printList("runners", RunnerSchema, list, () => runnerTable(list, Date.now(), cli.paint, cli.columns));
        sayTotal(cli, found, "runner");
      }),
    );
  runners
    .command("get <runner>")
    .description("one runner")
    .addHelpText("after", "\nExample:\n  ao runners get lnch_…")
    .action(
      verbs.action(async (cli, runnerId: string) => {
        const runner = present((await cli.fleet.getRunner({ runnerId })).runner, "runner");
        cli.printMessage(RunnerSchema, runner, () => runnerPage(runner, Date.now(), cli.paint, cli.columns));
      }),
    );
  addDrain(runners, verbs);
  addRemove(runners, verbs);
}

function addDrain(runners: Command, verbs: Verbs): void {
  runners
    .command("drain <runner>")
    .description("have a runner finish what it runs, take nothing more, and end")
    .option("--reason <text>", "shown to the people at the runner")
    .addHelpText("after", `\nExample:\n  ao runners drain lnch_… --reason "new version"`)
    .action(
      verbs.action(async (cli, runnerId: string, { reason = "" }: { reason?: string }) => {
        const answer = await cli.fleet.drainRunner({ runnerId, reason });
        const { activeRuns } = present(answer.runner, "runner");
        cli.printMessage(
          DrainRunnerResponseSchema,
          answer,
          () => `${runnerId}  draining, ${activeRuns} ${activeRuns === 1 ? "run" : "runs"} left`,
        );
      }),
    );
}

function addRemove(runners: Command, verbs: Verbs): void {
  runners
    .command("rm <runner>")
    .description("forget a runner: what it holds is lost now; if it lives it registers again")
    .addHelpText("after", "\nExample:\n  ao runners rm lnch_…")
    .action(
      verbs.action(async (cli, runnerId: string) => {
        const answer = await cli.fleet.removeRunner({ runnerId });
        const { lostRunIds } = answer;
        cli.printMessage(RemoveRunnerResponseSchema, answer, () =>
          [`${runnerId}  removed`, ...lostRunIds.map((id) => `${id}  lost`)].join("\n"),
        );
      }),
    );
}
