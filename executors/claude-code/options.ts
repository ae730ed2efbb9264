import { join } from "node:path";
import type { ExecutorInvocation } from "../lib/invocation.ts";
import type { McpServerJson } from "../../lib/invocation.ts";
import { orchestratorName } from "../lib/agent/mcp-servers.ts";
import { writePrivate } from "../lib/roster/private-home.ts";
import type { PrivateHome } from "../lib/roster/private-home.ts";
import type { RosterEntry } from "../lib/roster/roster-entry.ts";
import type { ClaudeConfig } from "./config.ts";
import type { Conversation } from "./conversation.ts";

type Env = Readonly<Record<string, string | undefined>>;

export interface QueryFacts {
  readonly invocation: ExecutorInvocation;
  readonly config: ClaudeConfig;
  readonly entry: RosterEntry;
  readonly home: PrivateHome;
  readonly conversation: Conversation;
  readonly servers: Readonly<Record<string, McpServerJson>>;
  readonly env: Env;
  readonly abort: AbortController;
  readonly stderr: (text: string) => void;
}

/** Options of the SDK's query(). The servers go through a file: their addresses and headers are secrets, and argv is public. */
export function queryOptions(facts: QueryFacts): Record<string, unknown> {
  const { invocation, config, conversation, servers, env, home } = facts;
  const prompt = invocation.agent_blueprint?.system_prompt ?? "";
  const mcpFile = writeServers(home.dir, servers, env);
  return {
    abortController: facts.abort,
    cwd: process.cwd(),
    env: agentEnv(facts),
    stderr: facts.stderr,
    permissionMode: config.permissionMode,
    ...(config.permissionMode === "bypassPermissions" && { allowDangerouslySkipPermissions: true }),
    settingSources: config.settingSources,
    allowedTools: [...config.allowedTools, ...Object.keys(servers).map((name) => `mcp__${name}`)],
    disallowedTools: config.disallowedTools,
    additionalDirectories: config.addDirs,
    strictMcpConfig: true,
    systemPrompt: { type: "preset", preset: "claude_code", ...(prompt !== "" && { append: prompt }) },
    ...(config.model !== undefined && { model: config.model }),
    ...(config.maxTurns !== undefined && { maxTurns: config.maxTurns }),
    ...(config.maxBudgetUsd !== undefined && { maxBudgetUsd: config.maxBudgetUsd }),
    ...(config.outputSchema !== undefined && { outputFormat: { type: "json_schema", schema: config.outputSchema } }),
    ...(config.agents !== undefined && { agents: config.agents }),
    ...(config.program !== undefined && { pathToClaudeCodeExecutable: config.program }),
    ...(conversation.resume === undefined
      ? { sessionId: conversation.id }
      : { resume: conversation.resume, ...(conversation.fork && { forkSession: true, sessionId: conversation.id }) }),
    extraArgs: { "mcp-config": mcpFile },
  };
}

/** The variables of the agent: ours, a configuration directory of the session, and bounded retries. */
function agentEnv({ env, home, entry, config }: QueryFacts): Env {
  return {
    ...env,
    ...entry.start.env,
    ...home.env,
    ...(entry.limits.retriesEnv !== undefined && { [entry.limits.retriesEnv]: String(config.maxRetries) }),
  };
}

function writeServers(home: string, servers: Readonly<Record<string, McpServerJson>>, env: Env): string {
  const orchestrator = orchestratorName(servers, env);
  // The agent hides tools behind a search; those that start sessions must be seen.
  const mcpServers = Object.fromEntries(
    Object.entries(servers).map(([name, server]) => [
      name,
      name === orchestrator ? { ...server, alwaysLoad: true } : server,
    ]),
  );
  const file = join(home, "mcp-servers.json");
  writePrivate(file, JSON.stringify({ mcpServers }));
  return file;
}
