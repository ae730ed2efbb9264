import type { JsonObject } from "@bufbuild/protobuf";
import { AgentError } from "../lib/agent/agent-error.ts";
import { checkedConfig, flag, oneOf, text, texts, variables, wholeNumber } from "../lib/agent/config-checks.ts";
import type { ListStyle } from "./arguments.ts";

/** A command that nobody bounded ends after this time. */
const TIMEOUT_MS = 300_000;

/** Longest time that a timer of Node can wait. */
const TIMER_MAX_MS = 2_147_483_647;

/** `executor_config` of a profile of type procedural. */
export interface ProceduralConfig {
  /** Absolute path, a path relative to `cwd`, or a name on PATH. */
  readonly command: string;
  /** Before those of the parameters. */
  readonly args: readonly string[];
  /** 0: none but that of the run. */
  readonly timeoutMs: number;
  readonly env: Readonly<Record<string, string>>;
  /** Relative to the project directory. */
  readonly cwd: string;
  readonly lists: ListStyle;
  /** A resumed session runs the command once more. */
  readonly resumable: boolean;
}

const KEYS = {
  command: text,
  args: texts,
  timeout_ms: wholeNumber(0),
  env: variables,
  cwd: text,
  lists: oneOf("joined", "repeated"),
  resumable: flag,
};

/** @throws AgentError BAD_CONFIG that names the key, its value and what belongs there. */
export function proceduralConfig(config: JsonObject): ProceduralConfig {
  const values = checkedConfig(config, KEYS);
  if (values.command === undefined) {
    throw new AgentError(
      "BAD_CONFIG",
      'config has no "command": the program that this agent is, such as "./scripts/report.sh"',
    );
  }
  return {
    command: values.command,
    args: values.args ?? [],
    timeoutMs: Math.min(values.timeout_ms ?? TIMEOUT_MS, TIMER_MAX_MS),
    env: values.env ?? {},
    cwd: values.cwd ?? ".",
    lists: values.lists ?? "joined",
    resumable: values.resumable ?? false,
  };
}
