import { homedir } from "node:os";
import { setTimeout as delay } from "node:timers/promises";
import type { JsonObject } from "@bufbuild/protobuf";
import { AgentError } from "../lib/agent/agent-error.ts";
import { mcpServersOf, orchestratorName } from "../lib/agent/mcp-servers.ts";
import { probeServers } from "../lib/agent/mcp-probe.ts";
import { runAgent } from "../lib/agent/run-agent.ts";
import { sessionHome } from "../lib/agent/session-home.ts";
import { emit } from "../lib/emit.ts";
import type { ExecutorInvocation } from "../lib/invocation.ts";
import { versionProblem } from "../lib/roster/agent-version.ts";
import { findProgram, installCommand } from "../lib/roster/find-program.ts";
import { loadEntry, rosterDirs } from "../lib/roster/load-roster.ts";
import { loginProblem } from "../lib/roster/login.ts";
import { prepareHome } from "../lib/roster/private-home.ts";
import { PROTOCOL_VERSION, abilitiesOf, acpServers, instructions, transportsOf } from "./abilities.ts";
import type { Abilities, AcpServer } from "./abilities.ts";
import { acpCommand } from "./command.ts";
import { acpConfig } from "./config.ts";
import type { AcpConfig } from "./config.ts";
import { AgentConnection } from "./connection.ts";
import { directoryOf, readNotes, writeNotes } from "./notes.ts";
import type { Notes } from "./notes.ts";
import { decideBy } from "./permissions.ts";
import type { Run } from "./run.ts";
import { configure, openConversation } from "./session.ts";
import { Turn } from "./turn.ts";
import { NOTHING_USED } from "./turn-usage.ts";

const NAME = "acp";

/** Time for the agent to answer a cancelled prompt, and then again to end: a runner waits 10 s before it kills. */
const CANCEL_MS = 2000;

/** Time for the agent to end by itself when it is done: the slowest needs 3 s. */
const END_MS = 6000;

/** Any agent of the roster that speaks the Agent Client Protocol. Returns its exit code. */
export function main(): Promise<number> {
  return runAgent(NAME, drive);
}

async function drive(invocation: ExecutorInvocation): Promise<void> {
  const stop = stopSignal();
  const config = acpConfig(invocation.executor_config);
  const entry = loadEntry(config.agent, rosterDirs(process.env));
  const env = { ...process.env, ...config.env };
  const found = findProgram(entry, config, env, "acp");
  const noLogin = loginProblem(entry, env, homedir());
  if (noLogin !== undefined) throw noLogin;
  const sessionDir = sessionHome(invocation.session_id, env);
  const home = prepareHome(entry, sessionDir, homedir(), env);
  const notes = notesOf(invocation, sessionDir);
  const cwd = directoryOf(notes, process.cwd());
  const command = acpCommand({ entry, config, found, env, homeEnv: home.env, cwd });
  const servers = mcpServersOf(invocation, env);
  await probeServers(servers);
  const usedBefore = notes?.used ?? NOTHING_USED;
  const turn = new Turn({
    entry,
    decide: decideBy(config.permissions),
    usedBefore,
    onBegun: () => changeNotes(sessionDir, { begun: true }),
  });
  await emit.status(`${entry.label} starts`);
  const agent = await AgentConnection.start(entry.label, command, turn);
  try {
    const run = { invocation, config, entry, env, servers, notes, cwd, sessionDir };
    const answer = await unlessStopped(stop, take({ ...run, agent, turn, stop }));
    const final = await turn.end(answer);
    await agent.close(END_MS);
    await turn.sayUsage();
    changeNotes(sessionDir, { used: { ...usedBefore, ...turn.used } });
    if (!final.ok) throw new AgentError(final.reason, final.message);
    await emit.result(final.text);
  } finally {
    await agent.close(CANCEL_MS);
  }
}

/** Has the agent do the prompt. Returns its answer to it. */
async function take(run: Run): Promise<JsonObject> {
  const { agent, turn, entry, env, config, stop } = run;
  const abilities = abilitiesOf(
    await agent.request("initialize", "initialize", {
      protocolVersion: PROTOCOL_VERSION,
      clientCapabilities: { fs: { readTextFile: false, writeTextFile: false }, terminal: false },
      clientInfo: { name: "agent-runner", version: "1" },
    }),
    entry.label,
  );
  const tooOld =
    abilities.version === undefined ? undefined : versionProblem(entry, abilities.version, installCommand(entry, env));
  if (tooOld !== undefined) throw tooOld;
  const systemPrompt = run.invocation.agent_blueprint?.system_prompt ?? "";
  const session = {
    cwd: run.cwd,
    mcpServers: (await usableServers(run, abilities)) as unknown as JsonObject[],
    ...extraDirectories(config, abilities, entry.label),
    ...instructions(systemPrompt, true, abilities).session,
  };
  const { id, opened, isNew } = await openConversation(run, abilities, session);
  if (stop.aborted) throw stoppedError();
  await configure(run, id, opened);
  const { before } = instructions(systemPrompt, isNew, abilities);
  const prompt = [...before, { type: "text", text: run.invocation.prompt }];
  turn.open();
  const answer = agent.request("prompt", "session/prompt", { sessionId: id, prompt });
  return cancelWhenStopped(run, id, answer);
}

/** Asks for the end of the turn, and waits a little for it: an agent may have something to put down. */
async function cancelWhenStopped({ agent, turn, stop }: Run, sessionId: string, answer: Promise<JsonObject>) {
  const cancel = async () => {
    turn.stop();
    await agent.notify("session/cancel", { sessionId });
  };
  const onStop = () => void cancel();
  stop.addEventListener("abort", onStop, { once: true });
  if (stop.aborted) onStop();
  try {
    return await answer;
  } finally {
    stop.removeEventListener("abort", onStop);
  }
}

/** What the work comes to, or the stop: then it has CANCEL_MS to end, whatever it answers. */
async function unlessStopped<T>(stop: AbortSignal, work: Promise<T>): Promise<T> {
  const stopped = new Promise<"stopped">((resolve) => {
    if (stop.aborted) resolve("stopped");
    stop.addEventListener("abort", () => resolve("stopped"), { once: true });
  });
  const done = work.then(
    (value) => ({ value }),
    (error: unknown) => ({ error }),
  );
  const first = await Promise.race([done, stopped]);
  if (first === "stopped" || stop.aborted) {
    const late = new AbortController();
    await Promise.race([done, delay(CANCEL_MS, undefined, { signal: late.signal }).catch(() => undefined)]);
    late.abort();
    throw stoppedError();
  }
  if ("error" in first) throw first.error;
  return first.value;
}

function stoppedError(): AgentError {
  return new AgentError("AGENT_FAILED", "stopped before its end");
}

/** The servers as the agent takes them. @throws AgentError MCP_SERVER_FAILED for one of the blueprint that it cannot use. */
async function usableServers({ invocation, servers, env, entry }: Run, abilities: Abilities): Promise<AcpServer[]> {
  const { usable, unusable } = acpServers(servers, transportsOf(entry.mcp.transport, abilities));
  const orchestrator = orchestratorName(servers, env);
  const wanted = unusable.filter((name) => name !== orchestrator || Object.hasOwn(blueprintServers(invocation), name));
  if (wanted.length > 0) {
    const what = `${wanted.join(", ")}: ${entry.label} has no MCP over HTTP`;
    throw new AgentError("MCP_SERVER_FAILED", `MCP servers of the run cannot be used, ${what}; choose another agent`);
  }
  if (unusable.length > 0) await emit.status(`${entry.label} has no MCP over HTTP: it can start no sessions`);
  return usable;
}

function blueprintServers({ agent_blueprint }: ExecutorInvocation): object {
  return agent_blueprint?.mcp_servers ?? {};
}

function extraDirectories({ addDirs }: AcpConfig, { additionalDirectories }: Abilities, label: string): JsonObject {
  if (addDirs.length === 0) return {};
  if (additionalDirectories) return { additionalDirectories: [...addDirs] };
  throw new AgentError("BAD_CONFIG", `"add_dirs" of config cannot be used: ${label} takes no further directories`);
}

/** Aborts when the run is to stop. Nothing else ends this process then: the agent is asked first. */
function stopSignal(): AbortSignal {
  const abort = new AbortController();
  const stop = () => abort.abort();
  process.on("SIGTERM", stop).on("SIGINT", stop);
  return abort.signal;
}

/** Those of the conversation that is to be resumed. */
function notesOf({ mode, executor_session_id }: ExecutorInvocation, sessionDir: string): Notes | undefined {
  if (mode === "start" || executor_session_id === undefined) return undefined;
  const notes = readNotes(sessionDir);
  return notes?.conversation === executor_session_id ? notes : undefined;
}

function changeNotes(sessionDir: string, change: Partial<Notes>): void {
  const notes = readNotes(sessionDir);
  if (notes !== undefined) writeNotes(sessionDir, { ...notes, ...change });
}
