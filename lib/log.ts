import { pino, stdTimeFunctions } from "pino";
import type { DestinationStream, Level, Logger } from "pino";
import { prettyFactory } from "pino-pretty";

export type Log = Logger;
export type LogLevel = Level | "silent";
/** `auto` is pretty when stderr is a terminal and JSON otherwise. */
export type LogFormat = "pretty" | "json" | "auto";

export interface LogOptions {
  /** Name of the program, a field of every line. */
  name: string;
  level: LogLevel;
  format: LogFormat;
  /** Where lines go; stderr when absent, because stdout carries data. */
  destination?: DestinationStream;
}

/** Fields that carry secrets or a user's words, in the spelling of the wire and in that of TypeScript. */
const SECRETS = ["authorization", "prompt", "run_token", "runToken", "runner_token", "runnerToken", "token"] as const;

/**
 * A logger that writes each line before the call returns, so that the last line before an exit is never lost.
 * Secret fields are replaced by `[redacted]` at the top of the logged object and one level down; deeper ones are not.
 */
export function createLogger({ name, level, format, destination }: LogOptions): Log {
  const target = destination ?? pino.destination({ dest: 2, sync: true });
  const pretty = format === "pretty" || (format === "auto" && process.stderr.isTTY);
  return pino(
    {
      name,
      level,
      redact: { paths: SECRETS.flatMap((key) => [key, `*.${key}`]), censor: "[redacted]" },
      formatters: { level: (label) => ({ level: label }) },
      timestamp: stdTimeFunctions.isoTime,
    },
    pretty ? prettified(target) : target,
  );
}

/** Formats in the calling stack: pino-pretty's own stream is asynchronous and loses the lines before process.exit(). */
function prettified(target: DestinationStream): DestinationStream {
  const format = prettyFactory({
    colorize: process.stderr.isTTY && process.env["NO_COLOR"] === undefined,
    ignore: "pid,hostname,name",
    translateTime: "SYS:HH:MM:ss.l",
    singleLine: true,
  });
  return { write: (line) => target.write(format(line)) };
}
