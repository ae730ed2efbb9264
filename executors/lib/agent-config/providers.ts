import { nearNames } from "../../../lib/near-names.ts";
import { configError } from "./diagnostics.ts";
import type { AgentProvider, OpencodeConfig } from "./provider.ts";

/** Taken when neither the caller nor the configuration names a provider. */
const FALLBACK = "claude";

const OPENCODE_ALLOW_ALL = { OPENCODE_PERMISSION: '{"*":"allow"}' };

/** What a provider has that the table below says nothing of. */
function provider(
  facts: Partial<AgentProvider> & Pick<AgentProvider, "name" | "label" | "gitAuthorName" | "gitAuthorEmail">,
): AgentProvider {
  return Object.freeze({
    binary: facts.name,
    headlessSubcommand: null,
    promptFlag: "",
    stdinPromptArgs: [],
    firstMessage: "bare",
    autoApproveEnv: {},
    autoApproveFlags: [],
    outputFormatFlags: [],
    modelFlag: null,
    maxTurnsFlag: null,
    verboseFlag: null,
    session: null,
    instructions: { by: "prompt" },
    supportsAgentsJson: false,
    agentsFileFlags: [],
    supportsAddDir: false,
    logFormat: "plain",
    opencodeConfig: null,
    refuseSubcommands: [],
    extras: [],
    ...facts,
  } satisfies AgentProvider);
}

const SESSION_FLAGS = { resume: { by: "flag", word: "--session" }, continueFlag: "--continue" } as const;

/** The names, flags and files by which OpenCode is run, for itself and for every endpoint behind it. */
function opencodeLike(name: string, pluginFolder: string, sharedFile: string) {
  return {
    headlessSubcommand: "run",
    firstMessage: "subcommand",
    autoApproveEnv: OPENCODE_ALLOW_ALL,
    session: {
      file: `${name}-session.txt`,
      ...SESSION_FLAGS,
      capture: { by: "plugin", file: "opencode-session-plugin.mjs", folder: pluginFolder },
    },
    instructions: { by: "config-file", sharedFile },
  } as const satisfies Partial<AgentProvider>;
}

function endpoint(name: string, label: string, gitAuthorEmail: string, opencodeConfig: OpencodeConfig): AgentProvider {
  return provider({
    name,
    label,
    gitAuthorName: label,
    gitAuthorEmail,
    ...opencodeLike(name, `${opencodeConfig.configDir}/opencode/plugins`, `_${name}-config/opencode/opencode.json`),
    opencodeConfig,
  });
}

const ALL: readonly AgentProvider[] = [
  endpoint("blablador", "Blablador", "noreply@hzdr.de", {
    displayName: "Helmholtz Blablador",
    baseUrl: "https://api.helmholtz-blablador.fz-juelich.de/v1",
    preferredModel: "alias-huge",
    fallbackModel: "alias-code",
    envVarPrefix: "BLABLADOR",
    configDir: ".blablador",
    authKeyUrl: "https://codebase.helmholtz.cloud/-/user_settings/personal_access_tokens",
  }),
  provider({
    name: "claude",
    label: "Claude",
    gitAuthorName: "Claude",
    gitAuthorEmail: "noreply@anthropic.com",
    promptFlag: "-p",
    stdinPromptArgs: ["-p"],
    outputFormatFlags: ["--output-format", "stream-json"],
    modelFlag: "--model",
    maxTurnsFlag: "--max-turns",
    verboseFlag: "--verbose",
    session: {
      file: "claude-session.txt",
      resume: { by: "flag", word: "--resume" },
      continueFlag: null,
      capture: {
        by: "hook",
        sharedSettings: "_claude-config/settings.json",
        taskSettings: "claude-settings.json",
        flag: "--settings",
      },
    },
    instructions: { by: "flag-file", flag: "--append-system-prompt-file" },
    supportsAgentsJson: true,
    agentsFileFlags: ["-p", "--print"],
    supportsAddDir: true,
    logFormat: "claude-stream-json",
    refuseSubcommands: ["setup-token"],
    extras: [
      {
        type: "project-env",
        variable: "CLAUDE_COWORK_MEMORY_PATH_OVERRIDE",
        path: ".claude/projects/${PROJECT_ID}-workspace/memory",
      },
    ],
  }),
  provider({
    name: "codex",
    label: "Codex",
    gitAuthorName: "Codex",
    gitAuthorEmail: "noreply@openai.com",
    headlessSubcommand: "exec",
    stdinPromptArgs: ["-"],
    autoApproveFlags: ["--yolo"],
    modelFlag: "--model",
    session: {
      file: "codex-session.txt",
      resume: { by: "subcommand", word: "resume" },
      continueFlag: null,
      capture: { by: "log-scan", folder: ".codex/sessions", pattern: "rollout-*.jsonl", key: "id" },
    },
    instructions: { by: "config-override", flag: "-c", key: "model_instructions_file" },
    refuseSubcommands: ["login", "logout"],
  }),
  provider({
    name: "copilot",
    label: "GitHub Copilot",
    gitAuthorName: "Copilot",
    gitAuthorEmail: "noreply@github.com",
    promptFlag: "-p",
    firstMessage: "flag",
    autoApproveEnv: { COPILOT_ALLOW_ALL: "true" },
    modelFlag: "--model",
  }),
  endpoint("kisski", "KISSKI", "noreply@academiccloud.de", {
    displayName: "KISSKI",
    baseUrl: "https://chat-ai.academiccloud.de/v1",
    preferredModel: "devstral-2-123b-instruct-2512",
    fallbackModel: "mistral-large-3-675b-instruct-2512",
    envVarPrefix: "KISSKI",
    configDir: ".kisski",
    authKeyUrl: "https://chat-ai.academiccloud.de/",
  }),
  provider({
    name: "opencode",
    label: "OpenCode",
    gitAuthorName: "OpenCode",
    gitAuthorEmail: "noreply@opencode.ai",
    ...opencodeLike("opencode", ".config/opencode/plugins", "_opencode-config/opencode.json"),
    modelFlag: "--model",
  }),
  endpoint("openrouter", "OpenRouter", "noreply@openrouter.ai", {
    displayName: "OpenRouter",
    baseUrl: "https://openrouter.ai/api/v1",
    preferredModel: "anthropic/claude-sonnet-4.5",
    fallbackModel: "anthropic/claude-3.5-sonnet",
    envVarPrefix: "OPENROUTER",
    configDir: ".openrouter",
    authKeyUrl: "https://openrouter.ai/keys",
  }),
  provider({
    name: "pi",
    label: "Pi",
    gitAuthorName: "Pi",
    gitAuthorEmail: "noreply@earendil.works",
    stdinPromptArgs: ["-p"],
    outputFormatFlags: ["--mode", "json"],
    modelFlag: "--model",
    session: {
      file: "pi-session.txt",
      ...SESSION_FLAGS,
      capture: { by: "log-scan", folder: ".pi/agent/sessions", pattern: "*.jsonl", key: "id" },
    },
  }),
  provider({
    name: "vibe",
    label: "Mistral Vibe",
    gitAuthorName: "Vibe",
    gitAuthorEmail: "noreply@mistral.ai",
    promptFlag: "--prompt",
    stdinPromptArgs: ["-p"],
    autoApproveEnv: { VIBE_BYPASS_TOOL_PERMISSIONS: "true" },
    // What Vibe calls an agent is a model with its settings.
    modelFlag: "--agent",
    maxTurnsFlag: "--max-turns",
    session: {
      file: "vibe-session.txt",
      resume: { by: "flag", word: "--resume" },
      continueFlag: "--continue",
      capture: { by: "log-scan", folder: ".vibe/logs/session", pattern: "meta.json", key: "session_id" },
    },
    extras: [
      { type: "env", variable: "VIBE_BYPASS_TOOL_PERMISSIONS", value: "true" },
      { type: "model-cache", program: "vibe-model-sync", file: ".vibe/mistral-models.txt" },
      { type: "system-prompt-file", folder: ".vibe/prompts", variable: "VIBE_SYSTEM_PROMPT_ID" },
      { type: "trusted-folders", file: ".vibe/trusted_folders.toml" },
    ],
  }),
];

/** Every provider by its name, sorted. */
export const AGENT_PROVIDERS: ReadonlyMap<string, AgentProvider> = new Map(ALL.map((entry) => [entry.name, entry]));

/** Names of the providers, sorted. */
export const PROVIDER_NAMES: readonly string[] = Object.freeze([...AGENT_PROVIDERS.keys()]);

/**
 * The provider of a name; of `defaultAgent` when the name is empty or missing; Claude when both are.
 * @throws AgentConfigError for an unknown name, with the names that there are.
 */
export function getProvider(name: string | null | undefined, defaultAgent?: string | null): AgentProvider {
  const wanted = name || defaultAgent || FALLBACK;
  const found = AGENT_PROVIDERS.get(wanted);
  if (found !== undefined) return found;
  const near = nearNames(wanted, PROVIDER_NAMES);
  const hint = near.length > 0 ? ` Did you mean ${near.join(" or ")}?` : "";
  throw configError(
    "spec-invalid",
    `there is no agent provider ${JSON.stringify(wanted)}; there are: ${PROVIDER_NAMES.join(", ")}.${hint}`,
  );
}

/** All variables with which some provider never asks. No two providers may disagree about one. */
export function collectAutoApproveEnv(
  providers: Iterable<AgentProvider> = AGENT_PROVIDERS.values(),
): Record<string, string> {
  const merged: Record<string, string> = {};
  for (const { name, autoApproveEnv } of providers) {
    for (const [variable, value] of Object.entries(autoApproveEnv)) {
      if (variable in merged && merged[variable] !== value) {
        throw configError("spec-invalid", `provider ${name} wants ${variable}=${value}, another ${merged[variable]}`);
      }
      merged[variable] = value;
    }
  }
  return merged;
}
