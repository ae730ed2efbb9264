import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import type { ExecutorInvocation, InvocationBlueprint, McpServer } from "../gen/agentrunner/v1/executor_pb.ts";

/*
 * The document that an executor reads on stdin, schema 2.0 (ADR 8): invocationJson writes it, parseInvocation reads
 * it. Everything imported is a type, so that an executor's start does not pay for a protobuf runtime.
 */

/** `schema_version` of the documents that invocationJson is meant for. A reader takes every 2.x. */
export const SCHEMA_VERSION = "2.0";

export type InvocationMode = "start" | "resume";

/** An invocation as an executor reads it. What the document left out is undefined here, or its default. */
export interface ExecutorInvocationJson {
  /** "2.x". */
  schema_version: string;
  mode: InvocationMode;
  session_id: string;
  prompt: string;
  project_dir: string;
  /** Absent when the run names no agent. */
  agent_blueprint: InvocationBlueprintJson | undefined;
  metadata: JsonObject;
  run_id: string | undefined;
  /** From 1, the default. */
  attempt: number;
  /** Default: the session_id. */
  session_name: string;
  /** Absent until the executor has named the conversation in an earlier run. */
  executor_session_id: string | undefined;
  executor_config: JsonObject;
  parameters: JsonObject;
  parent_session_id: string | undefined;
  callback: { child_session_ids: string[] } | undefined;
}

export interface InvocationBlueprintJson {
  name: string;
  system_prompt: string;
  /** By name. */
  mcp_servers: Record<string, McpServerJson>;
  /** JSON Schema that the data of the result are held against. Absent when the agent may answer as it likes. */
  output_schema: JsonObject | undefined;
}

export type McpServerJson =
  | { type: "http" | "sse"; url: string; headers: Record<string, string> }
  | { type: "stdio"; command: string; args: string[]; env: Record<string, string> };

/** An invocation that cannot be used. The message names the field, what belongs there and what was found. */
export class InvocationError extends Error {
  override name = "InvocationError";
}

/**
 * The message as one line of JSON with its line end. Keys come in the order of the message and those of maps and
 * structs in alphabetical order, since protobuf promises none: equal messages give equal text.
 */
export function invocationJson(invocation: ExecutorInvocation): string {
  const document = {
    schema_version: invocation.schemaVersion,
    mode: invocation.mode,
    session_id: invocation.sessionId,
    prompt: invocation.prompt,
    project_dir: invocation.projectDir,
    agent_blueprint: invocation.agentBlueprint && blueprintJson(invocation.agentBlueprint),
    metadata: sortedStruct(invocation.metadata ?? {}),
    run_id: invocation.runId || undefined,
    attempt: invocation.attempt || undefined,
    session_name: invocation.sessionName || undefined,
    executor_session_id: invocation.executorSessionId || undefined,
    executor_config: unlessEmpty(invocation.executorConfig),
    parameters: unlessEmpty(invocation.parameters),
    parent_session_id: invocation.parentSessionId || undefined,
    callback: invocation.callback && { child_session_ids: invocation.callback.childSessionIds },
  };
  return `${JSON.stringify(document)}\n`;
}

function blueprintJson({ name, systemPrompt, mcpServers, outputSchema }: InvocationBlueprint) {
  return {
    name,
    system_prompt: systemPrompt,
    mcp_servers: sortedMap(mcpServers, serverJson),
    // An empty schema asks for data of any kind, which is not the same as none.
    output_schema: outputSchema && sortedStruct(outputSchema),
  };
}

/** A server with the fields that its transport uses. */
function serverJson({ type, url, headers, command, args, env }: McpServer) {
  return type === "stdio"
    ? { type, command, args, env: sortedStruct(env) }
    : { type, url, headers: sortedStruct(headers) };
}

function unlessEmpty(struct: JsonObject | undefined): JsonObject | undefined {
  return struct && Object.keys(struct).length > 0 ? sortedStruct(struct) : undefined;
}

function sortedStruct(struct: JsonObject): JsonObject {
  return sortedMap(struct, sortedValue);
}

function sortedValue(value: JsonValue): JsonValue {
  if (Array.isArray(value)) return value.map(sortedValue);
  return typeof value === "object" && value !== null ? sortedStruct(value) : value;
}

function sortedMap<T, U>(map: Record<string, T>, each: (value: T) => U): Record<string, U> {
  const entries = Object.entries(map).sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(entries.map(([key, value]) => [key, each(value)]));
}

/**
 * Reads an invocation, strict about what it knows and blind to what it does not. Throws InvocationError for text that
 * is not a JSON object, another major version, a required field that is missing, and a value of the wrong type.
 */
export function parseInvocation(text: string): ExecutorInvocationJson {
  const field = fieldsOf(parseJson(text), "invocation");
  // First of all: of another major version nothing else need be as it is here.
  const schema_version = field("schema_version", version);
  const session_id = field("session_id", filled);
  return {
    schema_version,
    mode: field("mode", oneOf("start", "resume")),
    session_id,
    prompt: field("prompt", string),
    project_dir: field("project_dir", filled),
    agent_blueprint: field("agent_blueprint", optional(blueprint)),
    metadata: field("metadata", object),
    run_id: field("run_id", optional(filled)),
    attempt: field("attempt", optional(positive)) ?? 1,
    session_name: field("session_name", optional(filled)) ?? session_id,
    executor_session_id: field("executor_session_id", optional(filled)),
    executor_config: field("executor_config", optional(object)) ?? {},
    parameters: field("parameters", optional(object)) ?? {},
    parent_session_id: field("parent_session_id", optional(filled)),
    callback: field("callback", optional(callback)),
  };
}

/** Takes the value that stands at a path of the document, or throws InvocationError. */
type Read<T> = (value: unknown, at: string) => T;

function blueprint(value: unknown, at: string): InvocationBlueprintJson {
  const field = fieldsOf(value, at);
  return {
    name: field("name", filled),
    system_prompt: field("system_prompt", string),
    mcp_servers: field("mcp_servers", mapOf(server)),
    output_schema: field("output_schema", optional(object)),
  };
}

function server(value: unknown, at: string): McpServerJson {
  const field = fieldsOf(value, at);
  const type = field("type", oneOf("http", "sse", "stdio"));
  if (type !== "stdio") return { type, url: field("url", filled), headers: field("headers", optional(strings)) ?? {} };
  const args = field("args", optional(listOf(string))) ?? [];
  return { type, command: field("command", filled), args, env: field("env", optional(strings)) ?? {} };
}

function callback(value: unknown, at: string) {
  return { child_session_ids: fieldsOf(value, at)("child_session_ids", listOf(filled)) };
}

function fieldsOf(value: unknown, at: string) {
  const fields = object(value, at);
  return <T>(name: string, read: Read<T>): T => read(fields[name], `${at}.${name}`);
}

function object(value: unknown, at: string): JsonObject {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as JsonObject;
  return refuse(at, "an object", value);
}

function string(value: unknown, at: string): string {
  return typeof value === "string" ? value : refuse(at, "a string", value);
}

function filled(value: unknown, at: string): string {
  return typeof value === "string" && value !== "" ? value : refuse(at, "a non-empty string", value);
}

function version(value: unknown, at: string): string {
  return typeof value === "string" && /^2\.[0-9]+$/.test(value) ? value : refuse(at, 'a version "2.x"', value);
}

function positive(value: unknown, at: string): number {
  return Number.isInteger(value) && (value as number) > 0 ? (value as number) : refuse(at, "a positive integer", value);
}

function oneOf<T extends string>(...choices: T[]): Read<T> {
  const expected = choices.map((choice) => `"${choice}"`).join(" or ");
  return (value, at) => choices.find((choice) => choice === value) ?? refuse(at, expected, value);
}

function optional<T>(read: Read<T>): Read<T | undefined> {
  return (value, at) => (value === undefined ? undefined : read(value, at));
}

function listOf<T>(read: Read<T>): Read<T[]> {
  return (value, at) =>
    Array.isArray(value) ? value.map((item, index) => read(item, `${at}[${index}]`)) : refuse(at, "a list", value);
}

function mapOf<T>(read: Read<T>): Read<Record<string, T>> {
  return (value, at) => {
    const entries = Object.entries(object(value, at));
    return Object.fromEntries(entries.map(([key, item]) => [key, read(item, `${at}.${key}`)]));
  };
}

const strings = mapOf(string);

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new InvocationError(`invocation: expected one JSON document, found ${described(text)}`, { cause: error });
  }
}

function refuse(at: string, expected: string, value: unknown): never {
  throw new InvocationError(`${at}: expected ${expected}, found ${described(value)}`);
}

/** A value in a few words. Of a string, which may be a prompt, only the first 40 characters are shown. */
function described(value: unknown): string {
  if (typeof value === "string") {
    const head = Array.from(value.slice(0, 80)).slice(0, 40).join("");
    return JSON.stringify(head === value ? value : `${head}…`);
  }
  if (typeof value === "number") return "a number";
  if (Array.isArray(value)) return "a list";
  if (typeof value === "object" && value !== null) return "an object";
  return value === undefined ? "nothing" : JSON.stringify(value);
}
