import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import type { JsonObject } from "@bufbuild/protobuf";
import type { McpServerJson } from "../../lib/invocation.ts";
import { AgentError } from "../lib/agent/agent-error.ts";
import { tomlTable } from "../lib/agent/toml.ts";
import { writePrivate } from "../lib/roster/private-home.ts";
import type { RosterEntry } from "../lib/roster/roster-entry.ts";
import type { Format } from "./formats/format.ts";
import { objectOf } from "../lib/agent/json-of.ts";

type Servers = Readonly<Record<string, McpServerJson>>;

/** What hands the run's servers to the agent, besides a file: their addresses and headers are secrets, and argv is public. */
export interface ServersPart {
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

export interface ServersFacts {
  readonly entry: RosterEntry;
  readonly format: Format;
  readonly servers: Servers;
  /** Name of the server that starts sessions. */
  readonly orchestrator: string | undefined;
  /** Private folder of the agent. */
  readonly home: string;
  /** Variables that the agent gets. */
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** Line after which the servers stand in a file of TOML, to be found again by the next run. */
const TOML_MARK = "# MCP servers of the run";

/**
 * Writes the servers down where the agent reads them.
 * @throws AgentError BAD_CONFIG when it cannot have them.
 */
export function handOverServers(facts: ServersFacts): ServersPart {
  const { entry, servers, home, env } = facts;
  const { mcp } = entry;
  const names = Object.keys(servers);
  switch (mcp.transport) {
    case "none":
      return refuseOthers(facts);
    case "flag-file": {
      if (names.length === 0) return { args: [], env: {} };
      const file = join(home, "mcp-servers.json");
      writePrivate(file, JSON.stringify(documentOf(facts)));
      return { args: [given(entry, mcp.flag, "mcp.flag"), `${mcp.prefix ?? ""}${file}`], env: {} };
    }
    case "home-file":
      writeInto(join(home, given(entry, mcp.file, "mcp.file")), facts);
      return { args: [], env: {} };
    case "env-json": {
      const variable = given(entry, mcp.variable, "mcp.variable");
      const before = objectOf(JSON.parse(env[variable] || "{}"));
      return { args: [], env: { [variable]: JSON.stringify({ ...before, ...documentOf(facts) }) } };
    }
    case "config-flags":
    case "acp": {
      const how = `its servers cannot be handed over without showing their addresses to everybody on this machine`;
      throw new AgentError(
        "BAD_CONFIG",
        `agent ${entry.name} is not for agent-cli: ${how}; use type ${entry.executor}`,
      );
    }
    default:
      return mcp.transport satisfies never;
  }
}

/** The servers in the agent's own words. */
export function documentOf({ entry, format, servers, orchestrator }: Omit<ServersFacts, "home" | "env">): JsonObject {
  const { alwaysLoad, urlKey } = entry.mcp;
  const each = Object.entries(servers).map(([name, server]): [string, JsonObject] => {
    const own = format.server?.(server) ?? plainServer(server, urlKey);
    // Tools that are hidden behind a search are not found; those that start sessions must be seen.
    const seen = name === orchestrator && alwaysLoad !== undefined ? { [alwaysLoad]: true } : {};
    return [name, { ...own, ...seen }];
  });
  return { [format.serversKey ?? "mcpServers"]: Object.fromEntries(each) };
}

function plainServer(server: McpServerJson, urlKey = "url"): JsonObject {
  if (server.type === "stdio") return { command: server.command, args: server.args, env: server.env };
  return { type: server.type, [urlKey]: server.url, headers: server.headers };
}

function writeInto(path: string, facts: ServersFacts): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const before = existsSync(path) ? readFileSync(path, "utf8") : "";
  const document = documentOf(facts);
  if (!path.endsWith(".toml")) {
    writePrivate(path, JSON.stringify({ ...objectOf(JSON.parse(before || "{}")), ...document }, null, 2));
    return;
  }
  const kept = before.split(TOML_MARK)[0] ?? "";
  const [[key, servers] = ["", {}]] = Object.entries(document);
  const tables = Object.entries(objectOf(servers)).map(([name, server]) =>
    tomlTable(`[[${key}]]`, { name, ...objectOf(server) }),
  );
  writePrivate(path, `${kept.trimEnd()}\n\n${TOML_MARK}\n${tables.join("")}`);
}

/** Without a client it has no children, which the caller says; a server of the blueprint is what the work needs. */
function refuseOthers({ entry, servers, orchestrator }: ServersFacts): ServersPart {
  const others = Object.keys(servers).filter((name) => name !== orchestrator);
  if (others.length === 0) return { args: [], env: {} };
  throw new AgentError(
    "BAD_CONFIG",
    `${entry.label} has no MCP client, and the blueprint has MCP servers (${others.join(", ")}); use another agent, or take them out`,
  );
}

function given(entry: RosterEntry, value: string | undefined, key: string): string {
  if (value !== undefined) return value;
  throw new AgentError("BAD_CONFIG", `agent ${entry.name} of the roster has no ${key}, which its mcp.transport needs`);
}
