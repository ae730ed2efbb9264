import { WatchRunResponseSchema } from "../../gen/agentrunner/v1/run_service_pb.ts";
import type { Run } from "../../gen/agentrunner/v1/run_pb.ts";
import { RunSchema, RunState } from "../../gen/agentrunner/v1/run_pb.ts";
import type { SessionEvent } from "../../gen/agentrunner/v1/session_pb.ts";
import { SessionEventSchema } from "../../gen/agentrunner/v1/session_pb.ts";
import { EXIT } from "../../lib/exit-codes.ts";
import type { ExitCode } from "../../lib/exit-codes.ts";
import type { Cli } from "../cli.ts";
import { json } from "../cli.ts";
import { eventText } from "../text/events.ts";
import { clean } from "../text/format.ts";
import { pendingText, resultText, stateAge } from "../text/runs.ts";
import { watchRun } from "./watch.ts";

/** Exit code of a program that was left with Ctrl+C: 128 + SIGINT, as shells say it. */
export const EXIT_INTERRUPTED = 130;

/** Exit code that says how a run ended. */
export function exitOf(state: RunState): ExitCode {
  switch (state) {
    case RunState.COMPLETED:
      return EXIT.ok;
    case RunState.STOPPED:
      return EXIT.stopped;
    default:
      return EXIT.failed;
  }
}

/**
 * Writes events as text: what the executor printed and said to stdout, notes about the run where `notes` says. Ends an
 * open line of output before it writes a line of its own to the same stream.
 */
export class EventPrinter {
  readonly #cli: Cli;
  readonly #notes: "stdout" | "stderr" | "none";
  #lineOpen = false;
  /** True when the executor printed or said anything. */
  spoke = false;
  constructor(cli: Cli, notes: "stdout" | "stderr" | "none") {
    this.#cli = cli;
    this.#notes = notes;
  }

  show(event: SessionEvent): void {
    const shown = eventText(event, this.#notes === "stderr" ? this.#cli.paintTalk : this.#cli.paint);
    if (shown === undefined) return;
    if (shown.type === "note") {
      if (this.#notes === "stdout") this.line(shown.text);
      if (this.#notes === "stderr") this.#cli.say(shown.text);
      return;
    }
    this.spoke = true;
    if (shown.type !== "output") return this.line(shown.text);
    this.#cli.io.stdout.write(shown.text);
    this.#lineOpen = !shown.text.endsWith("\n");
  }

  /** Writes a line to stdout. */
  line(text: string): void {
    this.endLine();
    this.#cli.print(text);
  }

  /** Ends an open line of output. */
  endLine(): void {
    if (this.#lineOpen) this.#cli.io.stdout.write("\n");
    this.#lineOpen = false;
  }
}

/**
 * Shows a run live until it ends, and returns the exit code that says how: its output on stdout, its states on stderr,
 * its result last. With `-o json` only the ended run is printed; with jsonl every message of the watch, one a line.
 * Ctrl+C leaves the run alone and says how to stop it.
 */
export async function followRun(cli: Cli, runId: string): Promise<ExitCode | typeof EXIT_INTERRUPTED> {
  const left = new AbortController();
  const undo = cli.io.onInterrupt(() => left.abort());
  const printer = new EventPrinter(cli, "stderr");
  let gaveResult = false;
  try {
    for await (const update of watchRun(cli, runId, left.signal)) {
      if (cli.options.output === "jsonl") cli.print(JSON.stringify(json(WatchRunResponseSchema, update.message)));
      if (update.type === "ended") return end(cli, update.run, printer, gaveResult);
      if (cli.options.output !== "text") continue;
      if (update.type === "found") sayWhyPending(cli, update.run);
      else {
        gaveResult ||= update.event.event.case === "executor" && update.event.event.value.event.case === "result";
        printer.show(update.event);
      }
    }
  } finally {
    undo();
  }
  printer.endLine();
  cli.say(`left ${runId}, which goes on. \`ao runs logs -f ${runId}\` follows it, \`ao runs stop ${runId}\` stops it.`);
  return EXIT_INTERRUPTED;
}

function sayWhyPending(cli: Cli, run: Run): void {
  const reasons = pendingText(run.pendingReasons);
  if (reasons !== "") cli.say(`${cli.paintTalk("dim", "pending:")} ${clean(reasons)}`);
}

function end(cli: Cli, run: Run, printer: EventPrinter, gaveResult: boolean): ExitCode {
  if (cli.options.output === "json") cli.print(JSON.stringify(json(RunSchema, run), undefined, 2));
  if (cli.options.output === "text") {
    // Without a result of its own, an executor's stdout is its result, and that has been shown.
    const result = resultText(run.result);
    if (result !== "" && (gaveResult || !printer.spoke)) printer.line(result);
    printer.endLine();
    cli.say(stateAge(run, Date.now(), cli.paintTalk));
  }
  return exitOf(run.state);
}

/** Writes one stored event in the form that `-o` asks for. */
export function printEvent(cli: Cli, printer: EventPrinter, event: SessionEvent): void {
  if (cli.options.output === "text") printer.show(event);
  else cli.print(JSON.stringify(json(SessionEventSchema, event)));
}
