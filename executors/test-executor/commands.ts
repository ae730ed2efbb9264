import type { JsonObject } from "@bufbuild/protobuf";

/** What a prompt can tell the test executor to do, with the value that each command takes; executors/README.md explains them. */
export interface CommandValues {
  /** Milliseconds. */
  sleep: number;
  "wait-for-file": string;
  touch: string;
  print: string;
  error: string;
  status: string;
  tool: string;
  env: string;
  cwd: void;
  flood: { bytes: number; stream: "stdout" | "stderr" };
  result: string;
  json: JsonObject;
  "no-result": void;
  fail: string;
  /** Exit code. */
  exit: number;
  crash: void;
  "hang-after-result": void;
  "ignore-term": void;
  /** Milliseconds that the grandchild lives. */
  fork: number;
}

export type CommandName = keyof CommandValues;
export type CommandOf<N extends CommandName> = { [K in N]: { name: K; value: CommandValues[K] } }[N];
export type Command = CommandOf<CommandName>;

/** Long enough to outlive every test, short enough that nothing forgotten stays for a day. */
export const LONG_MS = 10 * 60_000;

/** A prompt that begins with a command and holds something that is none. */
export class CommandError extends Error {
  override name = "CommandError";
}

/** Reads what follows a command's name; throws CommandError. */
type Read<T> = (text: string, name: CommandName) => T;

const READ: { [N in CommandName]: Read<CommandValues[N]> } = {
  sleep: durationMs,
  "wait-for-file": something,
  touch: something,
  print: anything,
  error: anything,
  status: anything,
  tool: something,
  env: something,
  cwd: nothing,
  flood: amountAndStream,
  result: anything,
  json: jsonObject,
  "no-result": nothing,
  fail: (text) => text || "failed, as the prompt says",
  exit: exitCode,
  crash: nothing,
  "hang-after-result": nothing,
  "ignore-term": nothing,
  fork: (text, name) => (text === "" ? LONG_MS : durationMs(text, name)),
};

export const COMMAND_NAMES = Object.keys(READ) as CommandName[];

/**
 * The commands of a prompt: one in each line, or several on a line with `;` between them; `json` takes the rest of its line.
 * None when the prompt does not begin with the name of a command. Throws CommandError for a bad one.
 */
export function parseCommands(prompt: string): Command[] {
  const statements = Array.from(prompt.matchAll(/json[ \t].*|[^;\s][^;\n]*/g), ([text]) => text.trim());
  return statements[0] !== undefined && isCommand(nameOf(statements[0])) ? statements.map(parseCommand) : [];
}

function parseCommand(statement: string): Command {
  const name = nameOf(statement);
  if (!isCommand(name)) throw new CommandError(`unknown command "${name}"; known are ${COMMAND_NAMES.join(", ")}`);
  return { name, value: READ[name](statement.slice(name.length).trim(), name) } as Command;
}

function nameOf(statement: string): string {
  return statement.split(/\s/, 1)[0] ?? "";
}

function isCommand(name: string): name is CommandName {
  return Object.hasOwn(READ, name);
}

function anything(text: string): string {
  return text;
}

function something(text: string, name: CommandName): string {
  return text || expected(name, "a value", text);
}

function nothing(text: string, name: CommandName): void {
  if (text !== "") expected(name, "nothing more", text);
}

const MS = { ms: 1, s: 1_000, m: 60_000 };

function durationMs(text: string, name: CommandName): number {
  const [, amount, unit] = /^(\d+(?:\.\d+)?)(ms|s|m)$/.exec(text) ?? [];
  const ms = Number(amount) * MS[unit as keyof typeof MS];
  return ms <= LONG_MS ? ms : expected(name, "a duration such as 500ms or 2s, up to 10m", text);
}

const BYTES = { B: 1, KB: 1e3, MB: 1e6, GB: 1e9, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30 };

function amountAndStream(text: string, name: CommandName): CommandValues["flood"] {
  const [, amount, unit, stream] = /^(\d+)([KMG]i?B|B)(?:\s+(stdout|stderr))?$/.exec(text) ?? [];
  if (amount === undefined) return expected(name, "an amount such as 10MB, and stdout or stderr", text);
  const bytes = Number(amount) * BYTES[unit as keyof typeof BYTES];
  return { bytes, stream: stream === "stderr" ? "stderr" : "stdout" };
}

function exitCode(text: string, name: CommandName): number {
  return /^\d{1,3}$/.test(text) && Number(text) <= 255 ? Number(text) : expected(name, "a number from 0 to 255", text);
}

function jsonObject(text: string, name: CommandName): JsonObject {
  try {
    // Other JSON than an object becomes a text that is none, so that there is one way to fail.
    return JSON.parse(text.startsWith("{") ? text : "") as JsonObject;
  } catch (error) {
    throw new CommandError(`${name}: expected a JSON object, found "${text}"`, { cause: error });
  }
}

function expected(name: CommandName, what: string, text: string): never {
  throw new CommandError(`${name}: expected ${what}, found "${text}"`);
}
