import type { Cursors } from "../../client/cursors.ts";
import { WatchRunResponseSchema } from "../../gen/agentrunner/v1/run_service_pb.ts";
import type { Run } from "../../gen/agentrunner/v1/run_pb.ts";
import { RunState } from "../../gen/agentrunner/v1/run_pb.ts";
import type { SessionEvent } from "../../gen/agentrunner/v1/session_pb.ts";
import { SessionEventSchema } from "../../gen/agentrunner/v1/session_pb.ts";
import { EXIT, exitOfFailure } from "../../lib/exit-codes.ts";
import type { ExitCode } from "../../lib/exit-codes.ts";
import type { Cli } from "../cli.ts";
import { wrap } from "../../lib/width.ts";
import { columnsOf, json } from "../cli.ts";
import { usage } from "../errors.ts";
import { dimmed, eventText } from "../text/events.ts";
import { clean } from "../text/format.ts";
import { isUnderWay, resultText, stateAge, whyPending } from "../text/runs.ts";
import { watchRun } from "./watch.ts";

/** Exit code of a program that was left with Ctrl+C: 128 + SIGINT, as shells say it. */
export const EXIT_INTERRUPTED = 130;

/** Exit code that says how a run ended. */
export function exitOf({ state, failure }: Pick<Run, "state" | "failure">): ExitCode {
  if (state === RunState.COMPLETED) return EXIT.ok;
  if (state === RunState.STOPPED) return EXIT.stopped;
  return exitOfFailure(failure);
}

/** Writes events as text: what the executor printed and said to stdout, notes about the run where `notes` says. */
export class EventPrinter {
  readonly #cli: Cli;
  readonly #notes: "stdout" | "stderr" | "none";
  /** True when the executor printed or said anything. */
  spoke = false;
  constructor(cli: Cli, notes: "stdout" | "stderr" | "none") {
    this.#cli = cli;
    this.#notes = notes;
  }

  show(event: SessionEvent): void {
    const cli = this.#cli;
    const shown = eventText(event, this.#notes === "stderr" ? cli.paintTalk : cli.paint);
    if (shown === undefined) return;
    if (shown.type === "note") {
      if (this.#notes === "stdout") cli.print(shown.text);
      if (this.#notes === "stderr") cli.screen.say(shown.text);
      return;
    }
    this.spoke = true;
    if (shown.type !== "output") return cli.print(shown.text);
    const { stream, text } = shown;
    const style = (line: string): string => (stream === "stderr" ? dimmed(line, cli.paint) : line);
    cli.screen.output(`${event.runId}/${event.attempt}`, stream, text, style);
  }
}

/**
 * Shows a run live until it ends, and returns the exit code that says how: its output on stdout, its states on stderr,
 * its result last. With jsonl it is every message of the watch, one a line. Ctrl+C leaves the run alone and says how to stop it.
 * `cursors` hears where it ended.
 */
export async function followRun(
  cli: Cli,
  runId: string,
  cursors: Cursors,
): Promise<ExitCode | typeof EXIT_INTERRUPTED> {
  const left = new AbortController();
  const undo = cli.io.onInterrupt(() => left.abort());
  const printer = new EventPrinter(cli, "stderr");
  let gaveResult = false;
  try {
    for await (const update of watchRun(cli, runId, left.signal, cursors)) {
      if (cli.options.output === "jsonl") cli.printJson(json(WatchRunResponseSchema, update.message));
      if (update.type === "ended") return end(cli, update.run, printer, gaveResult);
      if (cli.options.output !== "text") continue;
      if (update.type === "found") sayWhyPending(cli, update.run);
      // It comes last, and whole.
      else if (isResult(update.event)) gaveResult = true;
      else printer.show(update.event);
    }
  } finally {
    undo();
  }
  cli.screen.endLine();
  cli.say(`left ${runId}, which goes on. \`ao logs -f ${runId}\` follows it, \`ao stop ${runId}\` stops it.`);
  return EXIT_INTERRUPTED;
}

function isResult({ event }: SessionEvent): boolean {
  return event.case === "executor" && event.value.event.case === "result";
}

/** Says why a run waits, when that is more than the moment it takes to be given to a runner. Returns whether it does. */
export function sayWhyPending(cli: Cli, run: Run): boolean {
  if (run.state !== RunState.PENDING || isUnderWay(run)) return false;
  const reasons = clean(whyPending(run, Date.now()));
  cli.say(wrap(`${cli.paintTalk("dim", "pending:")} ${reasons}`, columnsOf(cli.io, cli.io.stderr), "  "));
  return true;
}

function end(cli: Cli, run: Run, printer: EventPrinter, gaveResult: boolean): ExitCode {
  if (cli.options.output === "text") {
    // Without a result of its own, an executor's stdout is its result, and that has been shown.
    const result = resultText(run.result);
    if (result !== "" && (gaveResult || !printer.spoke)) cli.print(result);
    cli.screen.endLine();
    cli.say(stateAge(run, Date.now(), cli.paintTalk));
  }
  return exitOf(run);
}

/** Refuses forms of output that a stream cannot have. */
export function checkStream(cli: Cli, what: string): void {
  if (cli.options.output === "json") {
    throw usage(`${what} are a stream, which is no single JSON document`, "use -o jsonl: one event a line");
  }
  if (cli.options.output === "name") throw usage(`${what} have no names`, "use -o text or jsonl");
}

/** Writes one stored event in the form that `-o` asks for. */
export function printEvent(cli: Cli, printer: EventPrinter, event: SessionEvent): void {
  if (cli.options.output === "text") printer.show(event);
  else cli.printJson(json(SessionEventSchema, event));
}
