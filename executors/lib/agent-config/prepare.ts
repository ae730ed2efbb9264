import { createHash } from "node:crypto";
import { chmodSync, existsSync, lstatSync, mkdirSync, rmSync, rmdirSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileProblem, isFileError } from "../../../lib/config/file-problem.ts";
import { containerPaths } from "./container-paths.ts";
import type { ContainerPaths } from "./container-paths.ts";
import { AgentConfigError, configError } from "./diagnostics.ts";
import type { Diagnostic } from "./diagnostics.ts";
import { withFileLock } from "./file-lock.ts";
import { NEUTRAL_INSTRUCTIONS } from "./instructions.ts";
import { withOpencodeInstructions } from "./opencode-instructions.ts";
import { agentsUnsupported } from "./provider-config.ts";
import type { AgentProvider } from "./provider.ts";
import { AGENT_PROVIDERS, getProvider } from "./providers.ts";
import { renderScript } from "./script.ts";
import { sessionHookCommand, withSessionHook } from "./session-hook.ts";
import { applyShared, planShared } from "./shared-file.ts";
import type { SharedEdit, SharedPlan, SharedResult } from "./shared-file.ts";
import type { AgentConfigSpec } from "./spec.ts";
import { subagentsToJson } from "./subagents.ts";
import type { SubagentsResult } from "./subagents.ts";
import { giveUp, moveIntoPlace, removeLeftovers, writeAside } from "./write-aside.ts";
import type { AsideFile } from "./write-aside.ts";

export interface PrepareOptions {
  /** Every warning is a refusal. Default false. */
  readonly strict?: boolean;
  /** Where things are for the agent. Default: the container paths of the format. */
  readonly paths?: Partial<ContainerPaths>;
  /** Files of sub-agents are relative to it. Default: the working directory. */
  readonly baseDir?: string;
  /** Fields of sub-agents that are handed on although we do not know them. */
  readonly extraFields?: readonly string[];
  /** For a provider that takes no sub-agents: they are described in its instructions. Default false: a warning. */
  readonly foldSubagents?: boolean;
  /**
   * Where the SessionStart hook goes: `shared` into the settings of all tasks, as the format has it; `task` into a file of
   * the task that the script names, so that no other session of the user meets it. Default `shared`.
   */
  readonly sessionHook?: "shared" | "task";
  /** Longest wait for another preparation over the same `mountsBase`. Default 30 s. */
  readonly lockWaitMs?: number;
}

/** What a preparation has made. */
export interface AgentConfigManifest {
  /** The agent-config folder. */
  readonly path: string;
  /** Name of the provider. */
  readonly provider: string;
  /** Files of the folder that were written, by name. */
  readonly files: readonly { readonly name: string; readonly path: string; readonly sha256: string }[];
  /** Names of files of an earlier preparation that do not apply any more and are gone. */
  readonly removed: readonly string[];
  /** Files that all tasks share. */
  readonly shared: readonly SharedResult[];
  readonly warnings: readonly Diagnostic[];
}

/** Everything that is going to be written, found out without writing. */
interface Plan {
  readonly provider: AgentProvider;
  readonly folder: string;
  readonly files: ReadonlyMap<string, string>;
  readonly shared: readonly SharedEdit[];
  readonly diagnostics: readonly Diagnostic[];
}

/** Linux hands no longer argument to a program. */
const MAX_ARGUMENT_BYTES = 131_071;

const PLAIN_NAMES = ["agents.json", "instructions.md", "prompt.txt", "terok-executor.sh"];

/**
 * Makes the agent-config folder of a task: `instructions.md`, `terok-executor.sh`, `agents.json` and `prompt.txt` when they
 * apply, and the entries in the configuration that all tasks share. Doing it again changes nothing that is right.
 *
 * All is checked before anything is written; files are written beside their places and then moved there, one preparation
 * over the same `mountsBase` at a time, whatever process it is of. What is already there and not ours stays.
 * @throws AgentConfigError when it cannot be done, or, when `strict`, when there is anything to warn of. Then the files of
 *   the task are as they were.
 */
export function prepareAgentConfigDir(spec: AgentConfigSpec, options: PrepareOptions = {}): AgentConfigManifest {
  const mountsBase = resolve(spec.mountsBase ?? "");
  try {
    const plan = planOf(spec, options);
    // Everything is said at once, also what is wrong with the shared files.
    const said = [...plan.diagnostics, ...plan.shared.flatMap((edit) => planShared(mountsBase, edit).diagnostics)];
    if (options.strict === true && said.length > 0) throw new AgentConfigError(said);
    mkdirSync(mountsBase, { recursive: true, mode: 0o700 });
    const lock = join(mountsBase, ".agent-config.lock");
    return withFileLock(lock, () => write(plan, mountsBase, options.strict ?? false), options.lockWaitMs);
  } catch (error) {
    if (!isFileError(error)) throw error;
    const path = error.path ?? spec.tasksRoot;
    throw new AgentConfigError(
      [{ code: "unsafe-path", severity: "error", message: fileProblem(error, path), file: path }],
      { cause: error },
    );
  }
}

function planOf(spec: AgentConfigSpec, options: PrepareOptions): Plan {
  spec.check();
  const provider = getProvider(spec.provider, spec.defaultAgent);
  const paths = containerPaths(options.paths);
  const folder = join(resolve(spec.tasksRoot), spec.taskId, "agent-config");
  checkInside(folder);
  const { taken, agentsJson, diagnostics } = subagentsOf(spec, provider, options);
  const hook = hookOf(provider, paths, options);
  const instructions = spec.instructions || NEUTRAL_INSTRUCTIONS;
  const files = new Map<string, string>([
    ["instructions.md", taken === undefined ? instructions : `${instructions}\n\n${folded(taken)}`],
    [
      "terok-executor.sh",
      renderScript({ paths, hasAgents: agentsJson !== undefined, taskSettings: hook.file !== undefined }),
    ],
  ]);
  if (agentsJson !== undefined) files.set("agents.json", agentsJson);
  if (spec.prompt !== null) files.set("prompt.txt", spec.prompt);
  if (hook.file !== undefined) files.set(hook.file.name, hook.file.content);
  return { provider, folder, files, shared: [...opencodeEdits(paths), ...hook.shared], diagnostics };
}

/** The task's folder and its agent-config are folders of their own, and no links to somewhere else. */
function checkInside(folder: string): void {
  for (const path of [dirname(folder), folder]) {
    const stats = lstatSync(path, { throwIfNoEntry: false });
    if (stats === undefined || stats.isDirectory()) continue;
    throw configError("unsafe-path", "is not a folder of the task, but a link or a file: take it away", { file: path });
  }
}

interface Subagents {
  readonly agentsJson: string | undefined;
  /** To be described in the instructions. */
  readonly taken: SubagentsResult["agents"] | undefined;
  readonly diagnostics: readonly Diagnostic[];
}

function subagentsOf(spec: AgentConfigSpec, provider: AgentProvider, options: PrepareOptions): Subagents {
  const isFolded = !provider.supportsAgentsJson && options.foldSubagents === true;
  if (!provider.supportsAgentsJson && !isFolded) {
    const isAsked = spec.subagents.length > 0 || (spec.selectedAgents ?? []).length > 0;
    const diagnostics: Diagnostic[] = isAsked
      ? [{ code: "agents-unsupported", severity: "warning", message: agentsUnsupported(provider) }]
      : [];
    return { agentsJson: undefined, taken: undefined, diagnostics };
  }
  const { json, agents, diagnostics } = subagentsToJson(spec.subagents, spec.selectedAgents, options);
  if (agents.size === 0) return { agentsJson: undefined, taken: undefined, diagnostics };
  if (isFolded) return { agentsJson: undefined, taken: agents, diagnostics };
  const bytes = Buffer.byteLength(json);
  if (bytes > MAX_ARGUMENT_BYTES) {
    const message = `the sub-agents take ${bytes} bytes, and a program takes ${MAX_ARGUMENT_BYTES} in an argument: at a terminal there are none; shorten their prompts`;
    const tooLarge: Diagnostic = { code: "agents-too-large", severity: "warning", message };
    return { agentsJson: json, taken: undefined, diagnostics: [...diagnostics, tooLarge] };
  }
  return { agentsJson: json, taken: undefined, diagnostics };
}

function folded(agents: SubagentsResult["agents"]): string {
  const parts = Array.from(agents, ([name, { description, prompt }]) => {
    const words = [description, prompt].filter((text) => typeof text === "string" && text !== "");
    return [`## ${name}`, ...words].join("\n\n");
  });
  return ["# Roles\n\nWhen a part of the task fits one of these roles, work on it as the role says.", ...parts].join(
    "\n\n",
  );
}

interface Hook {
  readonly file: { readonly name: string; readonly content: string } | undefined;
  readonly shared: readonly SharedEdit[];
}

function hookOf(provider: AgentProvider, paths: ContainerPaths, options: PrepareOptions): Hook {
  const { session } = provider;
  if (session?.capture.by !== "hook") return { file: undefined, shared: [] };
  const command = sessionHookCommand(paths.config, session.file);
  const edit = (text: string | undefined) => withSessionHook(text, command, session.file);
  if (options.sessionHook === "task") {
    return { file: { name: session.capture.taskSettings, content: edit(undefined).text }, shared: [] };
  }
  return { file: undefined, shared: [{ file: session.capture.sharedSettings, edit }] };
}

/** For OpenCode and every endpoint behind it, whatever the provider is: a person may call each of them in the container. */
function opencodeEdits(paths: ContainerPaths): SharedEdit[] {
  const edit = (text: string | undefined) => withOpencodeInstructions(text, `${paths.config}/instructions.md`);
  return [...AGENT_PROVIDERS.values()].flatMap(({ instructions }) =>
    instructions.by === "config-file" ? [{ file: instructions.sharedFile, edit }] : [],
  );
}

/** Under the lock. */
function write(plan: Plan, mountsBase: string, strict: boolean): AgentConfigManifest {
  // Read again: somebody else may have written since.
  const shared = plan.shared.map((edit) => planShared(mountsBase, edit));
  const warnings = [...plan.diagnostics, ...shared.flatMap(({ diagnostics }) => diagnostics)];
  if (strict && warnings.length > 0) throw new AgentConfigError(warnings);
  const isNew = [dirname(plan.folder), plan.folder].filter((path) => !existsSync(path));
  mkdirSync(plan.folder, { recursive: true, mode: 0o700 });
  const aside: AsideFile[] = [];
  try {
    chmodSync(plan.folder, 0o700);
    removeLeftovers(plan.folder);
    for (const [name, content] of plan.files) aside.push(writeAside(join(plan.folder, name), content, 0o600));
    return moved(plan, aside, shared, warnings);
  } catch (error) {
    for (const file of aside) giveUp(file);
    for (const path of isNew.toReversed()) removeIfEmpty(path);
    throw error;
  }
}

function moved(
  plan: Plan,
  aside: readonly AsideFile[],
  shared: readonly SharedPlan[],
  warnings: readonly Diagnostic[],
): AgentConfigManifest {
  // The shared files first: an entry too many harms nobody, and the files of the task are still as they were.
  const results = shared.map(applyShared);
  for (const file of aside) moveIntoPlace(file);
  const removed = ownNames().filter((name) => !plan.files.has(name) && existsSync(join(plan.folder, name)));
  for (const name of removed) rmSync(join(plan.folder, name));
  const files = [...plan.files].sort(([a], [b]) => (a < b ? -1 : 1));
  return {
    path: plan.folder,
    provider: plan.provider.name,
    files: files.map(([name, content]) => ({ name, path: join(plan.folder, name), sha256: sha256(content) })),
    removed,
    shared: results,
    warnings,
  };
}

/** Every file that a preparation may write into the folder. */
function ownNames(): string[] {
  const settings = [...AGENT_PROVIDERS.values()].flatMap(({ session }) =>
    session?.capture.by === "hook" ? [session.capture.taskSettings] : [],
  );
  return [...PLAIN_NAMES, ...settings];
}

function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

function removeIfEmpty(path: string): void {
  try {
    rmdirSync(path);
  } catch {
    // Somebody else has put something into it.
  }
}
