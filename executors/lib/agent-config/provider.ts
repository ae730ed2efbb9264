/**
 * One agent for which the script has a function. What it can do is said here, and the code asks for that: no code below
 * this folder compares a name.
 */
export interface AgentProvider {
  readonly name: string;
  /** For people. */
  readonly label: string;
  /** The program, and the name of the function. */
  readonly binary: string;
  readonly gitAuthorName: string;
  readonly gitAuthorEmail: string;
  readonly headlessSubcommand: string | null;
  /** Before a prompt that is an argument. Empty: it has no flag. */
  readonly promptFlag: string;
  /** Arguments with which a headless run reads its prompt from stdin, after all the others. */
  readonly stdinPromptArgs: readonly string[];
  /** How the first message of an interactive start is said. */
  readonly firstMessage: "bare" | "flag" | "subcommand";
  /** Variables with which it never asks; set for the whole container when it is unrestricted. */
  readonly autoApproveEnv: Readonly<Record<string, string>>;
  readonly autoApproveFlags: readonly string[];
  readonly outputFormatFlags: readonly string[];
  readonly modelFlag: string | null;
  readonly maxTurnsFlag: string | null;
  readonly verboseFlag: string | null;
  /** Null: it resumes no conversation. */
  readonly session: ProviderSession | null;
  readonly instructions: InstructionsDelivery;
  readonly supportsAgentsJson: boolean;
  /** With one of these words it takes its sub-agents as a file, and otherwise as an argument. */
  readonly agentsFileFlags: readonly string[];
  readonly supportsAddDir: boolean;
  readonly logFormat: "plain" | "claude-stream-json";
  /** An endpoint that is reached by way of OpenCode. */
  readonly opencodeConfig: OpencodeConfig | null;
  /** Subcommands that handle credentials, which are the host's business. */
  readonly refuseSubcommands: readonly string[];
  /** What only some need before they start. */
  readonly extras: readonly ProviderExtra[];
}

export interface ProviderSession {
  /** In the config folder: the id of the conversation that the next start resumes. */
  readonly file: string;
  /** `subcommand`: `NAME ID`, behind the headless subcommand where there is one. */
  readonly resume: { readonly by: "flag" | "subcommand"; readonly word: string };
  readonly continueFlag: string | null;
  readonly capture: SessionCapture;
}

/** Who writes the id of the conversation into the session file. */
export type SessionCapture =
  /** A SessionStart hook in its settings: those that all tasks share, or a file of the task that a flag names. */
  | { readonly by: "hook"; readonly sharedSettings: string; readonly taskSettings: string; readonly flag: string }
  /** A plugin of the image, linked into a folder below the home directory. */
  | { readonly by: "plugin"; readonly file: string; readonly folder: string }
  /** The script: it looks for the log that the run has written, below the home directory. */
  | {
      readonly by: "log-scan";
      readonly folder: string;
      readonly pattern: string;
      /** JSON key of the id in the log. */
      readonly key: string;
    };

/** How the instructions of the task reach it. `prompt`: before the prompt, by whoever writes the prompt. */
export type InstructionsDelivery =
  | { readonly by: "flag-file"; readonly flag: string }
  | { readonly by: "config-override"; readonly flag: string; readonly key: string }
  /** In a list of a shared file, below `mountsBase`. */
  | { readonly by: "config-file"; readonly sharedFile: string }
  | { readonly by: "prompt" };

/** An endpoint that OpenCode is pointed at. */
export interface OpencodeConfig {
  readonly displayName: string;
  readonly baseUrl: string;
  readonly preferredModel: string;
  readonly fallbackModel: string;
  readonly envVarPrefix: string;
  readonly configDir: string;
  readonly authKeyUrl: string;
}

export type ProviderExtra =
  /** A variable for this program alone, with `${PROJECT_ID}` from the environment; not set when that is not. */
  | { readonly type: "project-env"; readonly variable: string; readonly path: string }
  /** A variable that is always set. */
  | { readonly type: "env"; readonly variable: string; readonly value: string }
  /** A list of models that a program writes when it is missing or a day old; the file is below the home directory. */
  | { readonly type: "model-cache"; readonly program: string; readonly file: string }
  /** The instructions as a system prompt of the task, in a folder below the home directory, named in a variable. */
  | { readonly type: "system-prompt-file"; readonly folder: string; readonly variable: string }
  /** A TOML file below the home directory whose list `trusted` has the workspace. */
  | { readonly type: "trusted-folders"; readonly file: string };

/** True for OpenCode and for every endpoint behind it: they find their instructions in `opencode.json`. */
export function usesOpencodeInstructions(provider: AgentProvider): boolean {
  return provider.instructions.by === "config-file";
}
