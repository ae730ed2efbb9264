import { parseArgs } from "node:util";
import { parse as parseYaml } from "yaml";
import type { JsonValue } from "@bufbuild/protobuf";
import { nearNames } from "../near-names.ts";
import { fileProblem, isFileError } from "./file-problem.ts";
import { wrap } from "../width.ts";
import type { Kind } from "./kinds.ts";

export { formatDurationMs, parseDurationMs } from "./kinds.ts";

/** A flag, variable or configuration file that cannot be used as it is. Programs print the text and exit with 2. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** One setting of a program. */
export interface Setting<T> {
  readonly kind: Kind<T>;
  /** Long flag without dashes. It is the key in the configuration file too. */
  readonly flag: string;
  /** Short flag without dash. */
  readonly short?: string;
  /** Environment variable. An empty one counts as unset. */
  readonly env?: string;
  /** Older variable that is still read, with a warning, when `env` is unset. */
  readonly oldEnv?: string;
  readonly default: NoInfer<T>;
  /** What the help says of the default where its value would not be understood. */
  readonly defaultText?: string;
  readonly help: string;
  /** False for what makes no sense in a file, such as --once. */
  readonly inFile?: false;
}

/** The table of a program: one setting for each key of its configuration, so that neither can lack one. */
export type Table<C> = { readonly [K in keyof C]: Setting<C[K]> };

/** Where a value came from, strongest first. */
export type Source = "flag" | "env" | "file" | "default";

export interface Program<C> {
  readonly name: string;
  readonly version: string;
  /** What it does, in a line or two. */
  readonly summary: string;
  readonly table: Table<C>;
  /** What `--help` says after the flags: signals and exit codes. */
  readonly epilogue: string;
  /** Configuration file that is read when it is there and `--config` names none. */
  readonly defaultFile: string;
  /** What is wrong with the values together; undefined when nothing is. */
  readonly check?: (config: C, sources: Readonly<Record<keyof C, Source>>) => string | undefined;
  /** The values that count, where some settings take the place of others. Called after `check`. Default: as they are. */
  readonly effective?: (config: C, sources: Readonly<Record<keyof C, Source>>) => C;
}

export type Parsed<C> =
  | {
      readonly type: "config";
      readonly config: C;
      readonly sources: Record<keyof C, Source>;
      readonly warnings: string[];
    }
  /** `--help`, `--version` or `--check-config`: print it on stdout and exit with 0. */
  | { readonly type: "text"; readonly text: string };

/** Reads a text file; undefined when it is not there. Other errors are thrown. */
export type ReadFile = (path: string) => string | undefined;

export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Reads the configuration of a program. A flag beats a variable, a variable the file, the file the default.
 *
 * @throws UsageError naming the flag, variable or key, its value and what is expected.
 */
export function parseConfig<C extends object>(
  program: Program<C>,
  argv: readonly string[],
  env: Environment,
  readFile: ReadFile,
): Parsed<C> {
  const settings = Object.entries(program.table) as [keyof C & string, Setting<unknown>][];
  const flags = readFlags(program.name, settings, argv);
  if (flags.has("help")) return { type: "text", text: helpText(program) };
  if (flags.has("version")) return { type: "text", text: `${program.name} ${program.version}\n` };
  const file = readConfigFile(program, settings, flags.get("config")?.at(-1), readFile);

  const warnings: string[] = [];
  const config: Record<string, unknown> = {};
  const sources: Record<string, Source> = {};
  for (const [key, setting] of settings) {
    const found = lookUp(setting, flags, env, file, warnings);
    sources[key] = found?.source ?? "default";
    config[key] = found === undefined ? setting.default : parseValue(setting, found);
  }
  const problem = program.check?.(config as C, sources as Record<keyof C, Source>);
  if (problem !== undefined) throw usage(program.name, problem);
  const known = sources as Record<keyof C, Source>;
  const effective = program.effective?.(config as C, known) ?? (config as C);
  if (flags.has("check-config")) return { type: "text", text: checkedText(program, effective, known, warnings) };
  return { type: "config", config: effective, sources: known, warnings };
}

/** What `--check-config` prints, as JSON. */
export interface CheckedConfig {
  readonly program: string;
  readonly version: string;
  /** By long flag. Durations are milliseconds; null is a setting without a value. */
  readonly settings: Readonly<Record<string, { readonly value: JsonValue; readonly source: Source }>>;
  readonly warnings: readonly string[];
}

function checkedText<C extends object>(
  { name, version, table }: Program<C>,
  config: C,
  sources: Record<keyof C, Source>,
  warnings: readonly string[],
): string {
  const keys = Object.keys(table) as (keyof C & string)[];
  const settings = Object.fromEntries(
    keys.map((key) => [table[key].flag, { value: config[key] ?? null, source: sources[key] }]),
  );
  const checked: CheckedConfig = { program: name, version, settings, warnings };
  return `${JSON.stringify(checked, undefined, 2)}\n`;
}

interface Found {
  readonly source: Source;
  /** The flag, variable or key as the user wrote it. */
  readonly where: string;
  readonly texts: readonly string[];
}

function lookUp(
  setting: Setting<unknown>,
  flags: ReadonlyMap<string, readonly string[]>,
  env: Environment,
  file: ReadonlyMap<string, Found>,
  warnings: string[],
): Found | undefined {
  const { flag, kind } = setting;
  const given = flags.get(flag);
  if (given !== undefined) return { source: "flag", where: `--${flag}`, texts: kind.many ? given : given.slice(-1) };
  for (const name of [setting.env, setting.oldEnv]) {
    const text = name === undefined ? undefined : env[name];
    if (name === undefined || text === undefined || text === "") continue;
    if (name === setting.oldEnv) warnings.push(`${name} is deprecated: set ${setting.env ?? `--${flag}`} instead`);
    return { source: "env", where: name, texts: kind.many ? text.split(",") : [text] };
  }
  return file.get(flag);
}

function parseValue(setting: Setting<unknown>, { where, texts }: Found): unknown {
  const value = setting.kind.parse(texts);
  if (value !== undefined) return value;
  throw new UsageError(`${where} is ${texts.map((text) => `"${text}"`).join(", ")}; expected ${setting.kind.expects}`);
}

/** Flags every program has beside its table. */
const COMMON = [
  { flag: "config", placeholder: "FILE", help: "YAML file whose keys are the long flags" },
  {
    flag: "check-config",
    placeholder: "",
    help: "Check flags, variables and file, print the settings as JSON and exit",
  },
  { flag: "help", short: "h", placeholder: "", help: "Print this and exit" },
  { flag: "version", placeholder: "", help: "Print the version and exit" },
] as const;

/** Every flag that was given, with its texts in order; a switch has the text "true". */
function readFlags(
  program: string,
  settings: readonly [string, Setting<unknown>][],
  argv: readonly string[],
): Map<string, string[]> {
  const known = new Map<string, { short?: string; placeholder: string }>(
    settings.map(([, { flag, short, kind }]) => [flag, { ...(short && { short }), placeholder: kind.placeholder }]),
  );
  for (const common of COMMON) known.set(common.flag, common);
  const single = argv.find((text) => /^-[^-]/.test(text) && known.has(text.slice(1).replace(/=.*$/s, "")));
  // Else `-executor x` would be `-e xecutor` and x.
  if (single !== undefined) throw usage(program, `unknown flag ${single}; did you mean -${single}?`);
  const { tokens } = parseArgs({
    args: [...argv],
    strict: false,
    tokens: true,
    options: Object.fromEntries(
      [...known].map(([flag, { short, placeholder }]) => [
        flag,
        { ...(short && { short }), type: placeholder === "" ? ("boolean" as const) : ("string" as const) },
      ]),
    ),
  });
  const given = new Map<string, string[]>();
  for (const token of tokens) {
    if (token.kind === "option-terminator") continue;
    if (token.kind === "positional") throw usage(program, `unexpected argument "${token.value}"`);
    const flag = known.get(token.name);
    if (flag === undefined) throw usage(program, unknownFlag(token.rawName, [...known.keys()]));
    if (flag.placeholder !== "" && token.value === undefined) {
      throw usage(program, `${token.rawName} needs a value: ${token.rawName} ${flag.placeholder}`);
    }
    given.set(token.name, [...(given.get(token.name) ?? []), token.value ?? "true"]);
  }
  return given;
}

function unknownFlag(rawName: string, flags: readonly string[]): string {
  const typed = rawName.replace(/^-+/, "");
  const near = nearest(typed, flags);
  return `unknown flag ${rawName}${near === undefined ? "" : `; did you mean --${near}?`}`;
}

/** A slip or two away, or the beginning of one or the other; undefined for what is too short to tell. */
function nearest(typed: string, flags: readonly string[]): string | undefined {
  if (typed.length < 3) return undefined;
  return nearNames(typed, flags)[0] ?? flags.find((flag) => typed.startsWith(flag));
}

function usage(program: string, text: string): UsageError {
  return new UsageError(`${text}\nsee \`${program} --help\``);
}

/** The settings of the file by flag, as texts. */
function readConfigFile<C>(
  program: Program<C>,
  settings: readonly [string, Setting<unknown>][],
  named: string | undefined,
  readFile: ReadFile,
): Map<string, Found> {
  const path = named ?? program.defaultFile;
  const text = readOrRefuse(path, named, readFile);
  const found = new Map<string, Found>();
  if (text === undefined) {
    if (named !== undefined) throw new UsageError(`--config is "${named}", which is not there`);
    return found;
  }
  const content = parseYamlMap(path, text);
  for (const [key, value] of Object.entries(content)) {
    const setting = settings.find(([, { flag, inFile }]) => flag === key && inFile !== false)?.[1];
    if (setting === undefined) throw new UsageError(`${path}: unknown key "${key}"; ${keyHint(key, settings)}`);
    found.set(key, { source: "file", where: `${path}: ${key}`, texts: textsOf(path, key, value) });
  }
  return found;
}

function keyHint(key: string, settings: readonly [string, Setting<unknown>][]): string {
  const flags = settings.flatMap(([, { flag, inFile }]) => (inFile === false ? [] : [flag]));
  const near = nearest(key, flags);
  return near === undefined ? "keys are the long flags" : `did you mean ${near}?`;
}

/** @throws UsageError for a file that is there, or may be, and cannot be read. */
function readOrRefuse(path: string, named: string | undefined, readFile: ReadFile): string | undefined {
  try {
    return readFile(path);
  } catch (error) {
    if (!isFileError(error)) throw error;
    const problem = fileProblem(error, path);
    if (named !== undefined) throw new UsageError(`--config ${path} cannot be read: ${problem}`);
    throw new UsageError(
      `configuration file ${path} cannot be read: ${problem}\n` +
        "it is looked for in the current directory: start in another one, or name a file with --config FILE",
    );
  }
}

function parseYamlMap(path: string, text: string): Record<string, unknown> {
  let content: unknown;
  try {
    content = parseYaml(text);
  } catch (error) {
    throw new UsageError(`${path} is not YAML: ${error instanceof Error ? error.message : String(error)}`);
  }
  if (content === null || content === undefined) return {};
  if (typeof content !== "object" || Array.isArray(content)) throw new UsageError(`${path} is not a YAML mapping`);
  return content as Record<string, unknown>;
}

function textsOf(path: string, key: string, value: unknown): string[] {
  const values: unknown[] = Array.isArray(value) ? value : [value];
  return values.map((one) => {
    if (typeof one === "string" || typeof one === "number" || typeof one === "boolean") return String(one);
    throw new UsageError(`${path}: ${key} is ${JSON.stringify(one)}; expected a plain value or a list of them`);
  });
}

/** Columns of the flags in a help page; a longer one has its text below it. */
const LEFT_MAX = 30;
/** The same where lines are so short that the texts need the room. */
const LEFT_NARROW = 12;

/** The `--help` of a program, on lines of at most `columns`. */
export function helpText<C>(program: Program<C>, columns = helpColumns()): string {
  const settings: Setting<unknown>[] = Object.values(program.table);
  const rows = [
    ...settings.map((setting) => ({
      left: flagColumn(setting.flag, setting.short, setting.kind.placeholder),
      right: setting.help + helpTail(setting),
    })),
    ...COMMON.map((common) => ({
      left: flagColumn(common.flag, "short" in common ? common.short : undefined, common.placeholder),
      right: common.help + (common.flag === "config" ? ` [default: ${program.defaultFile}, when it is there]` : ""),
    })),
  ];
  const left = Math.min(columns < 72 ? LEFT_NARROW : LEFT_MAX, Math.max(...rows.map((row) => row.left.length)));
  const indent = " ".repeat(left + 4);
  const lines = rows.map((row) => {
    const right = wrap(row.right, columns - indent.length).replaceAll("\n", `\n${indent}`);
    return row.left.length > left ? `  ${row.left}\n${indent}${right}` : `  ${row.left.padEnd(left)}  ${right}`;
  });
  const summary = program.summary.split("\n").map((line) => wrap(line, columns));
  const epilogue = program.epilogue.split("\n").map((line) => wrap(line, columns));
  return `Usage: ${program.name} [flags]\n\n${summary.join("\n")}\n\nA flag beats a variable, a variable the file.\n\n${lines.join("\n")}\n\n${epilogue.join("\n")}\n`;
}

/** Those of the terminal, at most 100; 80 in a pipe. */
function helpColumns(): number {
  return Math.min(process.stdout.columns || 80, 100);
}

function flagColumn(flag: string, short: string | undefined, placeholder: string): string {
  return `${short === undefined ? "    " : `-${short}, `}--${flag}${placeholder === "" ? "" : ` ${placeholder}`}`;
}

function helpTail(setting: Setting<unknown>): string {
  const notes: string[] = [];
  const text = setting.defaultText ?? defaultText(setting.default);
  if (text !== "") notes.push(`default: ${text}`);
  if (setting.kind.many) notes.push("repeatable");
  if (setting.env !== undefined) notes.push(`env: ${setting.env}`);
  return notes.length === 0 ? "" : ` [${notes.join("; ")}]`;
}

function defaultText(value: unknown): string {
  if (typeof value === "number" || (typeof value === "string" && value !== "")) return String(value);
  return "";
}
