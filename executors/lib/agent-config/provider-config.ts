import type { ConfigData } from "./config-stack.ts";
import { configError } from "./diagnostics.ts";
import type { Diagnostic } from "./diagnostics.ts";
import type { AgentProvider } from "./provider.ts";
import { shown } from "./spec.ts";

/** Of a run whose configuration says nothing. */
const DEFAULT_TIMEOUT_S = 1800;

/** The key of a map by provider that stands for every other one. */
const OTHERS = "_default";

/** What the command line says, which wins. */
export interface ProviderOverrides {
  readonly model?: string | null;
  readonly maxTurns?: number | null;
  readonly timeout?: number | null;
  /** Instructions of the task, for a provider that has no place of its own for them. */
  readonly instructions?: string | null;
}

/** What of a configuration a provider can do. */
export interface ProviderConfig {
  readonly model: string | null;
  readonly maxTurns: number | null;
  /** Seconds; 0 for no limit. */
  readonly timeout: number;
  /** To put behind the prompt, with an empty line between. */
  readonly promptExtra: string;
  readonly warnings: readonly Diagnostic[];
}

/**
 * A value of the configuration: as it is, or of a map by provider, where null and nothing mean `_default`.
 * @returns undefined when there is none.
 */
export function resolveProviderValue(key: string, config: ConfigData, providerName: string): unknown {
  const value = own(config, key);
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value ?? undefined;
  const byProvider = value as ConfigData;
  return own(byProvider, providerName) ?? own(byProvider, OTHERS) ?? undefined;
}

function own(data: ConfigData, key: string): unknown {
  return Object.hasOwn(data, key) ? data[key] : undefined;
}

/**
 * What the provider can do of a configuration. What it cannot is said, and where words help, they go behind the prompt.
 * @throws AgentConfigError for a number that is none.
 */
export function applyProviderConfig(
  provider: AgentProvider,
  config: ConfigData,
  overrides: ProviderOverrides = {},
): ProviderConfig {
  const warnings: Diagnostic[] = [];
  const warn = (message: string) => warnings.push({ code: "config-unsupported", severity: "warning", message });
  const value = (key: string) => resolveProviderValue(key, config, provider.name);
  const words: string[] = [];
  if (overrides.instructions && provider.instructions.by === "prompt") words.push(overrides.instructions);

  const configured = value("model");
  let model = overrides.model || (configured === undefined ? null : asWord(configured));
  if (model !== null && provider.modelFlag === null) {
    warn(`${provider.label} takes no model by its command line: model ${shown(model)} is not used`);
    model = null;
  }
  let maxTurns = wholeNumber("max_turns", overrides.maxTurns ?? value("max_turns"));
  if (maxTurns !== null && provider.maxTurnsFlag === null) {
    words.push(`Important: complete this task in no more than ${maxTurns} steps.`);
    warn(`${provider.label} takes no limit of turns: the prompt asks for at most ${maxTurns} steps instead`);
    maxTurns = null;
  }
  const timeout = wholeNumber("timeout", overrides.timeout ?? value("timeout")) ?? DEFAULT_TIMEOUT_S;
  const subagents = own(config, "subagents");
  if (Array.isArray(subagents) && subagents.length > 0 && !provider.supportsAgentsJson) {
    warnings.push({ code: "agents-unsupported", severity: "warning", message: agentsUnsupported(provider) });
  }
  return { model, maxTurns, timeout, promptExtra: words.join("\n\n"), warnings };
}

/** Why sub-agents reach only some. */
export function agentsUnsupported({ label }: AgentProvider): string {
  return `${label} does not support sub-agents (--agents): their definitions are not used`;
}

/** Numbers and the like stand as they are written. */
function asWord(value: unknown): string {
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** @returns null for nothing. Digits in a text count, as YAML that is quoted gives them. */
function wholeNumber(key: string, value: unknown): number | null {
  if (value === undefined || value === null) return null;
  const text = typeof value === "number" ? String(value) : value;
  if (typeof text === "string" && /^\d{1,15}$/.test(text)) return Number(text);
  throw configError("spec-invalid", `${key} is ${shown(value)}: give a whole number, 0 or more`);
}
