import { PassThrough } from "node:stream";
import { connect } from "../../client/connect.ts";
import type { Services } from "../../client/connect.ts";
import { columnsOf } from "../cli.ts";
import type { Io } from "../cli.ts";
import type { Sink } from "../screen.ts";
import type { Paint } from "../text/format.ts";

/** A run did not do what the demo shows it for. */
export class Unexpected extends Error {
  override readonly name = "Unexpected";
}

export function expect(condition: boolean, what: string): void {
  if (!condition) throw new Unexpected(what);
}

/** What the parts of the demo work with. */
export interface DemoContext extends Pick<Services, "runs" | "sessions"> {
  readonly paint: Paint;
  readonly say: (text: string) => void;
  /** Shows a command and runs it; fails unless it exits as expected. Returns what it writes to stdout; `data` has it as it comes. */
  readonly ao: (args: readonly string[], exitCode: number, data?: string[]) => Promise<string>;
}

const INDENT = " ".repeat(4);

/** Writes what a command prints, indented under the command, and keeps it. */
function indented(kept: string[]): Sink {
  let atStart = true;
  return {
    isTTY: process.stdout.isTTY,
    columns: process.stdout.isTTY ? columnsOf(process, process.stdout) - INDENT.length : undefined,
    write: (text: string) => {
      kept.push(text);
      const lines = (atStart ? INDENT + text : text).replaceAll(/\n(?=[^\n])/g, `\n${INDENT}`);
      atStart = text.endsWith("\n");
      process.stdout.write(lines);
    },
  };
}

/** Runs `ao` with arguments, as main.ts does, and returns its exit code. */
export type RunAo = (args: readonly string[], io: Io) => Promise<number>;

export function openContext(url: string, paint: Paint, runAo: RunAo): DemoContext & { close(): void } {
  const { runs, sessions, close } = connect(url);
  const env = { ...cleanEnv(), AGENT_ORCHESTRATOR_API_URL: url };
  const say = (text: string): void => void process.stdout.write(`${text}\n`);
  return {
    paint,
    runs,
    sessions,
    say,
    ao: async (args, exitCode, data = []) => {
      say(`  ${paint("dim", "$")} ${paint("cyan", `ao ${args.map(quoted).join(" ")}`)}`);
      const stdin = new PassThrough().end();
      const io: Io = { stdin, stdout: indented(data), stderr: indented([]), env, onInterrupt: () => () => undefined };
      const code = await runAo(args, io);
      expect(code === exitCode, `\`ao ${args.join(" ")}\` exits with ${code}, not ${exitCode}`);
      return data.join("");
    },
    close,
  };
}

function quoted(argument: string): string {
  return /^[\w./:=-]+$/.test(argument) ? argument : `"${argument}"`;
}

/** Our environment without what would configure the programs otherwise than the demo does. */
export function cleanEnv(): NodeJS.ProcessEnv {
  const ours = /^(AGENT_|PROJECT_DIR$|RUNNER_TAGS$|POLL_TIMEOUT$|HEARTBEAT_INTERVAL$)/;
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !ours.test(name)));
}
