import { Code, ConnectError } from "@connectrpc/connect";
import type { CommanderError } from "commander";
import { bug } from "../lib/bug.ts";
import { fileErrorText, isFileError } from "../lib/config/file-problem.ts";
import { EXIT } from "../lib/exit-codes.ts";
import type { ExitCode } from "../lib/exit-codes.ts";
import { describeConnectError } from "../lib/rpc/transport.ts";

/** A failure that `ao` explains in a line, with what to do next and the exit code. */
export class CliError extends Error {
  override readonly name = "CliError";
  readonly exitCode: ExitCode;
  /** Next command to try. */
  readonly hint: string | undefined;
  constructor(exitCode: ExitCode, message: string, hint?: string) {
    super(message);
    this.exitCode = exitCode;
    this.hint = hint;
  }
}

/** Bad input: exit 2. */
export function usage(message: string, hint?: string): CliError {
  return new CliError(EXIT.usage, message, hint);
}

/** The message that a response must have. `what` names it. */
export function present<T>(message: T | undefined, what: string): T {
  if (message === undefined) throw bug("CLI1", `the coordinator sent a response without its ${what}`);
  return message;
}

/** Says in `ao`'s terms why a verb failed. A ConnectError is explained; anything else that is unknown is a bug. */
export function cliError(error: unknown, url: string): CliError {
  if (error instanceof CliError) return error;
  if (error instanceof ConnectError) {
    const { text, hint, exitCode } = describeConnectError(error, url);
    return new CliError(exitCode, text, hint ?? nextCommand(error));
  }
  if (isFileError(error)) return new CliError(EXIT.usage, fileErrorText(error));
  const stack = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return new CliError(EXIT.bug, stack, "this is a bug in ao; please report it with the lines above");
}

function nextCommand(error: ConnectError): string | undefined {
  // The coordinator knows better when it names a command itself.
  if (error.rawMessage.includes("`ao ")) return undefined;
  switch (error.code) {
    case Code.NotFound:
      return "`ao runs ls` and `ao sessions` list what there is";
    case Code.AlreadyExists:
      return "`ao resume NAME` continues a session; `ao start` with another name begins one";
    case Code.FailedPrecondition:
      return "`ao runs ls` shows what is active";
    case Code.OutOfRange:
      return "the coordinator has another store: repeat the command to begin from the start";
    case Code.ResourceExhausted:
      return "`ao doctor` checks the store and the disk";
    default:
      return undefined;
  }
}

/** Exit code of an error of commander: help and version are 0, everything else is a usage error. */
export function commanderExit(error: CommanderError): ExitCode {
  return error.exitCode === 0 ? EXIT.ok : EXIT.usage;
}
