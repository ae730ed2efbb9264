import { hostname } from "node:os";
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

/** Most of the log that waits for its reader; what comes beyond is dropped and counted. */
const WAITING_MAX_CHARS = 1024 * 1024;

/**
 * A logger that writes each line before the call returns, so that the last line before an exit is not lost. Only when
 * nobody reads stderr, as behind a collector that hangs, lines wait, are dropped and counted: the process goes on.
 * Secret fields are replaced by `[redacted]` at the top of the logged object and one level down; deeper ones are not.
 */
export function createLogger({ name, level, format, destination }: LogOptions): Log {
  const target = destination ?? (stderr ??= new Stderr());
  const pretty = format === "pretty" || (format === "auto" && process.stderr.isTTY);
  const log = pino(
    {
      // Not pino's own, which calls this machine `hostname`: that is what runners are said to be on.
      base: { pid: process.pid, host: hostname(), name },
      level,
      redact: { paths: SECRETS.flatMap((key) => [key, `*.${key}`]), censor: "[redacted]" },
      formatters: { level: (label) => ({ level: label }) },
      timestamp: stdTimeFunctions.isoTime,
    },
    pretty ? prettified(target) : target,
  );
  if (target === stderr) stderr.onGap = (lines) => log.warn({ lines }, "log lines were dropped: nobody read them");
  return log;
}

/** A pipe is written to at once as long as it takes something, and never waited for. Files and terminals always take it. */
class Stderr implements DestinationStream {
  /** Hears how many lines were dropped, when lines are written again. */
  onGap: (lines: number) => void = () => undefined;
  #dropped = 0;

  constructor() {
    // A reader that has gone (EPIPE) is no reason to end: there is nobody to tell.
    process.stderr.on("error", () => undefined);
    process.stderr.on("drain", () => this.#tell());
  }

  write(line: string): void {
    if (process.stderr.destroyed || process.stderr.writableLength > WAITING_MAX_CHARS) this.#dropped += 1;
    else process.stderr.write(line);
  }

  #tell(): void {
    const lines = this.#dropped;
    this.#dropped = 0;
    if (lines > 0) this.onGap(lines);
  }
}

/** The one of this process. */
let stderr: Stderr | undefined;

/** Formats in the calling stack: pino-pretty's own stream is asynchronous and loses the lines before process.exit(). */
function prettified(target: DestinationStream): DestinationStream {
  const format = prettyFactory({
    colorize: process.stderr.isTTY && process.env["NO_COLOR"] === undefined,
    ignore: "pid,host,name",
    translateTime: "SYS:HH:MM:ss.l",
    singleLine: true,
  });
  return { write: (line) => target.write(format(line)) };
}
