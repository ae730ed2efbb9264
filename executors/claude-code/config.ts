import type { JsonObject } from "@bufbuild/protobuf";
import { checkedConfig, flag, money, object, oneOf, text, texts, wholeNumber } from "../lib/agent/config-checks.ts";
import type { Check } from "../lib/agent/config-checks.ts";

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

const settingSources: Check<SettingSource[]> = {
  is: `a list of ${SETTING_SOURCES.join(", ")}`,
  read: (value) =>
    Array.isArray(value) && value.every((one) => SETTING_SOURCES.some((name) => name === one))
      ? (value as SettingSource[])
      : undefined,
};

const KEYS = {
  model: text,
  permission_mode: oneOf(...PERMISSION_MODES),
  setting_sources: settingSources,
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

/** @throws AgentError BAD_CONFIG that names the key, its value and what belongs there. */
export function claudeConfig(config: JsonObject): ClaudeConfig {
  const known = checkedConfig(config, KEYS);
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
