import type { JsonObject } from "@bufbuild/protobuf";
import type { McpServerJson } from "../../lib/invocation.ts";
import { AgentError } from "../lib/agent/agent-error.ts";
import { objectOf, textOf } from "../lib/agent/json-of.ts";
import type { AgentMcp } from "../lib/roster/roster-entry.ts";

/** The version of the protocol that is spoken. */
export const PROTOCOL_VERSION = 1;

/** What the agent says of itself in its answer to `initialize`. */
export interface Abilities {
  /** Takes up a conversation and sends its history first. */
  readonly load: boolean;
  /** Takes up a conversation, without its history. */
  readonly resume: boolean;
  readonly mcpHttp: boolean;
  readonly mcpSse: boolean;
  /** Takes a system prompt of a session (not yet a part of the protocol). */
  readonly systemPrompt: boolean;
  readonly additionalDirectories: boolean;
  /** Of the program; undefined when it does not say. */
  readonly version: string | undefined;
}

/** @throws AgentError AGENT_VERSION for another version of the protocol. */
export function abilitiesOf(answer: JsonObject, label: string): Abilities {
  const spoken = answer["protocolVersion"];
  if (spoken !== PROTOCOL_VERSION) {
    const found = JSON.stringify(spoken)?.slice(0, 40) ?? "none";
    throw new AgentError(
      "AGENT_VERSION",
      `${label} speaks version ${found} of the Agent Client Protocol, not ${PROTOCOL_VERSION}; install the version of the roster`,
    );
  }
  const all = objectOf(answer["agentCapabilities"]);
  const session = objectOf(all["sessionCapabilities"]);
  const mcp = objectOf(all["mcpCapabilities"]);
  return {
    load: all["loadSession"] === true,
    resume: isOffered(session["resume"]),
    mcpHttp: mcp["http"] === true,
    mcpSse: mcp["sse"] === true,
    systemPrompt: isOffered(session["systemPrompt"]),
    additionalDirectories: isOffered(session["additionalDirectories"]),
    version: textOf(objectOf(answer["agentInfo"])["version"]) || undefined,
  };
}

/** An object, be it empty, says that it can. */
function isOffered(capability: unknown): boolean {
  return typeof capability === "object" && capability !== null;
}

/** How a conversation is taken up: the way of the roster where the agent offers it, otherwise the other one. */
export function resumeMethod(
  { load, resume }: Pick<Abilities, "load" | "resume">,
  better: "load" | "resume" | undefined,
): "session/load" | "session/resume" | undefined {
  if (resume && (better !== "load" || !load)) return "session/resume";
  return load ? "session/load" : undefined;
}

/** What MCP transports it has: one of which the roster knows that it has a client need not say so itself, and some do not. */
export function transportsOf(
  transport: AgentMcp["transport"],
  { mcpHttp, mcpSse }: Pick<Abilities, "mcpHttp" | "mcpSse">,
): Pick<Abilities, "mcpHttp" | "mcpSse"> {
  if (transport === "none") return { mcpHttp: false, mcpSse: false };
  return { mcpHttp: mcpHttp || transport !== "acp", mcpSse };
}

/** A server as the protocol has it. */
export type AcpServer =
  | { type: "http" | "sse"; name: string; url: string; headers: { name: string; value: string }[] }
  | { name: string; command: string; args: string[]; env: { name: string; value: string }[] };

/** The servers that the agent can use, and the names of those that it cannot. */
export function acpServers(
  servers: Readonly<Record<string, McpServerJson>>,
  { mcpHttp, mcpSse }: Pick<Abilities, "mcpHttp" | "mcpSse">,
): { usable: AcpServer[]; unusable: string[] } {
  const usable: AcpServer[] = [];
  const unusable: string[] = [];
  for (const [name, server] of Object.entries(servers)) {
    if (server.type === "stdio") {
      usable.push({ name, command: server.command, args: server.args, env: pairs(server.env) });
    } else if (server.type === "http" ? mcpHttp : mcpSse) {
      usable.push({ type: server.type, name, url: server.url, headers: pairs(server.headers) });
    } else {
      unusable.push(name);
    }
  }
  return { usable, unusable };
}

function pairs(map: Readonly<Record<string, string>>): { name: string; value: string }[] {
  return Object.entries(map).map(([name, value]) => ({ name, value }));
}

/** What is sent with the prompt and with the opening of the session for the blueprint's system prompt. */
export function instructions(
  systemPrompt: string,
  isFirst: boolean,
  { systemPrompt: takesOne }: Pick<Abilities, "systemPrompt">,
): { session: JsonObject; before: { type: "text"; text: string }[] } {
  if (systemPrompt === "") return { session: {}, before: [] };
  if (takesOne) {
    return {
      session: { systemPrompt: { mode: "append", content: [{ type: "text", text: systemPrompt }] } },
      before: [],
    };
  }
  // Later prompts find it in the history of the conversation. Some agents put the blocks of a prompt together as they are.
  return { session: {}, before: isFirst ? [{ type: "text", text: `${systemPrompt}\n\n` }] : [] };
}
