import type { Command } from "commander";
import { watch } from "../../client/watch.ts";
import { RunStateSchema } from "../../gen/agentrunner/v1/run_pb.ts";
import type { SessionEvent } from "../../gen/agentrunner/v1/session_pb.ts";
import { SessionSchema } from "../../gen/agentrunner/v1/session_pb.ts";
import { GetSessionResultResponseSchema } from "../../gen/agentrunner/v1/session_service_pb.ts";
import type { Cli, Outcome, Verbs } from "../cli.ts";
import { EXIT_INTERRUPTED, EventPrinter, checkStream, exitOf, printEvent } from "../follow/follow.ts";
import { clean, word } from "../text/format.ts";
import { collectPages, sayTotal } from "../collect-pages.ts";
import { count } from "../options.ts";
import { RUN_OPERAND, SESSION_OPERAND, runIdOf, sessionIdOf, sessionOf } from "../refs.ts";
import { resultText, why } from "../text/runs.ts";
import { sessionPage, sessionTable } from "../text/sessions.ts";
import { addTree } from "./sessions-tree.ts";
import { awayTalk } from "../follow/watch.ts";

/** `ao sessions`: ls, get, tree, events, result, rm. */
export function addSessions(ao: Command, verbs: Verbs): void {
  const sessions = ao.command("sessions").description("show sessions, their events and results");
  sessions
    .command("ls", { isDefault: true })
    .description("sessions, newest first")
    .option("--limit <n>", "most sessions to list", count, 50)
    .addHelpText("after", "\nExample:\n  ao sessions")
    .action(
      verbs.action(async (cli, { limit }: { limit: number }) => {
        const found = await collectPages(limit, async (page) => {
          const { sessions, nextPageToken } = await cli.sessions.listSessions(page);
          return { items: sessions, nextPageToken };
        });
        const { list } = found;
        if (list.length === 0) cli.say("no sessions; `ao start` makes one");
        cli.printList("sessions", SessionSchema, list, () => sessionTable(list, Date.now(), cli.paint, cli.columns));
        sayTotal(cli, found, "session");
      }),
    );
  sessions
    .command("get")
    .argument("<session>", SESSION_OPERAND)
    .description("one session, with what its children told it")
    .addHelpText("after", "\nExample:\n  ao sessions get hello")
    .action(
      verbs.action(async (cli, name: string) => {
        const session = await sessionOf(cli, name);
        cli.printMessage(SessionSchema, session, () => sessionPage(session, Date.now(), cli.paint, cli.columns));
      }),
    );
  addTree(sessions, verbs);
  addEvents(sessions, verbs);
  addResult(sessions, verbs);
  sessions
    .command("rm")
    .argument("<session>", SESSION_OPERAND)
    .description("delete a session with its runs and events; refused while it or a session below it is active")
    .addHelpText("after", "\nExample:\n  ao sessions rm hello")
    .action(
      verbs.action(async (cli, name: string) => {
        const sessionId = await sessionIdOf(cli, name);
        await cli.sessions.deleteSession({ sessionId });
        cli.say(`${sessionId} deleted`);
      }),
    );
}

function addEvents(sessions: Command, verbs: Verbs): void {
  sessions
    .command("events")
    .argument("<session>", SESSION_OPERAND)
    .description("everything that happened in a session, oldest first")
    .option("--run <run>", `only events of this run: ${RUN_OPERAND}`)
    .option("-f, --follow", "go on as it happens, until Ctrl+C")
    .addHelpText("after", "\nExample:\n  ao sessions events hello -o jsonl")
    .action(
      verbs.action(async (cli, name: string, { run, follow = false }: { run?: string; follow?: boolean }) => {
        checkStream(cli, "events");
        const sessionId = await sessionIdOf(cli, name);
        const runId = run === undefined ? "" : await runIdOf(cli, run);
        const printer = new EventPrinter(cli, "stdout");
        if (follow) return await followEvents(cli, sessionId, runId, printer);
        for await (const event of storedEvents(cli, sessionId, runId)) printEvent(cli, printer, event);
        cli.screen.endLine();
      }),
    );
}

/** The stored events of a session, or of one of its runs, oldest first, page by page. */
export async function* storedEvents(cli: Cli, sessionId: string, runId: string): AsyncGenerator<SessionEvent, void> {
  let cursor = "";
  for (;;) {
    const page = await cli.sessions.listSessionEvents({ sessionId, runId, cursor, pageSize: 1000 });
    yield* page.events;
    if (!page.more) return;
    cursor = page.nextCursor;
  }
}

async function followEvents(cli: Cli, sessionId: string, runId: string, printer: EventPrinter): Outcome {
  const left = new AbortController();
  const undo = cli.io.onInterrupt(() => left.abort());
  const messages = watch({
    open: (cursor, signal) => cli.sessions.watchSession({ sessionId, cursor }, { signal }),
    isLast: () => false,
    signal: left.signal,
    ...awayTalk(cli),
  });
  try {
    for await (const { message } of messages) {
      if (message.update.case !== "event") continue;
      if (runId === "" || message.update.value.runId === runId) printEvent(cli, printer, message.update.value);
    }
  } finally {
    undo();
  }
  cli.screen.endLine();
  return EXIT_INTERRUPTED;
}

function addResult(sessions: Command, verbs: Verbs): void {
  sessions
    .command("result")
    .argument("<session>", SESSION_OPERAND)
    .description("result of a session's last run that ended; ends as that run did")
    .option("--run <run>", `result of this run instead: ${RUN_OPERAND}`)
    .addHelpText("after", "\nExample:\n  ao sessions result hello")
    .action(
      verbs.action(async (cli, name: string, { run }: { run?: string }) => {
        const sessionId = await sessionIdOf(cli, name);
        const wanted = run === undefined ? "" : await runIdOf(cli, run);
        const answer = await cli.sessions.getSessionResult({ sessionId, runId: wanted });
        const { state, failure, message, result, runId } = answer;
        const text = resultText(result);
        if (text !== "" || cli.options.output !== "text")
          cli.printMessage(GetSessionResultResponseSchema, answer, () => text);
        const reason = clean(why(failure, message));
        cli.say(`${runId} ${word(RunStateSchema, state)}${reason === "" ? "" : `: ${reason}`}`);
        return exitOf(answer);
      }),
    );
}
