import { connect } from "node:net";
import type { McpServerJson } from "../../../lib/invocation.ts";
import { AgentError } from "./agent-error.ts";

/** Time for a server to take a connection. */
const PROBE_MS = 10_000;

const PROXIES = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"];

/**
 * Sees whether the servers that have an address take a connection, because many agents go on without a server that is down. What
 * they are asked is between them and the agent. Those beyond a proxy cannot be seen from here and are left to the agent.
 * @throws AgentError MCP_SERVER_FAILED with the names of those that do not.
 */
export async function probeServers(
  servers: Readonly<Record<string, McpServerJson>>,
  env: Readonly<Record<string, string | undefined>> = process.env,
): Promise<void> {
  const hasProxy = PROXIES.some((name) => env[name]);
  const probes = Object.entries(servers).map(async ([name, server]) => {
    if (server.type === "stdio") return [];
    const problem = await problemOf(server.url, hasProxy);
    return problem === undefined ? [] : [`${name} (${problem})`];
  });
  const failed = (await Promise.all(probes)).flat();
  if (failed.length > 0) {
    throw new AgentError("MCP_SERVER_FAILED", `MCP servers of the run do not answer: ${failed.join(", ")}`);
  }
}

function problemOf(text: string, hasProxy: boolean): Promise<string | undefined> {
  const url = URL.parse(text);
  if (url === null) return Promise.resolve("its url is none");
  // An IPv6 address stands in brackets in a URL, and without them everywhere else.
  const host = url.hostname.replace(/^\[(.*)\]$/, "$1");
  if (hasProxy && !isLoopback(host)) return Promise.resolve(undefined);
  const port = Number(url.port) || (url.protocol === "https:" ? 443 : 80);
  return new Promise((resolve) => {
    const socket = connect({ host, port, timeout: PROBE_MS });
    const end = (problem: string | undefined) => {
      socket.destroy();
      resolve(problem);
    };
    socket.once("connect", () => end(undefined));
    socket.once("timeout", () => end(`no connection to ${host}:${port} within ${PROBE_MS / 1000} s`));
    socket.once("error", (error: NodeJS.ErrnoException) => end(error.message || (error.code ?? "no connection")));
  });
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || host.startsWith("127.");
}
