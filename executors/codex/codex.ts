import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import type { JsonObject } from "@bufbuild/protobuf";
import { emit } from "../lib/emit.ts";
import type { ExecutorInvocation } from "../lib/invocation.ts";
import { AgentError } from "../lib/agent/agent-error.ts";
import { AgentProcess } from "../lib/agent/agent-process.ts";
import { probeServers } from "../lib/agent/mcp-probe.ts";
import { mcpServersOf } from "../lib/agent/mcp-servers.ts";
import { runAgent } from "../lib/agent/run-agent.ts";
import { sessionHome } from "../lib/agent/session-home.ts";
import { SessionNotes } from "../lib/agent/session-notes.ts";
import { findProgram, installCommand } from "../lib/roster/find-program.ts";
import { loadEntry, rosterDirs } from "../lib/roster/load-roster.ts";
import { loginProblem } from "../lib/roster/login.ts";
import { prepareHome, writePrivate } from "../lib/roster/private-home.ts";
import type { RosterEntry } from "../lib/roster/roster-entry.ts";
import { codex } from "../agent-cli/formats/codex.ts";
import { outcomeOf } from "../agent-cli/outcome.ts";
import { followTurn } from "../agent-cli/turn.ts";
import { codexConfig } from "./config.ts";
import type { CodexConfig } from "./config.ts";
import { configFile } from "./config-file.ts";
import { strictSchema, withoutNulls } from "./strict-schema.ts";

type Env = Readonly<Record<string, string | undefined>>;

/** Codex by `codex exec --json`. Returns its exit code. */
export function main(): Promise<number> {
  return runAgent("codex", drive);
}

async function drive(invocation: ExecutorInvocation): Promise<void> {
  const given = codexConfig(invocation.executor_config);
  const config = { ...given, outputSchema: given.outputSchema ?? (await strictOne(invocation.agent_blueprint)) };
  const env = { ...process.env, ...config.env };
  const entry = loadEntry("codex", rosterDirs(env));
  const schema = config.outputSchema === undefined ? undefined : strictSchema(config.outputSchema);
  checkPrompt(entry, invocation.prompt);
  const found = findProgram(entry, config.program === undefined ? {} : { program: config.program }, env);
  const noLogin = loginProblem(entry, env, homedir());
  if (noLogin !== undefined) throw noLogin;
  const folder = sessionHome(invocation.session_id, env);
  const notes = new SessionNotes(folder);
  const resumed = resumedId(invocation);
  if (resumed !== undefined) await emit.session(resumed);
  const start = await prepare({ invocation, config, entry, folder, env, schema });
  const agent = await AgentProcess.start({
    program: found.program,
    args: [
      ...found.args,
      ...entry.start.args,
      ...start.args,
      ...(resumed === undefined ? ["-"] : ["resume", resumed, "-"]),
    ],
    env: start.env,
    cwd: process.cwd(),
    installHint: `install it: ${installCommand(entry, env)}`,
  });
  agent.stdin.end(invocation.prompt);
  const turn = await followTurn(agent, {
    ...{ format: codex, rule: entry.output.usage, serverNames: start.serverNames, sessionId: resumed },
    before: resumed === undefined ? {} : (notes.read()?.usage ?? {}),
    remember: ({ sessionId, answered, conversation }) =>
      notes.write({ cwd: process.cwd(), vendorSessionId: sessionId, begun: answered, usage: conversation }),
  });
  const hasSchema = config.outputSchema !== undefined;
  const { text, data } = outcomeOf(turn, { label: entry.label, isResumed: resumed !== undefined, hasSchema });
  if (data === undefined || config.outputSchema === undefined) await emit.result(text);
  else await emit.result(text, withoutNulls(data, config.outputSchema));
}

/** Its thread exists as soon as it has named it; a first run that was cut short before has none, and begins now. */
function resumedId({ mode, executor_session_id: known }: ExecutorInvocation): string | undefined {
  if (mode === "start" || known === undefined) return undefined;
  if (!known.startsWith("-")) return known;
  throw new AgentError("UNKNOWN_SESSION", `"${known}" is no id of a conversation: start a new session`);
}

interface RunFacts {
  readonly invocation: ExecutorInvocation;
  readonly config: CodexConfig;
  readonly entry: RosterEntry;
  /** Private folder of the session. */
  readonly folder: string;
  readonly env: Env;
  readonly schema: JsonObject | undefined;
}

/** Writes what the agent reads into its private folder, and says how it is started. */
async function prepare({ invocation, config, entry, folder, env, schema }: RunFacts) {
  const home = prepareHome(entry, folder, homedir(), env);
  const servers = mcpServersOf(invocation, env);
  const key = entry.endpoint.keys.find((name) => env[name]);
  const url = env[entry.endpoint.url ?? ""];
  const file = configFile({
    ...{ config, servers },
    systemPrompt: invocation.agent_blueprint?.system_prompt ?? "",
    endpoint: url && key !== undefined ? { url, keyVariable: key } : undefined,
  });
  writePrivate(join(home.dir, "config.toml"), file);
  await probeServers(servers);
  const schemaFile = join(home.dir, "output-schema.json");
  if (schema !== undefined) writePrivate(schemaFile, JSON.stringify(schema));
  return {
    serverNames: Object.keys(servers),
    args: [
      ...(config.permissionMode === "full-access" ? entry.approval.args : []),
      ...(schema === undefined ? [] : [entry.output.schemaFlag ?? "--output-schema", schemaFile]),
    ],
    env: { ...env, ...entry.start.env, ...entry.approval.env, ...keyOfExec(env, home.dir), ...home.env },
  };
}

/** Without a login its headless mode reads the key of its own provider from a variable of its own. */
function keyOfExec(env: Env, home: string): Env {
  const key = env["OPENAI_API_KEY"];
  return key && !env["CODEX_API_KEY"] && !existsSync(join(home, "auth.json")) ? { CODEX_API_KEY: key } : {};
}

function checkPrompt({ label, start }: RosterEntry, prompt: string): void {
  const max = start.promptMaxBytes;
  if (max === undefined || prompt.length <= max) return;
  // In characters, of which some are two units of a string.
  const characters = Array.from(prompt).length;
  if (characters <= max) return;
  throw new AgentError(
    "LIMIT_REACHED",
    `the prompt has ${characters} characters, and ${label} takes at most ${max}; put a part of it into a file`,
  );
}

/** A blueprint's schema is written for every agent; one that cannot be made strict is held against the result at its end alone. */
async function strictOne(blueprint: ExecutorInvocation["agent_blueprint"]): Promise<JsonObject | undefined> {
  const schema = blueprint?.output_schema;
  if (schema === undefined) return undefined;
  try {
    strictSchema(schema);
    return schema;
  } catch (error) {
    if (!(error instanceof AgentError)) throw error;
    await emit.status(`the agent is not told the blueprint's schema: ${error.message}`);
    return undefined;
  }
}
