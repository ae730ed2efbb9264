import type { OfferedTool, Reply } from "./conversation.ts";
import { object, string } from "./json.ts";
import type { Json } from "./json.ts";
import { DEFAULT_TEXT } from "./script.ts";
import type { Step } from "./script.ts";

/** Names under which agents offer their shell. */
const SHELL =
  /^(bash|shell|run_shell_command|exec_command|shell_command|local_shell|run_commands?|execute_command|terminal|run_terminal_cmd|execute)$/i;

/** Tool of the orchestrator that `mcp` calls. */
const CHILD_TOOL = "start_agent_session";

/**
 * What the model says at a step. It calls only what the request offers: what an agent hides from its model is not found here
 * either, and the answer says so with the names of what there is.
 */
export function replyOf(step: Step, tools: readonly OfferedTool[]): Reply {
  switch (step.name) {
    case "bash":
      return shellCall(step.argument || "echo hi-from-bash", tools);
    case "mcp":
      return namedCall(CHILD_TOOL, step.argument || '{"prompt":"<<text:CHILD-OK>>"}', tools);
    case "tool": {
      const [name = ""] = step.argument.split(":", 1);
      return namedCall(name, step.argument.slice(name.length + 1) || "{}", tools);
    }
    case "structured":
      return structured(step.argument || '{"answer":42}', tools);
    case "text":
      return say(step.argument || DEFAULT_TEXT);
    default:
      return say(DEFAULT_TEXT);
  }
}

/** The offered tool of that name, which agents put the name of its server before: mcp__S__T, S_T, S-T, S.T. */
export function toolNamed(name: string, tools: readonly OfferedTool[]): OfferedTool | undefined {
  const wanted = plainName(name);
  const exact = tools.find((tool) => tool.name === name);
  return exact ?? tools.find((tool) => plainName(tool.name) === wanted || plainName(tool.name).endsWith(`_${wanted}`));
}

function plainName(name: string): string {
  return name.toLowerCase().replaceAll(/[^a-z0-9]+/g, "_");
}

/** Arguments that hold what the schema requires, and what was given. */
export function filled(schema: Json, given: Json): Json {
  const properties = object(schema["properties"]);
  const required = Array.isArray(schema["required"]) ? schema["required"].map(string) : [];
  const missing = required.filter((name) => !Object.hasOwn(given, name));
  return { ...given, ...Object.fromEntries(missing.map((name) => [name, sample(object(properties[name]))])) };
}

/** Some value of the schema. */
function sample(schema: Json): unknown {
  const choices = ["anyOf", "oneOf", "allOf"].flatMap((key) => (Array.isArray(schema[key]) ? [schema[key]] : []));
  const [first] = choices.flat();
  if (first !== undefined) return sample(object(first));
  if (Object.hasOwn(schema, "default")) return schema["default"];
  if (Object.hasOwn(schema, "const")) return schema["const"];
  if (Array.isArray(schema["enum"])) return (schema["enum"] as unknown[])[0];
  const { type } = schema;
  switch (Array.isArray(type) ? type.find((one) => one !== "null") : type) {
    case "number":
    case "integer":
      // Often a limit in milliseconds or tokens, for which 1 would be too little.
      return schema["minimum"] ?? 1000;
    case "boolean":
      return false;
    case "array":
      return schema["minItems"] === undefined ? [] : [sample(object(schema["items"]))];
    case "object":
      return filled(schema, {});
    default:
      return "stub";
  }
}

function shellCall(command: string, tools: readonly OfferedTool[]): Reply {
  const tool = tools.find(({ name }) => SHELL.test(name));
  if (tool === undefined) return notOffered("a shell", tools);
  const properties = object(tool.schema["properties"]);
  const takesList = object(properties["command"])["type"] === "array";
  const args = Object.hasOwn(properties, "cmd")
    ? { cmd: command }
    : Object.hasOwn(properties, "commands")
      ? { commands: [command] }
      : { command: takesList ? ["bash", "-lc", command] : command };
  return { type: "call", tool, args: filled(tool.schema, args) };
}

function namedCall(name: string, json: string, tools: readonly OfferedTool[]): Reply {
  const tool = toolNamed(name, tools);
  if (tool === undefined) return notOffered(name, tools);
  const args = argumentsIn(json);
  if (args === undefined) return say(`SCRIPT-ERROR: the arguments of ${name} are no JSON object: ${json}`);
  return { type: "call", tool, args: filled(tool.schema, args) };
}

function structured(json: string, tools: readonly OfferedTool[]): Reply {
  const tool = tools.find(({ name }) => /structured/i.test(name));
  return tool === undefined ? say(json) : { type: "call", tool, args: argumentsIn(json) ?? {} };
}

function argumentsIn(json: string): Json | undefined {
  try {
    const value: unknown = JSON.parse(json);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Json) : undefined;
  } catch {
    return undefined;
  }
}

function notOffered(what: string, tools: readonly OfferedTool[]): Reply {
  return say(`NOT-OFFERED: ${what}; offered: ${tools.map(fullName).join(", ") || "nothing"}`);
}

/** The name of a tool, after that of its group. */
export function fullName({ name, namespace }: OfferedTool): string {
  return namespace === undefined ? name : `${namespace}.${name}`;
}

function say(text: string): Reply {
  return { type: "text", text };
}
