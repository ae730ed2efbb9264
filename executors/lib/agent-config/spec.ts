import type { Diagnostic } from "./diagnostics.ts";
import { AgentConfigError } from "./diagnostics.ts";

/** One sub-agent: its definition, or the Markdown file that holds it. */
export type SubagentItem = Readonly<Record<string, unknown>>;

/** What a spec is made of. Everything that may be left out may be null as well. */
export interface AgentConfigFields {
  /** Folder with one folder for each task. */
  readonly tasksRoot: string;
  /** Name of the folder of the task: letters, digits, `.`, `_`, `-`, a letter or digit first. */
  readonly taskId: string | number;
  readonly subagents: readonly SubagentItem[];
  /** Names to take besides those that are `default: true`. */
  readonly selectedAgents?: readonly string[] | null;
  /** Null: no `prompt.txt`. Empty: an empty one. */
  readonly prompt?: string | null;
  /** Empty: the default agent. */
  readonly provider?: string | null;
  /** Empty: a neutral sentence. */
  readonly instructions?: string | null;
  readonly defaultAgent?: string | null;
  /** Folder with the configuration that all tasks share. */
  readonly mountsBase?: string | null;
}

/** 128 characters: the longest that leaves room for what programs add to it. */
const TASK_ID = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;

/**
 * What an agent-config folder is to hold. It cannot be changed, neither can what is in it: the values are copies.
 * `problems` says what is wrong with them; nothing is thrown here, so that all of it is said at once.
 */
export class AgentConfigSpec {
  readonly tasksRoot: string;
  readonly taskId: string;
  readonly subagents: readonly SubagentItem[];
  readonly selectedAgents: readonly string[] | null;
  readonly prompt: string | null;
  readonly provider: string | null;
  readonly instructions: string | null;
  readonly defaultAgent: string | null;
  readonly mountsBase: string | null;

  constructor(fields: AgentConfigFields) {
    this.tasksRoot = fields.tasksRoot;
    this.taskId = String(fields.taskId);
    this.subagents = frozenCopy(fields.subagents);
    this.selectedAgents = frozenCopy(fields.selectedAgents ?? null);
    this.prompt = fields.prompt ?? null;
    this.provider = fields.provider === undefined ? "claude" : fields.provider;
    this.instructions = fields.instructions ?? null;
    this.defaultAgent = fields.defaultAgent ?? null;
    this.mountsBase = fields.mountsBase ?? null;
    Object.freeze(this);
  }

  /** @throws AgentConfigError with everything that is wrong, when something is. */
  check(): void {
    const problems = problemsOf(this);
    if (problems.length > 0) throw new AgentConfigError(problems);
  }
}

function problemsOf(spec: AgentConfigSpec): Diagnostic[] {
  const wrong: Diagnostic[] = [];
  const say = (message: string) => wrong.push({ code: "spec-invalid", severity: "error", message });
  for (const name of ["prompt", "provider", "instructions", "defaultAgent"] as const) {
    const value: unknown = spec[name];
    if (value !== null && typeof value !== "string") say(`${name} is ${shown(value)}: give a text or nothing`);
  }
  for (const name of ["tasksRoot", "mountsBase"] as const) {
    const value: unknown = spec[name];
    if (typeof value !== "string" || value === "") say(`${name} is ${shown(value)}: give the path of a folder`);
    else if (value.includes("\0")) say(`${name} holds a character that no path may: ${shown(value)}`);
  }
  if (!TASK_ID.test(spec.taskId)) {
    wrong.push({
      code: "unsafe-path",
      severity: "error",
      message: `taskId is ${shown(spec.taskId)}: give 1 to 128 letters, digits, ".", "_" and "-", a letter or digit first`,
    });
  }
  if (!Array.isArray(spec.subagents)) say(`subagents is ${shown(spec.subagents)}: give a list`);
  const selected: unknown = spec.selectedAgents;
  if (selected !== null && !(Array.isArray(selected) && selected.every((name) => typeof name === "string"))) {
    say(`selectedAgents is ${shown(selected)}: give a list of names`);
  }
  return wrong;
}

/** A value for a message, cut. */
export function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length <= 80 ? text : `${text.slice(0, 80)}…`;
}

function frozenCopy<T>(value: T): T {
  return frozen(structuredClone(value));
}

function frozen<T>(value: T): T {
  if (typeof value !== "object" || value === null) return value;
  for (const inner of Object.values(value)) frozen(inner);
  return Object.freeze(value);
}
