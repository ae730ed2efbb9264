import { readFileSync } from "node:fs";
import type { ContainerPaths } from "./container-paths.ts";
import type { AgentProvider, ProviderExtra, ProviderSession } from "./provider.ts";
import { AGENT_PROVIDERS } from "./providers.ts";
import { shellQuote } from "./shell-quote.ts";

export interface ScriptOptions {
  readonly paths: ContainerPaths;
  /** There are sub-agents in `agents.json`. */
  readonly hasAgents: boolean;
  /** The settings with the SessionStart hook are a file of the task. */
  readonly taskSettings: boolean;
}

const HEAD = `# terok-executor.sh: one function for each agent of this container. Source it.
# Generated; each preparation of the task writes it anew.`;

/** `terok-executor.sh`: the functions of all providers, whichever the task has. */
export function renderScript(options: ScriptOptions): string {
  const helpers = readFileSync(new URL("./helpers.sh", import.meta.url), "utf8").replace(/^# shellcheck.*\n/, "");
  const functions = [...AGENT_PROVIDERS.values()].map((provider) => renderProviderFunction(provider, options));
  return ["# shellcheck shell=bash disable=SC2030,SC2031", HEAD, helpers, ...functions].join("\n");
}

/** The function of one provider, which needs the helpers. */
export function renderProviderFunction(provider: AgentProvider, options: ScriptOptions): string {
  const { binary, session } = provider;
  const file = (name: string) => shellQuote(`${options.paths.config}/${name}`);
  const lines = [
    `_terok_options ${binary} "$@" || exit "$?"`,
    'set -- "${_terok_rest[@]}"',
    ...firstWord(provider),
    `_terok_identity ${shellQuote(provider.gitAuthorName)} ${shellQuote(provider.gitAuthorEmail)} ${shellQuote(options.paths.share)} || exit "$?"`,
    ...argumentsOf(provider, options, file),
    ...(session === null ? [] : sessionOf(provider, session, options, file)),
    ...initialPrompt(provider, file),
    ...provider.extras.flatMap((extra) => extraOf(extra, options, file)),
    `_terok_run ${binary} "\${_terok_args[@]}" "$@"`,
  ];
  return [
    `# Generated: ${provider.label}.`,
    `${binary}() (`,
    ...lines.flatMap((line) => line.split("\n")).map((line) => (line === "" ? line : `  ${line}`)),
    ")",
    "",
  ].join("\n");
}

type FileOf = (name: string) => string;

function firstWord({ binary, session, refuseSubcommands }: AgentProvider): string[] {
  const refused = `${refuseSubcommands.join(" | ")})
  _terok_refuse ${binary}
  exit 1
  ;;`;
  const help = `-h | --help)
  _terok_help ${binary} ${session === null ? "''" : "resumes"} "$1"
  exit
  ;;`;
  return ["case ${1-} in", help, ...(refuseSubcommands.length > 0 ? [refused] : []), "esac"];
}

/** What comes between the program and what it is called with. */
function argumentsOf(provider: AgentProvider, options: ScriptOptions, file: FileOf): string[] {
  const { autoApproveFlags, instructions, session } = provider;
  const lines = [`_terok_args=(${provider.supportsAddDir ? '--add-dir "/"' : ""})`];
  const given = (name: string, words: string) =>
    lines.push(`if [ -f ${file(name)} ]; then`, `  _terok_args+=(${words})`, "fi");
  if (autoApproveFlags.length > 0) {
    const flags = autoApproveFlags.map(shellQuote).join(" ");
    lines.push('if [ "${TEROK_UNRESTRICTED-}" = 1 ]; then', `  _terok_args+=(${flags})`, "fi");
  }
  if (provider.supportsAgentsJson && options.hasAgents) {
    const words = shellQuote(provider.agentsFileFlags.join(" "));
    lines.push(
      `if [ -f ${file("agents.json")} ]; then`,
      `  _terok_subagents ${file("agents.json")} ${words} "$@"`,
      "fi",
    );
  }
  if (session?.capture.by === "hook" && options.taskSettings) {
    given(session.capture.taskSettings, `${session.capture.flag} ${file(session.capture.taskSettings)}`);
  }
  if (instructions.by === "flag-file") given("instructions.md", `${instructions.flag} ${file("instructions.md")}`);
  if (instructions.by === "config-override") {
    const path = JSON.stringify(`${options.paths.config}/instructions.md`);
    given("instructions.md", `${instructions.flag} ${shellQuote(`${instructions.key}=${path}`)}`);
  }
  return lines;
}

/** How the recorded conversation is resumed, and how the next one comes to be recorded. */
function sessionOf(provider: AgentProvider, session: ProviderSession, options: ScriptOptions, file: FileOf): string[] {
  const { resume, continueFlag, capture } = session;
  const recorded = file(session.file);
  const word = shellQuote(resume.word);
  const lines = [
    `if _terok_resumes ${recorded} ${word} ${shellQuote(continueFlag ?? "")} "$@"; then`,
    ...resumeLines(provider, word, resume.by).map((line) => `  ${line}`),
    "fi",
  ];
  // Not for the hook: a plugin of another agent that this one starts would write into its record.
  if (capture.by !== "hook") lines.push(`export TEROK_SESSION_FILE=${recorded}`);
  if (capture.by === "plugin") {
    const source = shellQuote(`${options.paths.share}/${capture.file}`);
    const folder = `${homeWord(options)}/${shellQuote(capture.folder)}`;
    lines.push(`if [ -f ${source} ]; then`, `  _terok_link ${source} ${folder}`, "fi");
  }
  if (capture.by === "log-scan") {
    const folder = `${homeWord(options)}/${shellQuote(capture.folder)}`;
    lines.push(
      `_terok_scan_begin ${provider.binary} ${recorded} ${folder} ${shellQuote(capture.pattern)} ${shellQuote(capture.key)}`,
      "trap _terok_at_exit EXIT",
    );
  }
  return lines;
}

/** The place of what resumes: behind the subcommand, where there is one. */
function resumeLines({ binary, headlessSubcommand }: AgentProvider, word: string, by: "flag" | "subcommand"): string[] {
  const resume = `${word} "$_terok_resumed"`;
  if (headlessSubcommand === null) return [`set -- ${resume} "$@"`];
  const behind = [`${headlessSubcommand})`, "  shift", `  set -- ${headlessSubcommand} ${resume} "$@"`, "  ;;"];
  const other =
    by === "flag"
      ? [`*) set -- ${resume} "$@" ;;`]
      : [
          `'') set -- ${resume} ;;`,
          "*)",
          "  _terok_resumed=''",
          `  echo "terok: ${binary} resumes nothing: ${headlessSubcommand} must be the first word" >&2`,
          "  ;;",
        ];
  return ["case ${1-} in", ...behind, ...other, "esac"];
}

function initialPrompt(
  { firstMessage, headlessSubcommand, promptFlag, session }: AgentProvider,
  file: FileOf,
): string[] {
  const before = { bare: "", flag: `${promptFlag} `, subcommand: `${headlessSubcommand} ` }[firstMessage];
  const noSession = session === null ? "" : ` && [ ! -s ${file(session.file)} ]`;
  return [
    `if [ -z "$_terok_timeout" ] && [ "$#" -eq 0 ]${noSession} &&`,
    `  _terok_initial_prompt ${file("initial-prompt.txt")} ${file("initial-prompt.consumed.txt")}; then`,
    `  set -- ${before}"$_terok_first"`,
    "fi",
  ];
}

function extraOf(extra: ProviderExtra, options: ScriptOptions, file: FileOf): string[] {
  const home = homeWord(options);
  switch (extra.type) {
    case "env":
      return [`export ${extra.variable}=${shellQuote(extra.value)}`];
    case "project-env": {
      const [before = "", after = ""] = `${options.paths.home}/${extra.path}`.split("${PROJECT_ID}");
      const value = `${shellQuote(before)}"$PROJECT_ID"${shellQuote(after)}`;
      return ['if [ -n "${PROJECT_ID-}" ]; then', `  export ${extra.variable}=${value}`, "fi"];
    }
    case "model-cache":
      return [`_terok_model_cache ${extra.program} ${home}/${shellQuote(extra.file)}`];
    case "system-prompt-file":
      return [
        `if _terok_system_prompt ${file("instructions.md")} ${home}/${shellQuote(extra.folder)}; then`,
        `  export ${extra.variable}="$_terok_prompt_id"`,
        "  trap _terok_at_exit EXIT",
        "fi",
      ];
  }
  return [`_terok_trust ${home}/${shellQuote(extra.file)} ${shellQuote(options.paths.workspace)}`];
}

/** The home directory, of whoever runs the script. */
function homeWord({ paths }: ScriptOptions): string {
  return `"\${HOME:-${paths.home.replaceAll(/["\\$`}]/g, "\\$&")}}"`;
}
