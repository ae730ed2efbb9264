import { Code, ConnectError } from "@connectrpc/connect";
import type { CommanderError } from "commander";
import { bug } from "../lib/bug.ts";
import { fileErrorText, isFileError } from "../lib/config/file-problem.ts";
import { EXIT } from "../lib/exit-codes.ts";
import type { ExitCode } from "../lib/exit-codes.ts";
import { reasonOf } from "../lib/rpc/error-info.ts";
import type { MissingReason } from "../lib/rpc/error-info.ts";
import { ProxyError } from "../lib/rpc/tunnel.ts";
import { describeConnectError } from "../lib/rpc/transport.ts";

/** A failure that `ao` explains in a line, with what to do next and the exit code. */
export class CliError extends Error {
  override readonly name = "CliError";
  readonly exitCode: ExitCode;
  /** Next command to try. */
  readonly hint: string | undefined;
  /** For programs: a code of Connect, such as `not_found`. */
  readonly code: string;
  /** For programs: the reason that the coordinator gave, such as `STORE_FULL`; empty when it gave none. */
  readonly reason: string;
  constructor(exitCode: ExitCode, message: string, hint?: string, cause: { code?: string; reason?: string } = {}) {
    super(message);
    this.exitCode = exitCode;
    this.hint = hint;
    this.code = cause.code ?? CODES[exitCode];
    this.reason = cause.reason ?? "";
  }
}

/** Codes of what no coordinator said. */
const CODES: Record<ExitCode, string> = {
  [EXIT.ok]: "ok",
  [EXIT.failed]: "aborted",
  [EXIT.usage]: "invalid_argument",
  [EXIT.unreachable]: "unavailable",
  [EXIT.refused]: "failed_precondition",
  [EXIT.stopped]: "cancelled",
  [EXIT.timedOut]: "deadline_exceeded",
  [EXIT.notFound]: "not_found",
  [EXIT.bug]: "internal",
};

/** An error as `-o json` writes it: one line, always with these keys. */
export function errorJson({ code, message, reason, hint = "", exitCode }: CliError): string {
  return JSON.stringify({ error: { code, message, reason, hint, exit_code: exitCode } });
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
    const code = (Code[error.code] ?? "unknown").replaceAll(/(?!^)[A-Z]/g, (c) => `_${c}`).toLowerCase();
    return new CliError(exitCode, text, hint ?? nextCommand(error), { code, reason: reasonOf(error) ?? "" });
  }
  if (error instanceof ProxyError) return new CliError(EXIT.unreachable, error.message);
  if (isFileError(error)) return new CliError(EXIT.usage, fileErrorText(error));
  const stack = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return new CliError(EXIT.bug, stack, "this is a bug in ao; please report it with the lines above");
}

/** By the reason of a NOT_FOUND: what lists things of that kind. */
const LISTS: Readonly<Record<string, string>> = {
  RUN_NOT_FOUND: "`ao ps` lists the runs",
  SESSION_NOT_FOUND: "`ao sessions` lists the sessions",
  RUNNER_NOT_FOUND: "`ao runners` lists the runners",
  BLUEPRINT_NOT_FOUND: "`ao blueprints` lists the blueprints",
} satisfies Record<MissingReason, string>;

function nextCommand(error: ConnectError): string | undefined {
  // The coordinator knows better when it names a command itself.
  if (error.rawMessage.includes("`ao ")) return undefined;
  switch (error.code) {
    case Code.NotFound:
      return LISTS[reasonOf(error) ?? ""] ?? "`ao ps` and `ao sessions` list what there is";
    case Code.AlreadyExists:
      return error.rawMessage.includes("session")
        ? "`ao resume NAME` continues a session; `ao start` with another name begins one"
        : undefined;
    case Code.FailedPrecondition:
      return error.rawMessage.includes("active") ? "`ao ps` shows what is active" : undefined;
    case Code.OutOfRange:
      if (reasonOf(error) === "STORE_WENT_BACK") return "repeat the command to begin from the start";
      return "the coordinator has another store: repeat the command to begin from the start";
    case Code.ResourceExhausted:
      return "`ao doctor` checks the store and the disk";
    default:
      return undefined;
  }
}

/** An error of commander, a usage error; undefined for help and version, which are none. */
export function commanderError(error: CommanderError): CliError | undefined {
  if (error.exitCode === 0) return undefined;
  // Help in place of what was asked for: commander's message about it is none for anybody.
  if (error.code === "commander.help") return usage("no command is given", "`ao --help` lists the commands");
  return usage(error.message.replace(/^error: /, ""), "--help shows the options");
}
