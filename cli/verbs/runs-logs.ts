import type { Command } from "commander";
import type { Cli, Outcome, Verbs } from "../cli.ts";
import { EXIT_INTERRUPTED, EventPrinter, checkStream, exitOf, printEvent, sayWhyPending } from "../follow/follow.ts";
import { present } from "../errors.ts";
import { storedEvents } from "./sessions.ts";
import { RUN_OPERAND, runIdOf } from "../refs.ts";
import { pathOf } from "./command-path.ts";
import { watchRun } from "../follow/watch.ts";

interface LogsOptions {
  readonly follow?: boolean;
  readonly all?: boolean;
}

/** `logs RUN`: what the executor printed and said; with --all also states, tools, usage. */
export function addLogs(parent: Command, verbs: Verbs): void {
  parent
    .command("logs")
    .argument("<run>", RUN_OPERAND)
    .description("what the executor printed and said")
    .option("-f, --follow", "go on until the run ends, across restarts of the coordinator, and end as the run does")
    .option("--all", "also the states, tool calls and usage")
    .addHelpText("after", `\nExample:\n  ${pathOf(parent)} logs -f hello`)
    .action(
      verbs.action(async (cli, ref: string, { follow = false, all = false }: LogsOptions) => {
        checkStream(cli, "logs");
        const runId = await runIdOf(cli, ref);
        const printer = new EventPrinter(cli, all ? "stdout" : "none");
        return follow ? await followLogs(cli, runId, printer) : await storedLogs(cli, runId, printer);
      }),
    );
}

async function storedLogs(cli: Cli, runId: string, printer: EventPrinter): Outcome {
  const run = present((await cli.runs.getRun({ runId })).run, "run");
  if (sayWhyPending(cli, run)) cli.say(`it has printed nothing yet; \`ao logs -f ${runId}\` goes on until it ends`);
  for await (const event of storedEvents(cli, run.sessionId, runId)) printEvent(cli, printer, event);
  cli.screen.endLine();
}

async function followLogs(cli: Cli, runId: string, printer: EventPrinter): Outcome {
  const left = new AbortController();
  const undo = cli.io.onInterrupt(() => left.abort());
  try {
    for await (const update of watchRun(cli, runId, left.signal)) {
      if (update.type === "found" && sayWhyPending(cli, update.run))
        cli.say("this goes on until it has run; Ctrl+C leaves it alone");
      if (update.type === "event") printEvent(cli, printer, update.event);
      if (update.type === "ended") {
        cli.screen.endLine();
        return exitOf(update.run);
      }
    }
  } finally {
    undo();
  }
  cli.screen.endLine();
  return EXIT_INTERRUPTED;
}
