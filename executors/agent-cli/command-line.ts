import type { JsonObject } from "@bufbuild/protobuf";
import { AgentError } from "../lib/agent/agent-error.ts";
import type { RosterEntry } from "../lib/roster/roster-entry.ts";
import type { CliConfig } from "./config.ts";
import { MAX_RETRIES } from "./config.ts";
import type { Conversation } from "./conversation.ts";
import type { Format } from "./formats/format.ts";

type Env = Readonly<Record<string, string | undefined>>;

/** Linux takes no longer argument, its end included. */
export const ARGUMENT_MAX_BYTES = 131_071;

export interface CommandFacts {
  readonly entry: RosterEntry;
  readonly format: Format;
  readonly config: Omit<CliConfig, "agent" | "program" | "env">;
  readonly conversation: Conversation;
  readonly prompt: string;
  /** Empty: none. */
  readonly systemPrompt: string;
  readonly serverNames: readonly string[];
  /** What hands the servers over. */
  readonly serverArgs: readonly string[];
  /** File with the schema of the result, for an agent that wants a file. */
  readonly schemaFile: string | undefined;
  /** Variables of the executor. */
  readonly env: Env;
  /** Texts that must not stand in argv, which everybody on the machine can read. */
  readonly secrets: readonly string[];
}

export interface CommandLine {
  readonly args: readonly string[];
  /** Variables besides those of the executor. */
  readonly env: Readonly<Record<string, string>>;
  readonly stdin: string;
}

/**
 * The agent's arguments, variables and stdin, by the roster.
 * @throws AgentError LIMIT_REACHED for a prompt that it cannot take.
 */
export function commandLineOf(facts: CommandFacts): CommandLine {
  const { entry, format, config, env, serverNames, serverArgs } = facts;
  const { start, endpoint, limits, approval } = entry;
  const system = systemPromptOf(facts);
  const prompt = promptOf(entry, system.before + facts.prompt);
  const url = endpoint.url === undefined ? undefined : env[endpoint.url];
  const urlArgs = url ? (endpoint.urlArgs ?? []).map((arg) => arg.replaceAll("${url}", url)) : [];
  const model = config.model;
  return {
    args: [
      ...start.args,
      ...urlArgs,
      ...pair(endpoint.modelFlag, model),
      ...approval.args,
      ...(format.args?.(serverNames) ?? []),
      ...pair(limits.maxTurnsFlag, config.maxTurns),
      ...pair(limits.maxCostFlag, config.maxBudgetUsd),
      ...pair(limits.maxSecondsFlag, config.maxSeconds),
      ...pair(entry.output.schemaFlag, schemaOf(facts)),
      ...serverArgs,
      ...system.args,
      ...sessionArgs(entry, facts.conversation),
      ...prompt.args,
    ],
    env: {
      ...start.env,
      ...approval.env,
      ...(limits.retriesEnv !== undefined && { [limits.retriesEnv]: String(config.maxRetries ?? MAX_RETRIES) }),
      ...(endpoint.modelFlag === undefined && endpoint.model !== undefined && model !== undefined
        ? { [endpoint.model]: model }
        : {}),
    },
    stdin: prompt.stdin,
  };
}

function sessionArgs({ session }: RosterEntry, { id, isResumed }: Conversation): string[] {
  if (id === undefined) return [];
  return isResumed ? pair(session.resumeFlag, id) : pair(session.idFlag, id);
}

function schemaOf({ format, config, schemaFile }: CommandFacts): string | undefined {
  const schema: JsonObject | undefined = config.outputSchema;
  if (schema === undefined) return undefined;
  return format.schemaBy === "file" ? schemaFile : JSON.stringify(schema);
}

/** By its flag, or before the prompt: where there is no flag, and where the flag would show a secret or is too short for it. */
function systemPromptOf({ entry, systemPrompt, secrets }: CommandFacts): { args: string[]; before: string } {
  if (systemPrompt === "") return { args: [], before: "" };
  const { by, flag } = entry.instructions;
  const isPublic = !secrets.some((secret) => secret !== "" && systemPrompt.includes(secret));
  const fits = Buffer.byteLength(systemPrompt) < ARGUMENT_MAX_BYTES && !systemPrompt.includes("\0");
  if (by === "flag" && flag !== undefined && isPublic && fits)
    return { args: [flag, guarded(systemPrompt)], before: "" };
  return { args: [], before: `${systemPrompt}\n\n` };
}

function promptOf({ label, start }: RosterEntry, prompt: string): { args: string[]; stdin: string } {
  const bytes = Buffer.byteLength(prompt);
  const max = start.promptMaxBytes ?? (start.prompt === "argument" ? ARGUMENT_MAX_BYTES : Infinity);
  if (bytes > max) {
    throw new AgentError(
      "LIMIT_REACHED",
      `the prompt has ${bytes} bytes with its system prompt, and ${label} takes at most ${max}; put a part of it into a file`,
    );
  }
  if (start.prompt !== "argument") return { args: [], stdin: prompt };
  return { args: [...(start.promptFlag === undefined ? [] : [start.promptFlag]), guarded(prompt)], stdin: "" };
}

/** A text that begins with "-" is taken for a flag. A line end before it is none to a model. */
function guarded(text: string): string {
  return text.startsWith("-") ? `\n${text}` : text;
}

function pair(flag: string | undefined, value: string | number | undefined): string[] {
  return flag === undefined || value === undefined ? [] : [flag, String(value)];
}
