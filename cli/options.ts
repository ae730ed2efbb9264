import type { JsonObject } from "@bufbuild/protobuf";
import { create } from "@bufbuild/protobuf";
import type { Duration } from "@bufbuild/protobuf/wkt";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { InvalidArgumentError, Option } from "commander";
import type { Command } from "commander";
import { createReadStream } from "node:fs";
import { resolve } from "node:path";
import type { Readable } from "node:stream";
import { DemandsSchema, OnLostSchema, OnLost_Policy } from "../gen/agentrunner/v1/run_pb.ts";
import type { CreateRunRequest } from "../gen/agentrunner/v1/run_service_pb.ts";
import { fileProblem, isFileError } from "../lib/config/file-problem.ts";
import { parseDurationMs } from "../lib/config/kinds.ts";
import { readJson } from "../lib/protocol/json-text.ts";
import { jsonProblem } from "../lib/protocol/json-values.ts";
import { INVOCATION_MAX_BYTES } from "../lib/protocol/limits.ts";
import { NotText, utf8Text } from "../lib/text.ts";
import type { Cli } from "./cli.ts";
import { usage } from "./errors.ts";
import { here, newRequestId } from "./here.ts";

/** Options of `ao start` and `ao resume` that make the run. */
export interface RunOptions {
  readonly prompt?: string;
  readonly promptFile?: string;
  readonly timeout?: Duration;
  readonly idleTimeout?: Duration;
  readonly lostAfter?: Duration;
  readonly onLost?: "fail" | "retry" | "resume";
  readonly maxAttempts?: number;
  readonly profile?: string;
  readonly hostname?: string;
  readonly tag?: string[];
  readonly projectDir?: string;
  readonly metadata?: JsonObject;
  readonly parameters?: JsonObject;
  readonly requestId?: string;
  readonly follow?: true;
  /** Only of `ao start`. */
  readonly agent?: string;
}

const POLICIES = { fail: OnLost_Policy.FAIL, retry: OnLost_Policy.RETRY, resume: OnLost_Policy.RESUME } as const;

/** Adds the options that `ao start` and `ao resume` share. */
export function addRunOptions(command: Command): Command {
  return command
    .addOption(new Option("-p, --prompt <text>", "text for the agent; - reads stdin").conflicts("promptFile"))
    .option("--prompt-file <file>", "file with the text for the agent; - reads stdin")
    .option("--profile <name>", "executor profile (default: any runner)")
    .option("--tag <tag>", "tag that the runner must have; repeat for more", collect)
    .option("--hostname <host>", "host of the runner")
    .option("--project-dir <dir>", "directory for the executor (default: the session's, else the runner's)", absolute)
    .option("--timeout <time>", "longest time the executor may run, such as 10m (default: no limit)", durationOption)
    .option("--idle-timeout <time>", "longest time it may print nothing (default: no limit)", durationOption)
    .addOption(new Option("--on-lost <policy>", "when the runner is lost").choices(Object.keys(POLICIES)))
    .option("--max-attempts <n>", "most attempts with --on-lost retry or resume, the first included", count)
    .option("--lost-after <time>", "time without word from the runner after which the run is lost", durationOption)
    .option("--metadata <json>", "JSON object, passed to the executor", jsonObject)
    .option("--parameters <json>", "JSON object of parameters for the agent", jsonObject)
    .option("--request-id <id>", "name of this request: repeating it returns the same run")
    .option("-f, --follow", "show what happens until the run ends, and what callbacks resume after it; end as it does");
}

/** The request that the options describe, but for the session. Reads the prompt. Throws a usage error. */
export async function runRequest(options: RunOptions, cli: Pick<Cli, "io" | "say">) {
  const { profile, hostname, tag, onLost, maxAttempts } = options;
  if (maxAttempts !== undefined && (onLost ?? "fail") === "fail") {
    throw usage("--max-attempts needs --on-lost retry or resume: a lost run fails otherwise");
  }
  const demanded = profile !== undefined || hostname !== undefined || tag !== undefined;
  return {
    // Always set, so that a call whose answer was lost can be repeated without making a second run.
    requestId: options.requestId ?? newRequestId(here()),
    agentName: options.agent ?? "",
    prompt: await readPrompt(options, cli),
    projectDir: options.projectDir ?? "",
    ...(demanded && {
      demands: create(DemandsSchema, { executorProfile: profile ?? "", hostname: hostname ?? "", tags: tag ?? [] }),
    }),
    ...(onLost && { onLost: create(OnLostSchema, { policy: POLICIES[onLost], maxAttempts: maxAttempts ?? 0 }) }),
    ...(options.timeout && { timeout: options.timeout }),
    ...(options.idleTimeout && { idleTimeout: options.idleTimeout }),
    ...(options.lostAfter && { lostAfter: options.lostAfter }),
    ...(options.metadata && { metadata: options.metadata }),
    ...(options.parameters && { parameters: options.parameters }),
  } satisfies Partial<CreateRunRequest>;
}

async function readPrompt(options: RunOptions, { io, say }: Pick<Cli, "io" | "say">): Promise<string> {
  const { prompt, promptFile, parameters } = options;
  const { stdin } = io;
  if (prompt === undefined && promptFile === undefined) {
    // The coordinator decides whether the parameters are enough: it knows the agent, also the one of a session that goes on.
    if (parameters !== undefined) return "";
    throw usage("a run needs a prompt", "give --prompt TEXT, --prompt-file FILE, or --prompt-file - for stdin");
  }
  if (prompt !== undefined && prompt !== "-") return usable(prompt, "--prompt");
  if (promptFile === undefined || promptFile === "-") {
    if (stdin.isTTY === true) say("reading the prompt from the terminal; Ctrl+D on a line of its own ends it");
    return usable(utf8(await readAll(stdin, "stdin"), "stdin"), "stdin");
  }
  try {
    return usable(utf8(await readAll(createReadStream(promptFile), promptFile), promptFile), promptFile);
  } catch (error) {
    if (isFileError(error)) throw usage(`cannot read the prompt from ${promptFile}: ${fileProblem(error, promptFile)}`);
    throw error;
  }
}

function usable(text: string, from: string): string {
  if (text.trim() === "") throw usage(`the prompt from ${from} is empty`);
  if (Buffer.byteLength(text) > INVOCATION_MAX_BYTES) throw tooLarge(from);
  return text;
}

function tooLarge(from: string): Error {
  return usage(
    `the prompt from ${from} is larger than ${INVOCATION_MAX_BYTES} bytes`,
    "name a file in the prompt instead",
  );
}

function utf8(bytes: Uint8Array, from: string): string {
  try {
    return utf8Text(bytes);
  } catch (error) {
    if (error instanceof NotText) throw usage(`the prompt from ${from} ${error.message}`);
    throw error;
  }
}

/** Reads at most what a run may hold: more would be refused anyway. */
async function readAll(source: Readable, from: string): Promise<Uint8Array> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of source) {
    const bytes = Buffer.from(chunk as Buffer | string);
    size += bytes.length;
    if (size > INVOCATION_MAX_BYTES) throw tooLarge(from);
    chunks.push(bytes);
  }
  return Buffer.concat(chunks);
}

const DURATION_MAX_MS = 36_500 * 86_400_000;

/** Parses `10m`, `1m30s`, `500ms` or `0` to a Duration. */
export function durationOption(text: string): Duration {
  const durationMs = parseDurationMs(text);
  if (durationMs === undefined) throw new InvalidArgumentError("it must be a duration such as 500ms, 10s, 10m or 30d.");
  if (durationMs > DURATION_MAX_MS) throw new InvalidArgumentError("it is longer than 36500d, a hundred years.");
  return durationFromMs(durationMs);
}

/** Parses a whole number from 1. */
export function count(text: string): number {
  if (!/^[1-9]\d{0,8}$/.test(text)) throw new InvalidArgumentError("it must be a whole number from 1.");
  return Number(text);
}

/** Collects an option that is repeated. */
export function collect(text: string, before: string[] | undefined): string[] {
  return [...(before ?? []), text];
}

function absolute(dir: string): string {
  if (dir === "") throw new InvalidArgumentError("it must not be empty.");
  return resolve(dir);
}

function jsonObject(text: string): JsonObject {
  let value: unknown;
  try {
    value = readJson(text);
  } catch (error) {
    throw new InvalidArgumentError(error instanceof Error ? error.message : String(error));
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new InvalidArgumentError("it must be a JSON object.");
  }
  const problem = jsonProblem(value, "it");
  if (problem !== undefined) throw new InvalidArgumentError(`${problem}.`);
  return value as JsonObject;
}
