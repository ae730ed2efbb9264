import type { JsonObject } from "@bufbuild/protobuf";
import type { McpServerJson } from "../../lib/invocation.ts";
import { tomlKey, tomlLines, tomlTable } from "../lib/agent/toml.ts";
import type { CodexConfig } from "./config.ts";

/** Time for a server of the run to start, in seconds: a command may have to be fetched first. */
const SERVER_START_SECONDS = 30;

export interface ConfigFileFacts {
  readonly config: CodexConfig;
  /** Empty: none. */
  readonly systemPrompt: string;
  readonly servers: Readonly<Record<string, McpServerJson>>;
  /** Address of the model's API, and the variable with its key. Absent: the agent's own. */
  readonly endpoint: { readonly url: string; readonly keyVariable: string } | undefined;
}

/**
 * `config.toml` of the private CODEX_HOME. Everything that is secret stands here and not in argv; a key is named by its
 * variable alone.
 */
export function configFile({ config, systemPrompt, servers, endpoint }: ConfigFileFacts): string {
  const top: JsonObject = {
    ...(config.model !== undefined && { model: config.model }),
    ...(systemPrompt !== "" && { developer_instructions: systemPrompt }),
    ...(endpoint !== undefined && { model_provider: "endpoint" }),
    ...modeOf(config),
    check_for_update_on_startup: false,
  };
  const parts = [tomlLines(top)];
  if (config.permissionMode === "workspace-write") {
    parts.push(tomlTable("[sandbox_workspace_write]", { network_access: true, writable_roots: [...config.addDirs] }));
  }
  if (endpoint !== undefined)
    parts.push(tomlTable("[model_providers.endpoint]", providerOf(endpoint, config.maxRetries)));
  for (const [name, server] of Object.entries(servers)) {
    parts.push(tomlTable(`[mcp_servers.${tomlKey(name)}]`, serverOf(server)));
  }
  return parts.join("");
}

/** Of full access the roster's flag takes care. */
function modeOf({ permissionMode }: CodexConfig): JsonObject {
  if (permissionMode === "full-access") return {};
  return { sandbox_mode: permissionMode, approval_policy: "never" };
}

/** A provider of our own: with the built-in one it tries a WebSocket for 6 s first. */
function providerOf({ url, keyVariable }: { url: string; keyVariable: string }, retries: number): JsonObject {
  return {
    name: "endpoint",
    base_url: url,
    env_key: keyVariable,
    wire_api: "responses",
    // Both at once would multiply: what fails at its start is tried again as a stream, and said to be.
    request_max_retries: 0,
    stream_max_retries: retries,
  };
}

/** A server that does not start fails the run, and its tools are not asked about. */
function serverOf(server: McpServerJson): JsonObject {
  const rules = {
    required: true,
    startup_timeout_sec: SERVER_START_SECONDS,
    default_tools_approval_mode: "approve",
  };
  if (server.type === "stdio") return { command: server.command, args: server.args, env: server.env, ...rules };
  return { url: server.url, http_headers: server.headers, ...rules };
}
