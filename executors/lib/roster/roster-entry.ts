import type { UsageRule } from "../agent/usage.ts";

/** Version of the roster's files that this code reads. */
export const ROSTER_VERSION = 1;

/**
 * What is known of one agent: one file `executors/roster/<name>.yaml`, checked by roster.schema.json, which says what each
 * key means. Code asks what an agent can do, never which agent it is.
 *
 * An agent has its own headless mode (`start.args`, JSON lines by `output.format`), and often the Agent Client Protocol
 * (`start.acp`) as well. What holds for one of the two alone says so.
 */
export interface RosterEntry {
  /** Name of the file. */
  readonly name: string;
  /** For people. */
  readonly label: string;
  /** Folder of `executors/` that runs it. */
  readonly executor: "claude-code" | "codex" | "acp" | "agent-cli";
  readonly install: AgentInstall;
  readonly program: AgentProgram;
  readonly start: AgentStart;
  readonly endpoint: AgentEndpoint;
  readonly home: AgentHome;
  readonly mcp: AgentMcp;
  readonly session: AgentSession;
  readonly approval: AgentApproval;
  readonly limits: AgentLimits;
  readonly output: AgentOutput;
  readonly instructions: AgentInstructions;
  /**
   * What it cannot do, with the reason: by the name of the point of `ao executors check` that then may fail, or one of
   * `limits`, `cost`, `usage` and `schema`, for which there is no point.
   */
  readonly lacks: Readonly<Record<string, string>>;
  /** For the page of the agent. */
  readonly notes: readonly string[];
}

export interface AgentInstall {
  readonly registry: "npm" | "pypi";
  /** `${platform}` is replaced: `linux-x64`, `darwin-arm64`. */
  readonly package: string;
  /** The version of the package that these facts were seen with. */
  readonly version: string;
  /** Name of the folder of the install. Absent: the agent's name. Agents with the same program share one. */
  readonly folder?: string;
  readonly sizeMb: number;
  /** Memory of one run. */
  readonly memoryMb: number;
  /** Oldest version of the program that can be driven. Absent: not known. */
  readonly atLeast?: string;
  /** What has to be there before, for people. */
  readonly needs?: string;
}

/** Where a program is. */
export interface ProgramPlace {
  /** Its name on PATH, for a user who has installed it. */
  readonly name: string;
  /**
   * The inner program, relative to the folder of the install: never a wrapper that dies alone. It may be JavaScript (`.js`,
   * `.mjs`, `.cjs`), which our Node runs. `${platform}` is replaced, and `${triple}`: `x86_64-unknown-linux-musl`.
   */
  readonly inner: string;
}

export interface AgentProgram extends ProgramPlace {
  readonly versionArgs: readonly string[];
  /** What it says its version is, where that is not the package's. */
  readonly version?: string;
  /** The program that speaks the Agent Client Protocol, where that is another one. */
  readonly acp?: ProgramPlace;
}

export interface AgentStart {
  /** Arguments of its own mode that come first, always. */
  readonly args: readonly string[];
  /** Arguments with which it speaks the Agent Client Protocol. Absent: it does not. */
  readonly acp?: readonly string[];
  /** How the prompt reaches it in its own mode. `acp`: that mode is of no use. */
  readonly prompt: "stdin" | "argument" | "acp";
  /** Flag before a prompt that is an argument. */
  readonly promptFlag?: string;
  /** Largest prompt of its own mode in bytes. Absent: as long as an invocation may be. */
  readonly promptMaxBytes?: number;
  /** Variables of both modes. */
  readonly env: Readonly<Record<string, string>>;
}

export interface AgentEndpoint {
  /** Variable of the address of the model's API. Absent: it cannot be replaced by a variable. */
  readonly url?: string;
  /** Arguments that hand the address on, for an agent that does not read the variable itself. `${url}` is replaced. */
  readonly urlArgs?: readonly string[];
  /** Variables with a key or token; one of them set means that somebody is logged in. All are handed to the agent. */
  readonly keys: readonly string[];
  /** Further variables that are handed to the agent. */
  readonly env: readonly string[];
  /** Variable of the model. */
  readonly model?: string;
  /** Flag of the model. */
  readonly modelFlag?: string;
  /** Files in the user's home that a login leaves, relative to it. One of them there means that somebody is logged in. */
  readonly logins: readonly string[];
  /** On macOS the login is in the keychain, where only the agent itself can look. */
  readonly keychain?: boolean;
  /** How to log in, for the error that nobody is. */
  readonly loginHint: string;
}

export interface AgentHome {
  /** Variables that name the private folder of the session, or a folder in it: `{CODEX_HOME: "."}`. */
  readonly variables: Readonly<Record<string, string>>;
  /**
   * Variables that name a folder beside the install, which all sessions have in common: what is unpacked or fetched once, and
   * nothing of a conversation.
   */
  readonly shared?: Readonly<Record<string, string>>;
  /** Files of the user's home that appear in the private folder. */
  readonly credentials: readonly Credential[];
  /** Files written into the private folder at each start, of mode 0600. */
  readonly files: readonly HomeFile[];
  /** Files of the private folder that are renamed at each start, because the agent would write over them. */
  readonly renames?: readonly HomeRename[];
}

export interface HomeRename {
  /** Their folders, relative to the private folder; `*` stands for any one name. */
  readonly folder: string;
  /** Regular expression of their whole names. */
  readonly name: string;
  /** The new name: `$1` is the first group, `${n}` the first number with which the name is free. */
  readonly to: string;
}

export interface Credential {
  /** Relative to HOME. */
  readonly from: string;
  /** Relative to the private folder. */
  readonly to: string;
  /** It is copied and not linked: the agent keeps other things in the file as well, which are not to change for the user. */
  readonly copy?: boolean;
}

export interface HomeFile {
  readonly path: string;
  /** `${env.NAME}`, `${env.NAME:-default}` and `${home}` are replaced, as JSON and TOML write them within quotes. */
  readonly content: string;
  /** Variable without which it is not written. */
  readonly when?: string;
}

export interface AgentMcp {
  /** How MCP servers reach it in its own mode; the Agent Client Protocol has a way of its own. `none`: it has no MCP client. */
  readonly transport: "acp" | "flag-file" | "config-flags" | "home-file" | "env-json" | "none";
  /** Flag before the file. */
  readonly flag?: string;
  /** What stands before the name of the file: `@`. */
  readonly prefix?: string;
  /** Variable with the JSON that the servers are put into. */
  readonly variable?: string;
  /** File with the servers, relative to the private folder. */
  readonly file?: string;
  /** Key of the address of an http server. Absent: `url`. */
  readonly urlKey?: string;
  /** Key of a server that makes the agent show its tools at once. */
  readonly alwaysLoad?: string;
  /** Revision of the protocol that it speaks. */
  readonly revision?: string;
}

export interface AgentSession {
  /** Who chooses the id of the conversation in its own mode. Over ACP the agent does. */
  readonly id: "ours" | "theirs";
  readonly idFlag?: string;
  /** How its own mode resumes. */
  readonly resume: "flag" | "subcommand" | "none";
  /** The flag, or the subcommand. */
  readonly resumeFlag?: string;
  /** What resumes over ACP, the better one where it has both. */
  readonly acp?: "load" | "resume";
  /** It finds a conversation only in the directory where it began. */
  readonly sameCwd: boolean;
  /** What its own mode does with an id that it does not know. */
  readonly unknown: "error" | "starts-new";
}

export interface AgentApproval {
  /** Arguments with which its own mode never asks. */
  readonly args: readonly string[];
  /** Variables with which it never asks. */
  readonly env: Readonly<Record<string, string>>;
  /** ACP mode to set after the start. */
  readonly mode?: string;
}

export interface AgentLimits {
  readonly maxTurnsFlag?: string;
  readonly maxCostFlag?: string;
  readonly maxSecondsFlag?: string;
  /** Variable that bounds its retries, so that a refused request does not last for minutes. */
  readonly retriesEnv?: string;
}

export interface AgentOutput {
  /** Format of its own JSON lines. */
  readonly format: "claude" | "codex" | "copilot" | "opencode" | "gemini" | "qwen" | "vibe" | "pi" | "kimi";
  /** What its own reports of usage stand for. */
  readonly usage: UsageRule;
  /** Where usage is over ACP: the answer to the prompt, its `_meta.quota`, `_meta.usage` of the chunks. */
  readonly acpUsage?: "answer" | "quota" | "chunks" | "none";
  /** The answer's usage is of the whole conversation: what earlier runs used is taken off. */
  readonly acpUsageSums?: boolean;
  /** Flag that takes a JSON Schema of the result, in its own mode. Absent: it has none. */
  readonly schemaFlag?: string;
}

export interface AgentInstructions {
  /** Where the system prompt goes. `prompt`: before the prompt, because there is no better way. */
  readonly by: "flag" | "config" | "env-file" | "acp" | "prompt";
  /** The flag, the key of the configuration, or the variable with the name of a file. */
  readonly flag?: string;
  /** Files of the project that it reads by itself. */
  readonly project: readonly string[];
  /** Folders of the project in which it looks for skills. */
  readonly skills: readonly string[];
}
