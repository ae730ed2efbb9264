import { randomUUID } from "node:crypto";
import { statSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { emit } from "../lib/emit.ts";
import type { ExecutorInvocation } from "../lib/invocation.ts";
import { AgentError } from "../lib/agent/agent-error.ts";
import { AgentProcess } from "../lib/agent/agent-process.ts";
import { probeServers } from "../lib/agent/mcp-probe.ts";
import { mcpServersOf, orchestratorName } from "../lib/agent/mcp-servers.ts";
import { runAgent } from "../lib/agent/run-agent.ts";
import { sessionHome } from "../lib/agent/session-home.ts";
import { SessionNotes } from "../lib/agent/session-notes.ts";
import { findProgram, installCommand } from "../lib/roster/find-program.ts";
import { loadEntry, rosterDirs } from "../lib/roster/load-roster.ts";
import { loginProblem } from "../lib/roster/login.ts";
import { prepareHome, writePrivate } from "../lib/roster/private-home.ts";
import type { RosterEntry } from "../lib/roster/roster-entry.ts";
import { commandLineOf } from "./command-line.ts";
import { checkAbilities, cliConfig } from "./config.ts";
import type { CliConfig } from "./config.ts";
import { conversationOf } from "./conversation.ts";
import type { Conversation } from "./conversation.ts";
import { FORMATS } from "./formats/formats.ts";
import { outcomeOf } from "./outcome.ts";
import { hasSessionFiles } from "./session-files.ts";
import { handOverServers } from "./servers.ts";
import { followTurn } from "./turn.ts";

/** An agent of the roster in its own headless mode. Returns its exit code. */
export function main(): Promise<number> {
  return runAgent("agent-cli", drive);
}

async function drive(invocation: ExecutorInvocation): Promise<void> {
  const config = cliConfig(invocation.executor_config);
  const env = { ...process.env, ...config.env };
  const entry = loadEntry(config.agent, rosterDirs(env));
  checkAbilities(config, entry);
  if (entry.start.prompt === "acp") {
    throw new AgentError("BAD_CONFIG", `agent ${entry.name} has no mode of its own that can be used; use type acp`);
  }
  const found = findProgram(entry, config.program === undefined ? {} : { program: config.program }, env);
  const noLogin = loginProblem(entry, env, homedir());
  if (noLogin !== undefined) throw noLogin;
  const folder = sessionHome(invocation.session_id, env);
  const notes = new SessionNotes(folder);
  const before = notes.read();
  const conversation = conversationOf({
    ...{ entry, invocation, notes: before, newId: randomUUID, isDirectory },
    cwd: process.cwd(),
    hasFiles: (id) => hasSessionFiles(join(folder, "home"), id),
  });
  const usageBefore = conversation.isResumed ? (before?.usage ?? {}) : {};
  // Before the agent starts: a run that is killed in its first second can be resumed.
  if (conversation.id !== undefined) {
    if (!conversation.isResumed) {
      notes.write({ cwd: conversation.cwd, vendorSessionId: conversation.id, begun: false, usage: {} });
    }
    await emit.session(conversation.id);
  }
  const start = await prepare({ invocation, config, entry, folder, env, conversation });
  const agent = await AgentProcess.start({
    program: found.program,
    args: [...found.args, ...start.args],
    env: start.env,
    cwd: conversation.cwd,
    installHint: `install it: ${installCommand(entry, env)}`,
  });
  agent.stdin.end(start.stdin);
  const turn = await followTurn(agent, {
    ...{ format: start.format, rule: entry.output.usage, before: usageBefore, serverNames: start.serverNames },
    sessionId: conversation.id,
    remember: ({ sessionId, answered, conversation: usage }) =>
      notes.write({
        cwd: conversation.cwd,
        vendorSessionId: sessionId,
        begun: conversation.isResumed || answered,
        usage,
      }),
  });
  const { label } = entry;
  const { text, data } = outcomeOf(turn, {
    ...{ label, isResumed: conversation.isResumed, hasSchema: config.outputSchema !== undefined },
  });
  await (data === undefined ? emit.result(text) : emit.result(text, data));
}

interface RunFacts {
  readonly invocation: ExecutorInvocation;
  readonly config: CliConfig;
  readonly entry: RosterEntry;
  /** Private folder of the session. */
  readonly folder: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly conversation: Conversation;
}

/** Writes what the agent reads, and says how it is started. */
async function prepare({ invocation, config, entry, folder, env, conversation }: RunFacts) {
  const format = FORMATS[entry.output.format];
  const home = prepareHome(entry, folder, homedir(), env);
  const servers = mcpServersOf(invocation, env);
  const orchestrator = orchestratorName(servers, env);
  if (entry.mcp.transport === "none" && orchestrator !== undefined) {
    await emit.status(`${entry.label} has no MCP client: it cannot start sessions`);
  }
  const ownEnv = { ...env, ...entry.start.env, ...config.env };
  const part = handOverServers({ entry, format, servers, orchestrator, home: home.dir, env: ownEnv });
  if (entry.mcp.transport !== "none") await probeServers(servers);
  const schemaFile = writeSchema(home.dir, config);
  const serverNames = Object.keys(servers);
  const line = commandLineOf({
    ...{ entry, format, config, conversation, env, serverNames, schemaFile, serverArgs: part.args },
    prompt: invocation.prompt,
    systemPrompt: invocation.agent_blueprint?.system_prompt ?? "",
    secrets: [env["AGENT_ORCHESTRATOR_MCP_URL"] ?? "", env["AGENT_ORCHESTRATOR_TOKEN"] ?? ""],
  });
  return {
    ...{ format, serverNames, args: line.args, stdin: line.stdin },
    env: { ...env, ...line.env, ...config.env, ...home.env, ...part.env },
  };
}

function writeSchema(home: string, { outputSchema }: CliConfig): string | undefined {
  if (outputSchema === undefined) return undefined;
  const file = join(home, "output-schema.json");
  writePrivate(file, JSON.stringify(outputSchema));
  return file;
}

function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}
