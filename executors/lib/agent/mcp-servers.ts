import type { ExecutorInvocation } from "../invocation.ts";
import type { McpServerJson } from "../../../lib/invocation.ts";

/** Name of the server with the tools that start and follow sessions. */
export const ORCHESTRATOR = "orchestrator";

/**
 * The MCP servers of the run by name: those of the blueprint, and the orchestrator's unless a server of the blueprint
 * has its address already.
 */
export function mcpServersOf(
  { agent_blueprint, session_id }: Pick<ExecutorInvocation, "agent_blueprint" | "session_id">,
  env: Readonly<Record<string, string | undefined>>,
): Record<string, McpServerJson> {
  const servers = { ...agent_blueprint?.mcp_servers };
  const url = env["AGENT_ORCHESTRATOR_MCP_URL"];
  if (!url || orchestratorName(servers, env) !== undefined) return servers;
  // A blueprint may use the name for a server of its own.
  const name = Object.hasOwn(servers, ORCHESTRATOR) ? "agent_orchestrator" : ORCHESTRATOR;
  return { ...servers, [name]: { type: "http", url, headers: { "X-Agent-Session-Id": session_id } } };
}

/** Name of the server that is the orchestrator's; undefined when none is. */
export function orchestratorName(
  servers: Readonly<Record<string, McpServerJson>>,
  env: Readonly<Record<string, string | undefined>>,
): string | undefined {
  const url = env["AGENT_ORCHESTRATOR_MCP_URL"];
  if (!url) return undefined;
  return Object.entries(servers).find(([, server]) => server.type !== "stdio" && server.url === url)?.[0];
}
