import { create } from "@bufbuild/protobuf";
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { InvocationBlueprintSchema } from "../../gen/agentrunner/v1/executor_pb.ts";
import type { InvocationBlueprint, McpServer } from "../../gen/agentrunner/v1/executor_pb.ts";

/** All that a placeholder can reach (ADR 12). */
export interface PlaceholderSources {
  readonly sessionId: string;
  readonly runId: string;
  /** Where this run finds the orchestrator's MCP tools. */
  readonly mcpUrl: string;
  readonly parameters: JsonObject;
  /** Variables that the runner's configuration names, and no others. */
  readonly env: Readonly<Record<string, string>>;
}

export interface Resolved {
  readonly blueprint: InvocationBlueprint;
  /** Placeholders that stayed as they are, each once. */
  readonly unresolved: readonly string[];
}

/** Characters that placeholders of one blueprint may put in: a large parameter may be named often. Further ones stay. */
const MAX_SUBSTITUTED = 4 * 1024 * 1024;

const PLACEHOLDER = /\$\{([^{}\s]{1,256})\}/g;

/**
 * Replaces the placeholders in the system prompt and in every value of the MCP servers. What was put in is not searched
 * again: a parameter cannot reach what only the blueprint may.
 */
export function resolvePlaceholders(blueprint: InvocationBlueprint, sources: PlaceholderSources): Resolved {
  const unresolved = new Set<string>();
  let room = MAX_SUBSTITUTED;
  const resolve = (text: string): string =>
    text.replaceAll(PLACEHOLDER, (placeholder, name: string) => {
      const value = valueOf(name, sources);
      if (value !== undefined && value.length <= room) {
        room -= value.length;
        return value;
      }
      unresolved.add(placeholder);
      return placeholder;
    });
  const server = ({ type, url, headers, command, args, env }: McpServer) => ({
    type,
    url: resolve(url),
    headers: mapValues(headers, resolve),
    command: resolve(command),
    args: args.map(resolve),
    env: mapValues(env, resolve),
  });
  const resolved = create(InvocationBlueprintSchema, {
    name: blueprint.name,
    systemPrompt: resolve(blueprint.systemPrompt),
    mcpServers: mapValues(blueprint.mcpServers, server),
  });
  if (blueprint.outputSchema !== undefined) resolved.outputSchema = blueprint.outputSchema;
  return { blueprint: resolved, unresolved: [...unresolved] };
}

function valueOf(name: string, sources: PlaceholderSources): string | undefined {
  switch (name) {
    case "AGENT_SESSION_ID":
    case "runtime.session_id":
      return sources.sessionId;
    case "runtime.run_id":
      return sources.runId;
    case "AGENT_ORCHESTRATOR_MCP_URL":
    case "runner.orchestrator_mcp_url":
      return sources.mcpUrl;
    default:
      break;
  }
  const dot = name.indexOf(".");
  const key = name.slice(dot + 1);
  if (name.startsWith("env.")) return own(sources.env, key);
  return name.startsWith("params.") ? textOf(own(sources.parameters, key)) : undefined;
}

function own<T>(map: Readonly<Record<string, T>>, key: string): T | undefined {
  return Object.hasOwn(map, key) ? map[key] : undefined;
}

/** A string as it is, everything else as JSON. */
function textOf(value: JsonValue | undefined): string | undefined {
  return value === undefined || typeof value === "string" ? value : JSON.stringify(value);
}

function mapValues<T, U>(map: Readonly<Record<string, T>>, each: (value: T) => U): Record<string, U> {
  return Object.fromEntries(Object.entries(map).map(([key, value]) => [key, each(value)]));
}
