import type { UsageRule } from "../agent/usage.ts";

/** Version of the roster's files that this code reads. */
export const ROSTER_VERSION = 1;

/**
 * What is known of one agent: one file `executors/roster/<name>.yaml`, checked by roster.schema.json. Code asks what an
 * agent can do, never which agent it is.
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
  /** Where the system prompt goes. `prompt`: before the prompt, because there is no better way. */
  readonly instructions: AgentInstructions;
  /** What it cannot do, by the name of the point of `ao executors check` that then may fail, with the reason. */
  readonly lacks: Readonly<Record<string, string>>;
  /** For the page of the agent. */
  readonly notes: readonly string[];
}

export interface AgentInstall {
  readonly registry: "npm" | "pypi";
  readonly package: string;
  /** The version that these facts were seen with. */
  readonly version: string;
  readonly sizeMb: number;
  /** Oldest version that can be driven. Absent: not known. */
  readonly atLeast?: string;
}

export interface AgentProgram {
  /** Its name on PATH, for a user who has installed it. */
  readonly name: string;
  /**
   * The inner program, relative to the folder of the install: never a wrapper that dies alone. It may be JavaScript (`.js`,
   * `.mjs`, `.cjs`), which our Node runs.
   */
  readonly inner: string;
  readonly versionArgs: readonly string[];
}

export interface AgentStart {
  /** Arguments that come first, always. */
  readonly args: readonly string[];
  /** Arguments with which it speaks the Agent Client Protocol. Absent: it does not. */
  readonly acp?: readonly string[];
  readonly prompt: "stdin" | "argument" | "acp";
  /** Largest prompt in bytes. Absent: as long as an invocation may be. */
  readonly promptMaxBytes?: number;
  readonly env: Readonly<Record<string, string>>;
}

export interface AgentEndpoint {
  /** Variable of the address of the model's API. Absent: it cannot be replaced by a variable. */
  readonly url?: string;
  /** Variables with a key or token; one of them set means that somebody is logged in. All are handed to the agent. */
  readonly keys: readonly string[];
  /** Variable of the model. */
  readonly model?: string;
  /** Flag of the model. */
  readonly modelFlag?: string;
  /** Files in the user's home that a login leaves, relative to it. One of them there means that somebody is logged in. */
  readonly logins: readonly string[];
  /** How to log in, for the error that nobody is. */
  readonly loginHint: string;
}

export interface AgentHome {
  /** Variable that names the private folder of the session. `HOME`: there is no other way. Absent: it needs none. */
  readonly variable?: string;
  /** Files of the user's home that appear in the private folder: from, relative to HOME; to, relative to the folder. */
  readonly credentials: readonly { readonly from: string; readonly to: string }[];
  /** Files written into the private folder at each start, of mode 0600. `${…}` is replaced: see home-files.ts. */
  readonly files: readonly { readonly path: string; readonly content: string }[];
}

export interface AgentMcp {
  /** How MCP servers reach it. `none`: it has no MCP client. */
  readonly transport: "acp" | "flag-file" | "config-flags" | "home-file" | "env-json" | "none";
  /** Flag before the file. */
  readonly flag?: string;
  /** Key of a server that makes the agent show its tools at once. */
  readonly alwaysLoad?: string;
}

export interface AgentSession {
  /** Who chooses the id of the conversation. */
  readonly id: "ours" | "theirs";
  readonly idFlag?: string;
  readonly resume: "flag" | "subcommand" | "acp-load" | "acp-resume" | "none";
  readonly resumeFlag?: string;
  /** It finds a conversation only in the directory where it began. */
  readonly sameCwd: boolean;
  /** What it does with an id that it does not know. */
  readonly unknown: "error" | "starts-new";
}

export interface AgentApproval {
  /** Arguments with which it never asks. */
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** ACP mode to set after the start. */
  readonly mode?: string;
}

export interface AgentLimits {
  readonly maxTurnsFlag?: string;
  readonly maxCostFlag?: string;
  /** Bounds its retries, so that a refused request does not last for minutes. */
  readonly retriesEnv?: string;
}

export interface AgentOutput {
  /** Format of its own JSON lines. */
  readonly format: "claude" | "codex" | "copilot" | "opencode" | "gemini" | "qwen" | "vibe" | "pi" | "kimi";
  readonly usage: UsageRule;
  /** Flag that takes a JSON Schema of the result. Absent: it has none. */
  readonly schemaFlag?: string;
}

export interface AgentInstructions {
  readonly by: "flag" | "config" | "env-file" | "acp" | "prompt";
  readonly flag?: string;
}
