import { once } from "node:events";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, expect, it } from "vitest";
import { probeServers } from "../../../../executors/lib/agent/mcp-probe.ts";

const server = createServer((socket) => socket.destroy());
let url: string;
beforeEach(async () => {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp`;
});
afterEach(() => new Promise((resolve) => server.close(resolve)));

const http = (address: string) => ({ type: "http" as const, url: address, headers: {} });
const stdio = { type: "stdio" as const, command: "/nowhere", args: [], env: {} };

it("is silent about servers that take a connection, and about programs", async () => {
  await probeServers({ a: http(url), b: stdio }, {});
});

it("names every server that does not, with the reason", async () => {
  // Port 9 is one that fetch refuses to try.
  await expect(
    probeServers({ a: http(url), b: http("http://127.0.0.1:9/"), c: http("nonsense") }, {}),
  ).rejects.toMatchObject({
    reason: "MCP_SERVER_FAILED",
    message: "MCP servers of the run do not answer: b (connect ECONNREFUSED 127.0.0.1:9), c (its url is none)",
  });
});

it("leaves servers beyond a proxy to the agent, but not those of this machine", async () => {
  const env = { https_proxy: "http://proxy:3128" };
  await probeServers({ far: http("https://mcp.invalid/") }, env);
  await expect(probeServers({ near: http("http://127.0.0.1:9/") }, env)).rejects.toThrow("near (connect ECONNREFUSED");
  await expect(probeServers({ far: http("http://mcp.invalid/") }, {})).rejects.toThrow(/far \(getaddrinfo /);
});
