import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { AgentError } from "../lib/agent/agent-error.ts";

export const PERMISSION_MODES = ["dontAsk", "acceptEdits", "bypassPermissions", "default", "plan"] as const;
export type PermissionMode = (typeof PERMISSION_MODES)[number];

export const SETTING_SOURCES = ["user", "project", "local"] as const;
export type SettingSource = (typeof SETTING_SOURCES)[number];

/** Tools that an unattended agent may use when the profile does not say which. */
const ALLOWED_TOOLS = [
  "Bash",
  "Edit",
  "Glob",
  "Grep",
  "NotebookEdit",
  "Read",
  "Skill",
  "Task",
  "TodoWrite",
  "WebFetch",
  "WebSearch",
  "Write",
] as const;

/** `executor_config` of a profile of type claude-code. */
export interface ClaudeConfig {
  readonly model: string | undefined;
  readonly permissionMode: PermissionMode;
  readonly settingSources: readonly SettingSource[];
  readonly maxTurns: number | undefined;
  readonly maxBudgetUsd: number | undefined;
  /** Times that a refused or broken request to the model is repeated. */
  readonly maxRetries: number;
  readonly allowedTools: readonly string[];
  readonly disallowedTools: readonly string[];
  readonly addDirs: readonly string[];
  /** JSON Schema of the result's data. */
  readonly outputSchema: JsonObject | undefined;
  /** Sub-agents by name, as the agent's SDK takes them. */
  readonly agents: JsonObject | undefined;
  /** A resumed run continues in a copy, and leaves the conversation as it was. */
  readonly forkOnResume: boolean;
  /** Program that replaces the installed one. */
  readonly program: string | undefined;
}

type Check<T> = { readonly is: string; readonly read: (value: JsonValue) => T | undefined };

const text: Check<string> = {
  is: "a string that is not empty",
  read: (value) => (typeof value === "string" && value !== "" ? value : undefined),
};
const texts: Check<string[]> = {
  is: "a list of strings",
  read: (value) =>
    Array.isArray(value) && value.every((one) => typeof one === "string" && one !== "")
      ? (value as string[])
      : undefined,
};
const flag: Check<boolean> = {
  is: "true or false",
  read: (value) => (typeof value === "boolean" ? value : undefined),
};
const object: Check<JsonObject> = {
  is: "an object",
  read: (value) => (typeof value === "object" && value !== null && !Array.isArray(value) ? value : undefined),
};

function wholeNumber(from: number): Check<number> {
  return {
    is: `a whole number from ${from}`,
    read: (value) => (typeof value === "number" && Number.isSafeInteger(value) && value >= from ? value : undefined),
  };
}

const money: Check<number> = {
  is: "a number above 0",
  read: (value) => (typeof value === "number" && value > 0 ? value : undefined),
};

function oneOf<T extends string>(names: readonly T[]): Check<T> {
  return { is: `one of ${names.join(", ")}`, read: (value) => names.find((name) => name === value) };
}

function someOf<T extends string>(names: readonly T[]): Check<T[]> {
  return {
    is: `a list of ${names.join(", ")}`,
    read: (value) =>
      Array.isArray(value) && value.every((one) => names.some((name) => name === one)) ? (value as T[]) : undefined,
  };
}

const KEYS = {
  model: text,
  permission_mode: oneOf(PERMISSION_MODES),
  setting_sources: someOf(SETTING_SOURCES),
  max_turns: wholeNumber(1),
  max_budget_usd: money,
  max_retries: wholeNumber(0),
  allowed_tools: texts,
  disallowed_tools: texts,
  add_dirs: texts,
  output_schema: object,
  agents: object,
  fork_on_resume: flag,
  program: text,
  // Names the entry of the roster, which chose this executor.
  agent: text,
} satisfies Record<string, Check<unknown>>;

type Values = { [K in keyof typeof KEYS]?: NonNullable<ReturnType<(typeof KEYS)[K]["read"]>> };

/** @throws AgentError BAD_CONFIG that names the key, its value and what belongs there. */
export function claudeConfig(config: JsonObject): ClaudeConfig {
  const values: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(config)) {
    const check: Check<unknown> | undefined = Object.hasOwn(KEYS, key) ? KEYS[key as keyof typeof KEYS] : undefined;
    if (check === undefined) {
      throw new AgentError("BAD_CONFIG", `"${key}" of config is not known; known: ${Object.keys(KEYS).join(", ")}`);
    }
    const read = check.read(value);
    if (read === undefined) {
      throw new AgentError(
        "BAD_CONFIG",
        `"${key}" of config must be ${check.is}, not ${JSON.stringify(value).slice(0, 80)}`,
      );
    }
    values[key] = read;
  }
  const known = values as Values;
  return {
    model: known.model,
    permissionMode: known.permission_mode ?? "dontAsk",
    settingSources: known.setting_sources ?? ["project"],
    maxTurns: known.max_turns,
    maxBudgetUsd: known.max_budget_usd,
    maxRetries: known.max_retries ?? 4,
    allowedTools: known.allowed_tools ?? ALLOWED_TOOLS,
    disallowedTools: known.disallowed_tools ?? [],
    addDirs: known.add_dirs ?? [],
    outputSchema: known.output_schema,
    agents: known.agents,
    forkOnResume: known.fork_on_resume ?? false,
    program: known.program,
  };
}
