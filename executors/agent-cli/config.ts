import type { JsonObject } from "@bufbuild/protobuf";
import { AgentError } from "../lib/agent/agent-error.ts";
import { checkedConfig, money, object, text, variables, wholeNumber } from "../lib/agent/config-checks.ts";
import type { RosterEntry } from "../lib/roster/roster-entry.ts";

/** Times that a refused or broken request to the model is repeated, where the agent can be told. */
export const MAX_RETRIES = 4;

/** `executor_config` of a profile of type agent-cli. */
export interface CliConfig {
  /** Name of the entry of the roster. */
  readonly agent: string;
  /** Program that replaces the one that is found. */
  readonly program: string | undefined;
  readonly model: string | undefined;
  readonly maxTurns: number | undefined;
  readonly maxBudgetUsd: number | undefined;
  readonly maxSeconds: number | undefined;
  readonly maxRetries: number | undefined;
  /** JSON Schema of the result's data. */
  readonly outputSchema: JsonObject | undefined;
  readonly env: Readonly<Record<string, string>>;
}

const KEYS = {
  agent: text,
  program: text,
  model: text,
  max_turns: wholeNumber(1),
  max_budget_usd: money,
  max_seconds: wholeNumber(1),
  max_retries: wholeNumber(0),
  output_schema: object,
  env: variables,
};

/** @throws AgentError BAD_CONFIG that names the key, its value and what belongs there. */
export function cliConfig(config: JsonObject): CliConfig {
  const values = checkedConfig(config, KEYS);
  if (values.agent === undefined) {
    throw new AgentError("BAD_CONFIG", 'config has no "agent": the name of an agent of the roster, such as "pi"');
  }
  return {
    agent: values.agent,
    program: values.program,
    model: values.model,
    maxTurns: values.max_turns,
    maxBudgetUsd: values.max_budget_usd,
    maxSeconds: values.max_seconds,
    maxRetries: values.max_retries,
    outputSchema: values.output_schema,
    env: values.env ?? {},
  };
}

/**
 * A limit that the agent does not have would be no limit at all.
 * @throws AgentError BAD_CONFIG that names the key.
 */
export function checkAbilities(config: CliConfig, entry: RosterEntry): void {
  const { limits, output, endpoint } = entry;
  const asked: readonly (readonly [key: string, value: unknown, has: unknown])[] = [
    ["max_turns", config.maxTurns, limits.maxTurnsFlag],
    ["max_budget_usd", config.maxBudgetUsd, limits.maxCostFlag],
    ["max_seconds", config.maxSeconds, limits.maxSecondsFlag],
    ["max_retries", config.maxRetries, limits.retriesEnv],
    ["output_schema", config.outputSchema, output.schemaFlag],
    ["model", config.model, endpoint.modelFlag ?? endpoint.model],
  ];
  for (const [key, value, has] of asked) {
    if (value === undefined || has !== undefined) continue;
    throw new AgentError("BAD_CONFIG", `"${key}" of config: ${entry.label} has nothing like it; leave it out`);
  }
}
