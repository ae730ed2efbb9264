import { setTimeout as delay } from "node:timers/promises";
import type { JsonObject } from "@bufbuild/protobuf";
import { AgentError } from "../lib/agent/agent-error.ts";
import { textOf } from "../lib/agent/json-of.ts";
import { emit } from "../lib/emit.ts";
import { resumeMethod } from "./abilities.ts";
import type { Abilities } from "./abilities.ts";
import { writeNotes } from "./notes.ts";
import type { Run } from "./run.ts";
import { modeChange, optionChange } from "./settings.ts";
import type { Change } from "./settings.ts";
import { NOTHING_USED } from "./turn-usage.ts";

/** Some agents send the rest of a history after they have said that the conversation is loaded; it ends when they are quiet. */
const QUIET_MS = 250;
const QUIET_MAX_MS = 5000;

/** A conversation that the agent is ready to continue. */
export interface Opened {
  readonly id: string;
  /** The agent's answer: its modes and options. */
  readonly opened: JsonObject;
  /** It has no history. */
  readonly isNew: boolean;
}

/**
 * Begins a conversation, or takes up that of an earlier run, and says its id at once. One of which the agent knows nothing,
 * because the first run ended before it had begun, begins now.
 * @throws AgentError UNKNOWN_SESSION
 */
export async function openConversation(run: Run, abilities: Abilities, session: JsonObject): Promise<Opened> {
  const { mode, executor_session_id: known } = run.invocation;
  if (mode === "start" || known === undefined) return begin(run, session);
  await emit.session(known);
  try {
    return await resume(run, abilities, session, known);
  } catch (error) {
    const isUnknown = error instanceof AgentError && error.reason === "UNKNOWN_SESSION";
    if (!isUnknown || run.notes === undefined || run.notes.begun) throw error;
    await emit.status("the conversation had not begun when its first run ended; it begins now");
    return begin(run, session);
  }
}

async function begin({ agent, entry, cwd, sessionDir }: Run, session: JsonObject): Promise<Opened> {
  const opened = await agent.request("begin", "session/new", session);
  const id = textOf(opened["sessionId"]);
  if (id === "") throw new AgentError("AGENT_FAILED", `${entry.label} began a session and did not say its id`);
  writeNotes(sessionDir, { conversation: id, cwd, begun: false, used: NOTHING_USED });
  await emit.session(id);
  return { id, opened, isNew: true };
}

async function resume(run: Run, abilities: Abilities, session: JsonObject, id: string): Promise<Opened> {
  const { agent, entry, turn } = run;
  const method = resumeMethod(abilities, entry.session.acp);
  if (method === undefined) {
    const message = `${entry.label} cannot resume a conversation over the Agent Client Protocol; start a new session`;
    throw new AgentError("AGENT_VERSION", message);
  }
  const opened = await agent.request("resume", method, { ...session, sessionId: id });
  if (method === "session/load") {
    const begun = performance.now();
    while (turn.quietMs < QUIET_MS && performance.now() - begun < QUIET_MAX_MS) await delay(QUIET_MS / 5);
  }
  return { id, opened, isNew: false };
}

/** Sets the mode and the model that the profile or the roster wants. @throws AgentError BAD_CONFIG for one that is not offered. */
export async function configure(run: Run, sessionId: string, opened: JsonObject): Promise<void> {
  const { config, entry, agent } = run;
  const change = ({ method, params }: Extract<Change, { type: "request" }>) =>
    agent.request("configure", method, { ...params, sessionId });
  const mode = config.permissionMode ?? entry.approval.mode;
  if (mode !== undefined) {
    const wanted = modeChange(opened, mode);
    if (wanted.type === "request") await change(wanted);
    if (wanted.type === "not-offered") {
      if (config.permissionMode !== undefined) throw notOffered("permission_mode", mode, wanted.offered, entry.label);
      await emit.status(`${entry.label} has no mode "${mode}" and keeps its own; it offers: ${listed(wanted.offered)}`);
    }
  }
  // Where a variable names the model it was chosen at the start.
  if (config.model === undefined || entry.endpoint.model !== undefined) return;
  const wanted = optionChange(opened, "model", config.model);
  if (wanted.type === "not-offered") throw notOffered("model", config.model, wanted.offered, entry.label);
  if (wanted.type === "request") await change(wanted);
}

function notOffered(key: string, value: string, offered: readonly string[], label: string): AgentError {
  return new AgentError(
    "BAD_CONFIG",
    `"${key}" of config must be one that ${label} offers (${listed(offered)}), not "${value}"`,
  );
}

function listed(offered: readonly string[]): string {
  return offered.length === 0 ? "none" : offered.join(", ").slice(0, 500);
}
