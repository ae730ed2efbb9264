import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { EXIT } from "../lib/exit-codes.ts";
import type { ExitCode } from "../lib/exit-codes.ts";
import type { CheckedConfig } from "../lib/config/config.ts";
import { inPackage, MODULE_EXTENSION } from "../lib/package-root.ts";
import { CliError } from "./errors.ts";

/*
 * The programs that `ao dev` starts, `ao doctor` looks at and `ao executors` asks. `ao` knows them by their files alone and asks them what they
 * would do, so that it can be shipped without them.
 */

/** Main modules by program, relative to the package, without their ending. */
const MAIN = { coordinator: "coordinator/main", runner: "runner/main", check: "conformance/main" } as const;

export type ProgramName = keyof typeof MAIN;

type Env = Readonly<Record<string, string | undefined>>;

/** Longest time that a program may take to say what it is asked. */
const ASK_MAX_MS = 20_000;

/** The program is not part of this installation. */
export class ProgramMissing extends CliError {
  constructor(program: ProgramName, file: string) {
    super(
      EXIT.refused,
      `the ${program} is not installed here: there is no ${file}`,
      "install the package agent-runner",
    );
  }
}

/** Absolute path of a program's main file. @throws ProgramMissing */
export function programFile(program: ProgramName, inRoot = inPackage): string {
  const file = inRoot(`${MAIN[program]}${MODULE_EXTENSION}`);
  if (!existsSync(file)) throw new ProgramMissing(program, file);
  return file;
}

/** An agent of the roster, which the executor drives. */
export interface ListedAgent {
  /** For people. */
  readonly label: string;
  /** Absolute path of its own file; absent when it is not installed. */
  readonly program?: string;
  /** How it is asked for its version; absent when it is not installed. */
  readonly ask?: {
    readonly program: string;
    readonly args: readonly string[];
    readonly env: Readonly<Record<string, string>>;
  };
  /** It is installed, and somebody is logged in. */
  readonly ready: boolean;
  /** The version that it should have. */
  readonly version: string;
  /** Oldest version that can be driven. */
  readonly atLeast?: string;
  /** The command that installs the version. */
  readonly install: string;
}

/** An executor as `agent-runner --executor-list` tells of it. */
interface ListedExecutor {
  readonly name: string;
  readonly path: string;
  /** The folder of executors that holds it. */
  readonly source: string;
  /** The name is that of an agent. */
  readonly agent?: ListedAgent;
}

export interface ExecutorList {
  readonly executors: readonly ListedExecutor[];
  /** What looks like an executor and cannot be used, and why. */
  readonly problems: readonly { readonly name: string; readonly message: string }[];
}

/** Settings by long flag. */
export type Settings = CheckedConfig["settings"];

/** Absolute path that a setting has; undefined when it has none. */
export function pathOf(settings: Settings, flag: string): string | undefined {
  const value = settings[flag]?.value;
  return typeof value === "string" && value !== "" ? resolve(value) : undefined;
}

/** Absolute path of the file of a coordinator's store; undefined when it keeps nothing. */
export function storeOf(settings: Settings): string | undefined {
  return settings["memory"]?.value === true ? undefined : pathOf(settings, "store");
}

/**
 * The settings that a program would start with, for these flags.
 *
 * @throws CliError with the program's own words when it would not start; ProgramMissing.
 */
export async function settingsOf(
  program: ProgramName,
  flags: readonly string[] = [],
  env: Env = process.env,
  inRoot = inPackage,
): Promise<Settings> {
  return (
    JSON.parse(await ask(programFile(program, inRoot), [...flags, "--check-config"], env, program)) as CheckedConfig
  ).settings;
}

/** The executors that a runner with these flags finds. @throws CliError, ProgramMissing. */
export async function listExecutors(
  runnerFlags: readonly string[] = [],
  env: Env = process.env,
  inRoot = inPackage,
): Promise<ExecutorList> {
  const flags = [...runnerFlags, "--executor-list", "--output", "json"];
  return JSON.parse(await ask(programFile("runner", inRoot), flags, env, "runner")) as ExecutorList;
}

/** What a program prints on stdout under the Node that runs us. */
async function ask(file: string, args: readonly string[], env: Env, program: ProgramName): Promise<string> {
  const { code, stdout, stderr } = await new Promise<{ code: unknown; stdout: string; stderr: string }>((resolve) => {
    const options = { env, timeout: ASK_MAX_MS, maxBuffer: 16 * 1024 * 1024 };
    execFile(process.execPath, [file, ...args], options, (error, stdout, stderr) =>
      resolve({ code: error === null ? EXIT.ok : error.code, stdout, stderr }),
    );
  });
  if (code === EXIT.ok) return stdout;
  const why = stderr.trim().replace(/^error: /, "") || `it did not answer within ${ASK_MAX_MS / 1_000} s`;
  throw new CliError(exitCodeOf(code), `the ${program}: ${why}`);
}

function exitCodeOf(code: unknown): ExitCode {
  return Object.values(EXIT).find((known) => known === code) ?? EXIT.bug;
}
