import { BlockList, isIP } from "node:net";
import { isLoopback } from "./host-guard.ts";

type Env = Readonly<Record<string, string | undefined>>;

/** How to reach a coordinator. */
export type Route =
  | { readonly type: "direct" }
  /** By CONNECT through this proxy, which `variable` names. */
  | { readonly type: "proxy"; readonly proxy: URL; readonly variable: string }
  /** Directly: `variable` names a proxy of a kind that is not spoken here. `why` says so. */
  | { readonly type: "ignored"; readonly variable: string; readonly why: string };

const DIRECT: Route = { type: "direct" };

/**
 * The way to `url`, as HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY say; the small spelling of each counts before the
 * large one. Never a proxy for loopback: what it would reach there is another machine.
 */
export function routeTo(url: string, env: Env): Route {
  const { protocol, hostname, port } = new URL(url);
  const secure = protocol === "https:";
  if (
    isLoopback(hostname) ||
    isExempt(hostname, port || (secure ? "443" : "80"), valueOf(env, "no_proxy")?.value ?? "")
  )
    return DIRECT;
  const named = valueOf(env, secure ? "https_proxy" : "http_proxy") ?? valueOf(env, "all_proxy");
  if (named === undefined) return DIRECT;
  const { variable, value } = named;
  const proxy = URL.parse(/^[a-z][a-z\d+.-]*:\/\//i.test(value) ? value : `http://${value}`);
  if (proxy === null) return { type: "ignored", variable, why: `${variable} is no URL of a proxy, and was ignored` };
  if (proxy.protocol === "http:" || proxy.protocol === "https:") return { type: "proxy", proxy, variable };
  const kind = proxy.protocol.slice(0, -1);
  return {
    type: "ignored",
    variable,
    why: `${variable} names a ${kind} proxy, which is not spoken here, and was ignored`,
  };
}

function valueOf(env: Env, name: string): { variable: string; value: string } | undefined {
  for (const variable of [name, name.toUpperCase()]) {
    const value = env[variable]?.trim();
    if (value !== undefined && value !== "") return { variable, value };
  }
  return undefined;
}

/** True when NO_PROXY names the host: by name, a domain above it, address, network in CIDR, each with or without a port, or `*`. */
function isExempt(hostname: string, port: string, list: string): boolean {
  const host = hostname.toLowerCase().replace(/^\[|\]$/g, "");
  return list
    .split(/[\s,]+/)
    .filter((entry) => entry !== "")
    .some((entry) => covers(entry.toLowerCase(), host, port));
}

function covers(entry: string, host: string, port: string): boolean {
  if (entry === "*") return true;
  if (entry.includes("/")) return holds(entry, host);
  const [, inBrackets, plain, itsPort] =
    /^(?:\[([^\]]+)\]|([^:]+|[^[\]]*:[^[\]]*:[^[\]]*))(?::(\d+))?$/.exec(entry) ?? [];
  if (itsPort !== undefined && itsPort !== port) return false;
  const name = (inBrackets ?? plain ?? entry).replace(/^\*?\./, "");
  return host === name || (isIP(host) === 0 && host.endsWith(`.${name}`));
}

function holds(network: string, host: string): boolean {
  const [address = "", bits = ""] = network.split("/");
  const family = isIP(address);
  const prefix = Number(bits);
  if (family === 0 || isIP(host) !== family || !/^\d+$/.test(bits) || prefix > (family === 4 ? 32 : 128)) return false;
  const list = new BlockList();
  const type = family === 4 ? "ipv4" : "ipv6";
  list.addSubnet(address, prefix, type);
  return list.check(host, type);
}
