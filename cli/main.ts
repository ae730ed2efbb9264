import "../lib/require-node.ts";
import { Command, CommanderError, Option } from "commander";
import { fileProblem } from "../lib/config/file-problem.ts";
import { endProcess } from "../lib/end-process.ts";
import { EXIT } from "../lib/exit-codes.ts";
import type { Io } from "./cli.ts";
import { DEFAULT_URL, Verbs, pageWidth } from "./cli.ts";
import { addBackup } from "./verbs/backup.ts";
import { addBlueprints } from "./verbs/blueprints.ts";
import { addDemo } from "./verbs/demo.ts";
import { addDev } from "./verbs/dev.ts";
import { addDoctor } from "./doctor/doctor.ts";
import { asTyped, helpAsTyped } from "../lib/own-command.ts";
import { cliError, commanderError, errorJson } from "./errors.ts";
import { addResume } from "./verbs/resume.ts";
import { addRunners } from "./verbs/runners.ts";
import { addRuns } from "./verbs/runs.ts";
import { addSessions } from "./verbs/sessions.ts";
import { addStart } from "./verbs/start.ts";
import { addWait } from "./verbs/wait.ts";
import { refuseSingleDashes, refuseUnknownCommands } from "./unknown-commands.ts";
import { VERSION } from "../lib/version.ts";

const EXIT_CODES = `
Exit codes: 0 ok · 1 the run failed · 2 usage · 3 cannot reach the coordinator
4 refused · 5 stopped · 6 timed out · 7 not found · 70 bug
130 left with Ctrl+C. Data goes to stdout, talk to stderr.`;

/** Stands under the help of every verb, in place of the options that they share. */
const SHARED = "\n-c URL, -o FORMAT, -q and other options of every command: `ao --help`";

/** Runs `ao` with its arguments and returns its exit code. Never throws. */
export async function main(argv: readonly string[], io: Io): Promise<number> {
  const verbs = new Verbs(io);
  try {
    await commands(verbs, wantsJson(argv)).parseAsync(argv, { from: "user" });
    return verbs.exitCode;
  } catch (error) {
    const failure = error instanceof CommanderError ? commanderError(error) : cliError(error, verbs.url);
    if (failure === undefined) return EXIT.ok;
    if (wantsJson(argv)) verbs.screen.complain(asTyped(errorJson(failure), io.env));
    // Commander has said it, with the help that it knows of.
    else if (!(error instanceof CommanderError)) {
      verbs.screen.complain(`error: ${asTyped(failure.message, io.env)}`);
      if (failure.hint !== undefined) verbs.screen.complain(`hint: ${asTyped(failure.hint, io.env)}`);
    }
    return failure.exitCode;
  }
}

/** True when errors are JSON, too. Looked up in the arguments, because those that cannot be read are told of as well. */
function wantsJson(argv: readonly string[]): boolean {
  const end = argv.indexOf("--");
  const options = end === -1 ? argv : argv.slice(0, end);
  return options.some((one, i) => {
    if (one === "-o" || one === "--output") return /^jsonl?$/.test(options[i + 1] ?? "");
    return /^(-o=?|--output=)jsonl?$|^--json$/.test(one);
  });
}

/** `ao` and all its commands. With `json` commander says nothing: errors are told as JSON. */
export function commands(verbs: Verbs, json: boolean): Command {
  const { io } = verbs;
  const ao: Command = new Command("ao")
    .description("Start runs of agents on the runners of a coordinator, and follow them.")
    .version(VERSION, "-V, --version", "print the version")
    .option("-c, --coordinator-url <url>", `coordinator (env AGENT_ORCHESTRATOR_API_URL, default ${DEFAULT_URL})`)
    .option("--tls-ca <file>", "PEM file with certificate authorities to trust for https")
    .addOption(
      new Option("-o, --output <format>", "form of the data")
        .choices(["text", "json", "jsonl", "name"])
        .default("text"),
    )
    .addOption(
      new Option("--color <when>", "colour; NO_COLOR turns it off")
        .choices(["auto", "always", "never"])
        .default("auto"),
    )
    .option("-q, --quiet", "say nothing on stderr but errors")
    .option("-v, --verbose", "say more on stderr")
    .option("--raw", "let through to a terminal what programs print, with all that it obeys")
    .configureOutput({
      writeOut: (text) => void io.stdout.write(helpAsTyped(text, io.env)),
      getOutHelpWidth: () => pageWidth(io, io.stdout),
      getErrHelpWidth: () => pageWidth(io, io.stderr),
      writeErr: (text) => void (json || io.stderr.write(text)),
    })
    .showHelpAfterError("(--help shows the options and an example)")
    .exitOverride()
    .addHelpText("afterAll", ({ command }) => (command === ao ? EXIT_CODES : SHARED));
  for (const add of [
    addDev,
    addStart,
    addResume,
    addRuns,
    addWait,
    addRunners,
    addSessions,
    addBlueprints,
    addBackup,
    addDoctor,
  ])
    add(ao, verbs);
  addDemo(ao, verbs, main);
  refuseUnknownCommands(ao);
  refuseSingleDashes(ao);
  return ao;
}

/** The real process. */
function processIo(): Io {
  const { stdin, stdout, stderr, env } = process;
  return {
    stdin,
    stdout,
    stderr,
    env,
    onInterrupt: (listener) => {
      process.on("SIGINT", listener);
      return () => process.off("SIGINT", listener);
    },
  };
}

if (import.meta.main) {
  // A reader that has enough (`ao runs ls | head -1`) is no error.
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE")
      process.stderr.write(`error: stdout cannot be written: ${fileProblem(error, "stdout")}\n`);
    process.exit(error.code === "EPIPE" ? EXIT.ok : EXIT.failed);
  });
  await endProcess(await main(process.argv.slice(2), processIo()));
}
