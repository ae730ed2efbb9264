import { create } from "@bufbuild/protobuf";
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { AgentBlueprintSchema } from "../../../gen/agentrunner/v1/blueprint_pb.ts";
import type { AgentBlueprint } from "../../../gen/agentrunner/v1/blueprint_pb.ts";
import type { McpServer } from "../../../gen/agentrunner/v1/executor_pb.ts";
import { DemandsSchema } from "../../../gen/agentrunner/v1/run_pb.ts";
import type { Demands } from "../../../gen/agentrunner/v1/run_pb.ts";
import { jsonProblem } from "../../../lib/protocol/json-values.ts";
import { hooksJson, hooksOf } from "./hooks.ts";
import { serverJson, serversOf } from "./mcp-servers.ts";
import {
  BlueprintError,
  isFilled,
  name as nameOf,
  object,
  optional,
  parseObject,
  refuse,
  string,
  tagList,
} from "./reads.ts";
import { meantKey } from "./slips.ts";

export { BlueprintError } from "./reads.ts";

/** Names of the files of a blueprint, in its directory. */
export const FILES = { agent: "agent.json", systemPrompt: "agent.system-prompt.md", mcp: "agent.mcp.json" } as const;
/** File whose presence turns a blueprint off. */
export const DISABLED_FILE = ".disabled";

/** Texts of the files of a blueprint; undefined for a file that is not there. */
export interface BlueprintFiles {
  readonly agent: string | undefined;
  readonly systemPrompt: string | undefined;
  readonly mcp: string | undefined;
  readonly disabled: boolean;
}

export interface ParsedBlueprint {
  readonly blueprint: AgentBlueprint;
  /** What was understood in another way than written, or not used. */
  readonly warnings: readonly string[];
}

const NAME = /^[A-Za-z0-9][A-Za-z0-9_-]{0,59}$/;

export function isBlueprintName(name: string): boolean {
  return NAME.test(name);
}

/** What a name must be, in words. */
export const NAME_RULE = "1 to 60 letters, digits, _ and -, the first a letter or a digit";

/** Keys of agent.json that are read. */
const KNOWN = [
  "name",
  "description",
  "system_prompt",
  "mcp_servers",
  "demands",
  "parameters_schema",
  "output_schema",
  "hooks",
  "tags",
];

/** What other programs call them, in small letters without `-` and `_`. */
const OTHER_NAMES: Readonly<Record<string, string>> = {
  prompt: "system_prompt",
  instructions: "system_prompt",
  systemmessage: "system_prompt",
  servers: "mcp_servers",
  mcp: "mcp_servers",
  inputschema: "parameters_schema",
  resultschema: "output_schema",
};

/**
 * Keys of agent.json that elsewhere change what an agent is. Ignoring them would run another agent than the one that was
 * written, so they are refused unless they say nothing. Any other unknown key is ignored with a warning.
 */
const FOREIGN: Readonly<Record<string, { says: (value: JsonValue) => boolean; advice: string }>> = {
  type: { says: (value) => value !== "autonomous", advice: 'only "autonomous" agents run here' },
  script: { says: isFilled, advice: "only agents with a prompt run here" },
  command: { says: isFilled, advice: "only agents with a prompt run here" },
  capabilities: {
    says: isFilled,
    advice: `put their texts into ${FILES.systemPrompt} and their servers into ${FILES.mcp}`,
  },
  enabled: { says: (value) => value !== true, advice: `a file ${DISABLED_FILE} beside it turns the agent off` },
};

/**
 * Reads a blueprint: strict about what it knows, so that a slip of the pen never makes another agent. Whether its schemas
 * can be used takes longer to find out, and is not looked at: see `schemasOf`.
 *
 * @throws BlueprintError for the first thing that is wrong.
 */
export function parseBlueprint(name: string, files: BlueprintFiles): ParsedBlueprint {
  if (!isBlueprintName(name)) throw new BlueprintError(`the name of a blueprint is ${NAME_RULE}`);
  if (files.agent === undefined) throw new BlueprintError(`${FILES.agent} is missing`);
  const at = FILES.agent;
  const json = parseObject(files.agent, at);
  const warnings: string[] = [];
  for (const [key, value] of Object.entries(json)) {
    const foreign = Object.hasOwn(FOREIGN, key) ? FOREIGN[key] : undefined;
    if (foreign?.says(value) === true) throw new BlueprintError(`${at}: ${key}: ${foreign.advice}`);
    if (foreign !== undefined || KNOWN.includes(key)) continue;
    const meant = isFilled(value) ? meantKey(key, KNOWN, OTHER_NAMES) : undefined;
    if (meant !== undefined) throw new BlueprintError(`${at}: ${key} is not known; did you mean ${meant}?`);
    warnings.push(`${at}: ${key} is not known and ignored`);
  }
  const named = optional(string)(json["name"], `${at}: name`) ?? name;
  if (named !== name) refuse(`${at}: name`, `${JSON.stringify(name)}, as the directory is named`, named);
  const blueprint = create(AgentBlueprintSchema, {
    name,
    description: optional(string)(json["description"], `${at}: description`) ?? "",
    systemPrompt: systemPromptOf(json, files),
    mcpServers: mcpServersOf(json, files, warnings),
    tags: optional(tagList)(json["tags"], `${at}: tags`) ?? [],
    enabled: !files.disabled,
  });
  const demands = optional(object)(json["demands"], `${at}: demands`);
  if (demands !== undefined) blueprint.demands = demandsOf(demands, `${at}: demands`, warnings);
  const parametersSchema = optional(schema)(json["parameters_schema"], `${at}: parameters_schema`);
  if (parametersSchema !== undefined) blueprint.parametersSchema = parametersSchema;
  const outputSchema = optional(schema)(json["output_schema"], `${at}: output_schema`);
  if (outputSchema !== undefined) blueprint.outputSchema = outputSchema;
  const hooks = hooksOf(json["hooks"], `${at}: hooks`);
  if (hooks !== undefined) blueprint.hooks = hooks;
  return { blueprint, warnings };
}

/** The JSON Schemas of a blueprint, each with its place. */
export function schemasOf({ parametersSchema, outputSchema }: AgentBlueprint): { at: string; schema: JsonObject }[] {
  return [
    ...(parametersSchema === undefined ? [] : [{ at: `${FILES.agent}: parameters_schema`, schema: parametersSchema }]),
    ...(outputSchema === undefined ? [] : [{ at: `${FILES.agent}: output_schema`, schema: outputSchema }]),
  ];
}

function systemPromptOf(json: JsonObject, { systemPrompt }: BlueprintFiles): string {
  const inline = optional(string)(json["system_prompt"], `${FILES.agent}: system_prompt`);
  if (inline === undefined) return systemPrompt ?? "";
  if (systemPrompt === undefined) return inline;
  throw new BlueprintError(`${FILES.agent}: system_prompt: ${FILES.systemPrompt} has one too; keep one of the two`);
}

function mcpServersOf(json: JsonObject, { mcp }: BlueprintFiles, warnings: string[]): Record<string, McpServer> {
  const inline = serversOf(json["mcp_servers"], `${FILES.agent}: mcp_servers`, warnings);
  const own = mcp === undefined ? [] : serversOf(ownServers(mcp), `${FILES.mcp}: mcpServers`, warnings);
  const servers = new Map(inline);
  for (const [name, server] of own) {
    if (servers.has(name)) {
      throw new BlueprintError(`${FILES.mcp}: mcpServers.${name}: ${FILES.agent} has a server of that name too`);
    }
    servers.set(name, server);
  }
  return Object.fromEntries(servers);
}

/** What agent.mcp.json says under its only key. Under any other the servers would be left out without a word. */
function ownServers(mcp: string): JsonValue | undefined {
  const json = parseObject(mcp, FILES.mcp);
  const other = Object.keys(json).find((key) => key !== "mcpServers" && key !== "$schema");
  if (other === undefined) return json["mcpServers"];
  throw new BlueprintError(`${FILES.mcp}: ${other} is not known; the servers, by name, belong under "mcpServers"`);
}

function demandsOf(json: JsonObject, at: string, warnings: string[]): Demands {
  const known = ["executor_profile", "executor_type", "hostname", "project_dir", "tags"];
  for (const key of Object.keys(json)) {
    // A demand that is not made would send the run to a runner that does not suit it.
    if (!known.includes(key)) throw new BlueprintError(`${at}.${key} is not known; known: ${known.join(", ")}`);
  }
  const text = (key: string, max: number): string => optional(nameOf(max))(json[key], `${at}.${key}`) ?? "";
  const old = text("executor_type", 256);
  const profile = text("executor_profile", 256);
  if (old !== "") warnings.push(`${at}.executor_type is the old name of executor_profile and read as that`);
  if (old !== "" && profile !== "" && old !== profile) {
    throw new BlueprintError(`${at}.executor_type says ${old} and executor_profile says ${profile}; keep the second`);
  }
  return create(DemandsSchema, {
    executorProfile: profile || old,
    hostname: text("hostname", 256),
    projectDir: text("project_dir", 4096),
    tags: optional(tagList)(json["tags"], `${at}.tags`) ?? [],
  });
}

/** Fields that an update can name, as in blueprint.proto. */
export const FIELDS = [
  "description",
  "system_prompt",
  "mcp_servers",
  "demands",
  "parameters_schema",
  "output_schema",
  "hooks",
  "tags",
  "enabled",
] as const;
export type Field = (typeof FIELDS)[number];

/** A blueprint that has no files yet. */
export const NO_FILES: BlueprintFiles = { agent: undefined, systemPrompt: undefined, mcp: undefined, disabled: false };

/**
 * The files with these fields of `blueprint` in them. What else stands in them stays, and a prompt or servers that stand
 * in agent.json stay there.
 */
export function withFields(
  before: BlueprintFiles,
  blueprint: AgentBlueprint,
  fields: readonly Field[],
): BlueprintFiles {
  const json = before.agent === undefined ? {} : parseObject(before.agent, FILES.agent);
  const has = (field: Field): boolean => fields.includes(field);
  const inlinePrompt = json["system_prompt"] !== undefined;
  const inlineServers = json["mcp_servers"] !== undefined;
  const { description, systemPrompt, demands, parametersSchema, outputSchema, hooks, tags, enabled } = blueprint;
  const mcpServers = mapValues(blueprint.mcpServers, serverJson);
  const set = (field: Field, value: JsonValue | undefined): void => {
    if (!has(field)) return;
    if (isFilled(value)) json[field] = value as JsonValue;
    else delete json[field];
  };
  json["name"] = blueprint.name;
  set("description", description);
  set("demands", demands === undefined ? {} : demandsJson(demands));
  set("hooks", hooks === undefined ? {} : hooksJson(hooks));
  set("tags", [...tags]);
  // An empty schema fits everything, which is not the same as none: a run of its agent needs no prompt.
  if (has("parameters_schema")) assign(json, "parameters_schema", parametersSchema);
  if (has("output_schema")) assign(json, "output_schema", outputSchema);
  if (inlinePrompt) set("system_prompt", systemPrompt);
  if (inlineServers) set("mcp_servers", mcpServers);
  const ownFile = (text: string | undefined, inline: boolean): string | undefined => (inline ? undefined : text);
  return {
    agent: jsonText(json),
    systemPrompt: has("system_prompt") ? ownFile(systemPrompt || undefined, inlinePrompt) : before.systemPrompt,
    mcp: has("mcp_servers")
      ? ownFile(isFilled(mcpServers) ? jsonText({ mcpServers }) : undefined, inlineServers)
      : before.mcp,
    disabled: has("enabled") ? !enabled : before.disabled,
  };
}

function assign(json: JsonObject, key: string, value: JsonObject | undefined): void {
  if (value === undefined) delete json[key];
  else json[key] = value;
}

function demandsJson({ executorProfile, hostname, projectDir, tags }: Demands): JsonObject {
  const all = { executor_profile: executorProfile, hostname, project_dir: projectDir, tags: [...tags] };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => isFilled(value)));
}

function jsonText(json: JsonObject): string {
  return `${JSON.stringify(json, undefined, 2)}\n`;
}

function mapValues<T>(map: Readonly<Record<string, T>>, each: (value: T) => JsonObject): JsonObject {
  return Object.fromEntries(Object.entries(map).map(([key, value]) => [key, each(value)]));
}

/** A JSON Schema. Whether it can be used is found out where it is compiled. */
function schema(value: JsonValue | undefined, at: string): JsonObject {
  const json = object(value, at);
  const problem = jsonProblem(json, at);
  if (problem !== undefined) throw new BlueprintError(problem);
  return json;
}
