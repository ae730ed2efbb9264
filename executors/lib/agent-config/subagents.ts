import { basename, extname, resolve } from "node:path";
import { nearNames } from "../../../lib/near-names.ts";
import { OWN_FIELDS, SUBAGENT_FIELDS, booleanOf } from "./agent-fields.ts";
import type { MdAgent } from "./agent-fields.ts";
import type { Diagnostic, DiagnosticCode } from "./diagnostics.ts";
import { parseMdAgent } from "./md-agent.ts";
import { shown } from "./spec.ts";
import type { SubagentItem } from "./spec.ts";

export interface SubagentOptions {
  /** Files are relative to it. Default: the working directory. */
  readonly baseDir?: string;
  /** Further fields that are handed on as they are, for a Claude that knows more of them than we do. */
  readonly extraFields?: readonly string[];
}

export interface SubagentsResult {
  /** One line: an object of the sub-agents by name. `{}` when there is none. */
  readonly json: string;
  /** What was taken, by name. */
  readonly agents: ReadonlyMap<string, Readonly<Record<string, unknown>>>;
  readonly diagnostics: readonly Diagnostic[];
}

/** A sub-agent before the filter. */
interface Candidate {
  readonly name: string;
  readonly agent: MdAgent;
  readonly file: string | undefined;
}

/**
 * The sub-agents that are `default: true` or selected, as Claude's `--agents` takes them. What cannot be used is left out
 * and said. Fields stand in a fixed order, and sub-agents in the order in which they are given.
 */
export function subagentsToJson(
  subagents: readonly SubagentItem[],
  selectedAgents: readonly string[] | null = null,
  options: SubagentOptions = {},
): SubagentsResult {
  const diagnostics: Diagnostic[] = [];
  const candidates = subagents.flatMap((item, index) => candidateOf(item, index, options, diagnostics));
  const selected = new Set(selectedAgents);
  const agents = new Map<string, Readonly<Record<string, unknown>>>();
  for (const candidate of candidates) {
    const { name, file } = candidate;
    const say = sayer(diagnostics, file, name);
    const isDefault = isTaken(candidate.agent["default"], say);
    if (!isDefault && !selected.has(name)) continue;
    if (agents.has(name))
      say("agent-duplicate-name", "warning", `sub-agent ${shown(name)} is there twice: the later one is used`);
    agents.set(name, entryOf(candidate.agent, options.extraFields ?? [], say));
  }
  const known = candidates.map(({ name }) => name);
  for (const name of selected) {
    if (known.includes(name)) continue;
    const near = nearNames(name, known);
    const hint = known.length === 0 ? "there are none" : `there are: ${known.slice(0, 20).join(", ")}`;
    const message = `there is no sub-agent ${shown(name)} to select; ${near.length > 0 ? `did you mean ${near.join(" or ")}?` : hint}`;
    sayer(diagnostics, undefined, name)("selected-unknown", "warning", message);
  }
  // A name such as `__proto__` is a key like any other.
  return { json: asciiJson(Object.fromEntries(agents)), agents, diagnostics };
}

type Say = (code: DiagnosticCode, severity: Diagnostic["severity"], message: string) => void;

function sayer(diagnostics: Diagnostic[], file: string | undefined, agent?: string): Say {
  return (code, severity, message) =>
    diagnostics.push({
      code,
      severity,
      message,
      ...(file === undefined ? {} : { file }),
      ...(agent === undefined ? {} : { agent }),
    });
}

function candidateOf(
  item: unknown,
  index: number,
  options: SubagentOptions,
  diagnostics: Diagnostic[],
): readonly Candidate[] {
  const say = sayer(diagnostics, undefined);
  if (typeof item !== "object" || item === null || Array.isArray(item)) {
    say("agent-not-an-object", "error", `subagents[${index}] is ${shown(item)}: give an object`);
    return [];
  }
  if (!Object.hasOwn(item, "file")) return named(item as MdAgent, undefined, index, diagnostics);
  const { file, default: isDefault, ...ignored } = item as Record<string, unknown>;
  if (typeof file !== "string" || file === "") {
    say("agent-file-missing", "error", `subagents[${index}].file is ${shown(file)}: give the path of a Markdown file`);
    return [];
  }
  if (Object.keys(ignored).length > 0) {
    const keys = Object.keys(ignored).join(", ");
    say(
      "agent-keys-ignored",
      "warning",
      `subagents[${index}] names the file ${file}: its ${keys} is not used, put it there`,
    );
  }
  const path = resolve(options.baseDir ?? ".", file);
  const parsed = parseMdAgent(path);
  diagnostics.push(...parsed.diagnostics);
  if (parsed.diagnostics.some(({ severity }) => severity === "error")) return [];
  return named(
    { ...parsed.agent, ...(isDefault === undefined ? {} : { default: isDefault as boolean }) },
    path,
    index,
    diagnostics,
  );
}

/** With the name of the file when it has none of its own. */
function named(
  agent: MdAgent,
  file: string | undefined,
  index: number,
  diagnostics: Diagnostic[],
): readonly Candidate[] {
  const say = sayer(diagnostics, file);
  const name: unknown = agent.name;
  if (typeof name === "string" && name !== "") return [{ name, agent, file }];
  if (typeof name === "number" && Number.isFinite(name)) {
    say("agent-name-not-text", "warning", `the name ${name} is a number: it is taken as the text "${name}"`);
    return [{ name: String(name), agent, file }];
  }
  const isMissing = name === undefined || name === null || name === "";
  if (isMissing && file !== undefined) return [{ name: basename(file, extname(file)), agent, file }];
  const what = file === undefined ? `subagents[${index}]` : "the sub-agent";
  if (isMissing) say("agent-name-missing", "error", `${what} has no name, so that it cannot be called: give it one`);
  else say("agent-name-not-text", "error", `${what} has the name ${shown(name)}: give a text`);
  return [];
}

function isTaken(value: unknown, say: Say): boolean {
  if (value === undefined || value === null) return false;
  const meant = booleanOf(value);
  if (typeof value === "boolean") return value;
  const taken = meant === undefined ? "it is not taken unless it is selected" : `it is read as ${meant}`;
  say("agent-default-not-boolean", "warning", `default is ${shown(value)}: write true or false; ${taken}`);
  return meant ?? false;
}

/** What is handed on of a sub-agent. */
function entryOf(agent: MdAgent, extraFields: readonly string[], say: Say): Readonly<Record<string, unknown>> {
  const entry: Record<string, unknown> = {};
  for (const [field, { wants, fits }] of SUBAGENT_FIELDS) {
    const value = agent[field];
    if (value === undefined || value === null) continue;
    if (fits(value)) entry[field] = value;
    else say("agent-field-type", "warning", `${field} is ${shown(value)} and is left out: give ${wants}`);
  }
  for (const field of extraFields) if (Object.hasOwn(agent, field)) entry[field] = agent[field];
  const unknown = Object.keys(agent).filter(
    (key) => !SUBAGENT_FIELDS.has(key) && !OWN_FIELDS.has(key) && !extraFields.includes(key),
  );
  for (const key of unknown) {
    const near = nearNames(key, [...SUBAGENT_FIELDS.keys(), ...OWN_FIELDS]);
    const hint = near.length > 0 ? `did you mean ${near.join(" or ")}?` : "name it in extraFields to hand it on";
    say("agent-field-unknown", "warning", `${key} is no field of a sub-agent and is left out: ${hint}`);
  }
  if (entry["description"] === undefined) {
    say(
      "agent-description-missing",
      "warning",
      "there is no description, by which the agent decides when to call it: add one",
    );
  }
  const prompt = Object.hasOwn(agent, "system_prompt") ? agent.system_prompt : agent.prompt;
  if (typeof prompt === "string") entry["prompt"] = prompt;
  else if (prompt === undefined || prompt === null)
    say("agent-prompt-missing", "warning", "there is no prompt: add one");
  else say("agent-field-type", "warning", `the prompt is ${shown(prompt)} and is left out: give a text`);
  return entry;
}

/** JSON on one line that every encoding can carry. */
function asciiJson(value: unknown): string {
  return JSON.stringify(value).replaceAll(/[\u007f-\uffff]/g, (unit) => {
    return `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`;
  });
}
