import { describe, expect, it } from "vitest";
import { routeTo } from "../../../lib/rpc/proxy.ts";

/** What it goes through, or why not. */
function way(url: string, env: Record<string, string>): string {
  const route = routeTo(url, env);
  if (route.type === "proxy") return `${route.variable} ${route.proxy.href}`;
  return route.type === "ignored" ? route.why : "direct";
}

const AGENTS = "https://agents.example.com";

describe("the way to a coordinator", () => {
  it.each([
    [AGENTS, {}, "direct"],
    [AGENTS, { HTTPS_PROXY: "http://p:3128" }, "HTTPS_PROXY http://p:3128/"],
    [AGENTS, { HTTPS_PROXY: "http://large:1", https_proxy: "http://small:1" }, "https_proxy http://small:1/"],
    [AGENTS, { HTTP_PROXY: "http://p:3128" }, "direct"],
    [AGENTS, { HTTPS_PROXY: " ", ALL_PROXY: "p:3128" }, "ALL_PROXY http://p:3128/"],
    ["http://agents.example.com", { HTTP_PROXY: "https://p" }, "HTTP_PROXY https://p/"],
    ["http://agents.example.com", { http_proxy: "p" }, "http_proxy http://p/"],
    [
      AGENTS,
      { ALL_PROXY: "socks5://p:1080" },
      "ALL_PROXY names a socks5 proxy, which is not spoken here, and was ignored",
    ],
    [AGENTS, { HTTPS_PROXY: "http://" }, "HTTPS_PROXY is no URL of a proxy, and was ignored"],
    ["http://localhost:8765", { HTTP_PROXY: "http://p" }, "direct"],
    ["http://127.0.0.1:8765", { ALL_PROXY: "http://p" }, "direct"],
    ["https://[::1]:8765", { HTTPS_PROXY: "http://p" }, "direct"],
  ])("%s with %j", (url, env, expected) => {
    expect(way(url, env as Record<string, string>)).toBe(expected);
  });

  it.each([
    [AGENTS, "*"],
    [AGENTS, "other.org, agents.example.com"],
    [AGENTS, "example.com"],
    [AGENTS, ".EXAMPLE.com"],
    [AGENTS, "*.example.com"],
    [AGENTS, "agents.example.com:443"],
    ["http://10.1.2.3:8765", "10.0.0.0/8"],
    ["http://10.1.2.3:8765", "10.1.2.3:8765"],
    ["http://[fd00::7]:8765", "fd00::/8"],
    ["http://[fd00::7]:8765", "[fd00::7]:8765"],
    ["http://[fd00::7]:8765", "fd00::7"],
  ])("%s is direct with NO_PROXY=%s", (url, list) => {
    expect(way(url, { ALL_PROXY: "http://p", NO_PROXY: list })).toBe("direct");
  });

  it.each([
    [AGENTS, "ample.com"],
    [AGENTS, "agents.example.com:8765"],
    [AGENTS, "10.0.0.0/8"],
    ["http://11.1.2.3", "10.0.0.0/8, 10.0.0.0/99, 11.0.0.0/x, ::/0"],
    ["http://10.1.2.3", "2.3"],
  ])("%s is not direct with NO_PROXY=%s", (url, list) => {
    expect(way(url, { ALL_PROXY: "http://p", NO_PROXY: list })).toBe("ALL_PROXY http://p/");
  });
});
