import { randomUUID } from "node:crypto";
import { homedir } from "node:os";
import { emit } from "../lib/emit.ts";
import type { ExecutorInvocation } from "../lib/invocation.ts";
import { AgentError } from "../lib/agent/agent-error.ts";
import { resultOf } from "../lib/agent/final.ts";
import type { Final } from "../lib/agent/final.ts";
import { mcpServersOf } from "../lib/agent/mcp-servers.ts";
import { probeServers } from "../lib/agent/mcp-probe.ts";
import { runAgent } from "../lib/agent/run-agent.ts";
import { sessionHome } from "../lib/agent/session-home.ts";
import { SessionNotes } from "../lib/agent/session-notes.ts";
import { installCommand, installFolder } from "../lib/roster/find-program.ts";
import { loadEntry, rosterDirs } from "../lib/roster/load-roster.ts";
import { loginProblem } from "../lib/roster/login.ts";
import { prepareHome } from "../lib/roster/private-home.ts";
import { claudeConfig } from "./config.ts";
import { conversationOf } from "./conversation.ts";
import { queryOptions } from "./options.ts";
import { loadSdk, sdkPlaces } from "./sdk.ts";
import { Transcript } from "./transcript.ts";

const NAME = "claude-code";

/** Claude Code by its agent SDK. Returns its exit code. */
export function main(): Promise<number> {
  return runAgent(NAME, drive);
}

async function drive(invocation: ExecutorInvocation): Promise<void> {
  const { env } = process;
  const given = claudeConfig(invocation.executor_config);
  const config = { ...given, outputSchema: given.outputSchema ?? invocation.agent_blueprint?.output_schema };
  const entry = loadEntry("claude", rosterDirs(env));
  const { sdk } = await loadSdk(sdkPlaces(installFolder(entry, env)), installCommand(entry, env));
  const noLogin = loginProblem(entry, env, homedir());
  if (noLogin !== undefined) throw noLogin;
  const folder = sessionHome(invocation.session_id, env);
  const home = prepareHome(entry, folder, homedir(), env);
  const conversation = conversationOf(invocation, home.dir, config.forkOnResume, randomUUID);
  // Before the agent starts: a run that is killed in its first second can be resumed.
  await emit.session(conversation.id);
  const servers = mcpServersOf(invocation, env);
  await probeServers(servers);
  const abort = new AbortController();
  const stop = () => abort.abort();
  process.on("SIGTERM", stop).on("SIGINT", stop);
  const stderr = new Tail();
  const options = queryOptions({
    ...{ invocation, config, entry, home, conversation, servers, env, abort },
    stderr: (text) => stderr.push(text),
  });
  const notes = new SessionNotes(folder);
  // A conversation that is continued reports the money of all its runs.
  const costBeforeUsd = conversation.resume === undefined ? 0 : (notes.read()?.usage.costUsd ?? 0);
  const messages = sdk.query({ prompt: invocation.prompt, options });
  const turn = await follow(messages, new Transcript({ costBeforeUsd }), conversation.id);
  const usage = turn.costUsd === undefined ? {} : { costUsd: turn.costUsd };
  notes.write({ cwd: process.cwd(), vendorSessionId: conversation.id, begun: turn.answered, usage });
  const stopped = abort.signal.aborted;
  if (stopped) throw new AgentError("AGENT_FAILED", "stopped before its end");
  const stderrTail = turn.error ?? stderr.text;
  const exit = { code: turn.error === undefined ? 0 : 1, signal: null, stopped, stderrTail };
  const { text, data } = resultOf(NAME, { ...turn, exit });
  await (data === undefined ? emit.result(text) : emit.result(text, data));
}

interface Turn {
  readonly final: Final | undefined;
  readonly answered: boolean;
  /** What the SDK threw: the agent's process could not be started, or ended without its result. */
  readonly error: string | undefined;
  readonly costUsd: number | undefined;
}

/** Says what the agent does until its turn has ended. A server that does not answer fails the run before money is spent. */
async function follow(messages: AsyncIterable<unknown>, transcript: Transcript, saidId: string): Promise<Turn> {
  let final: Final | undefined;
  let costUsd: number | undefined;
  let answered = false;
  try {
    for await (const message of messages) {
      const reading = transcript.read(message);
      for (const event of reading.said) {
        if (event.type !== "session" || event.executor_session_id !== saidId) await emit.event(event);
      }
      if (reading.failedServers !== undefined && reading.failedServers.length > 0) {
        const names = reading.failedServers.join(", ");
        throw new AgentError("MCP_SERVER_FAILED", `MCP servers of the run do not answer: ${names}`);
      }
      answered ||= reading.answered === true;
      final = reading.final ?? final;
      costUsd = reading.costUsd ?? costUsd;
      if (final !== undefined) break;
    }
  } catch (error) {
    if (error instanceof AgentError) throw error;
    return { final, answered, costUsd, error: error instanceof Error ? error.message : String(error) };
  }
  return { final, answered, costUsd, error: undefined };
}

/** End of what the agent says on stderr, for the message of a run that fails. */
class Tail {
  static readonly #MAX_CHARACTERS = 4096;
  text = "";

  push(text: string): void {
    this.text = (this.text + text).slice(-Tail.#MAX_CHARACTERS);
  }
}
