import type { JsonObject } from "@bufbuild/protobuf";
import { checkedConfig, object, oneOf, text, texts, variables, wholeNumber } from "../lib/agent/config-checks.ts";

export const PERMISSION_MODES = ["full-access", "workspace-write", "read-only"] as const;
export type PermissionMode = (typeof PERMISSION_MODES)[number];

/** `executor_config` of a profile of type codex. */
export interface CodexConfig {
  /** Program that replaces the one that is found. */
  readonly program: string | undefined;
  readonly model: string | undefined;
  /** What its commands may do. Nobody is asked. */
  readonly permissionMode: PermissionMode;
  /** Times that a refused or broken request to the model is repeated; only for an endpoint of one's own. */
  readonly maxRetries: number;
  readonly addDirs: readonly string[];
  /** JSON Schema of the result's data. */
  readonly outputSchema: JsonObject | undefined;
  readonly env: Readonly<Record<string, string>>;
}

const KEYS = {
  program: text,
  model: text,
  permission_mode: oneOf(...PERMISSION_MODES),
  max_retries: wholeNumber(0),
  add_dirs: texts,
  output_schema: object,
  env: variables,
  // Names the entry of the roster, which chose this executor.
  agent: text,
};

/** @throws AgentError BAD_CONFIG that names the key, its value and what belongs there. */
export function codexConfig(config: JsonObject): CodexConfig {
  const values = checkedConfig(config, KEYS);
  return {
    program: values.program,
    model: values.model,
    permissionMode: values.permission_mode ?? "full-access",
    maxRetries: values.max_retries ?? 4,
    addDirs: values.add_dirs ?? [],
    outputSchema: values.output_schema,
    env: values.env ?? {},
  };
}
