import { isIP, isIPv6 } from "node:net";
import type { HttpRequest } from "./http.ts";

/** Loopback in every spelling a browser or client may use for itself; `localhost` and names below it never leave the machine. */
const LOOPBACK = /^(?:localhost|.+\.localhost|127(?:\.\d{1,3}){3}|\[::1\])$/;

/** `host`, `host:port`, `[v6]` or `[v6]:port`; the host and the port are captured. */
const AUTHORITY = /^(\[[\da-f:.]+\]|[^\s:/?#@[\]]+)(?::(\d{1,5}))?$/;

/**
 * Decides who may speak to this port (ADR 14). A web page can make its reader's browser call localhost: by its own
 * name, pointed at 127.0.0.1 (then Host gives it away), or directly (then Origin does). Both must be loopback or allowed. An IP
 * address as Host passes as well: the first trick needs a name, and probes and load balancers call by address.
 *
 * `namesOfThis` are names under which clients reach this machine and that nobody else can make point to it: they pass as Host
 * alone. Returns the reason of a refusal, which names the program as `whose`, or undefined. A request without Host passes, because
 * browsers always send one.
 */
export function hostGuard(
  allowedHosts: readonly string[],
  whose: "coordinator" | "runner",
  namesOfThis: readonly string[] = [],
): (request: HttpRequest) => string | undefined {
  const allowed = new Set(allowedHosts.map((host) => host.toLowerCase()));
  const mayCall = (host: string | undefined) => host !== undefined && (LOOPBACK.test(host) || allowed.has(host));
  const mayBeCalled = (host: string | undefined) =>
    mayCall(host) || (host !== undefined && (isAddress(host) || namesOfThis.includes(host)));
  return (request) => {
    const authority = authorityOf(request);
    if (authority !== undefined && !mayBeCalled(hostOf(authority))) return refusal("Host", authority, whose);
    const { origin } = request.headers;
    if (origin !== undefined && !mayCall(hostOf(origin.replace(/^https?:\/\//i, ""))))
      return refusal("Origin", origin, whose);
    return undefined;
  };
}

/** The host a request is addressed to, with its port; undefined when the request does not say. IPv6 is in brackets. */
export function authorityOf(request: HttpRequest): string | undefined {
  const authority = ("authority" in request ? request.authority : request.headers.host) || undefined;
  return authority === undefined ? undefined : withBrackets(authority);
}

/**
 * `::1:8765` as `[::1]:8765`: HTTP/2 clients, Node's among them, send an IPv6 address without its brackets (RFC 3986, section
 * 3.2.2, wants them). The last group is taken for the port when what stands before it is an address.
 */
function withBrackets(authority: string): string {
  if (!/^[\da-f:.]*:[\da-f:.]*:[\da-f:.]*$/i.test(authority)) return authority;
  const [, host = "", port = ""] = /^(.*):(\d{1,5})$/.exec(authority) ?? [];
  if (isIPv6(host)) return `[${host}]:${port}`;
  return isIPv6(authority) ? `[${authority}]` : authority;
}

/** True for addresses and names that only this machine can reach. IPv6 with or without brackets. */
export function isLoopback(host: string): boolean {
  return LOOPBACK.test(bracketed(host.toLowerCase()));
}

/** The host as it stands in a URL: IPv6 in brackets. */
export function bracketed(host: string): string {
  return host.includes(":") && !host.startsWith("[") ? `[${host}]` : host;
}

function isAddress(host: string): boolean {
  return isIP(host.replace(/^\[|\]$/g, "")) !== 0;
}

function hostOf(authority: string): string | undefined {
  return AUTHORITY.exec(authority.toLowerCase())?.[1];
}

function refusal(header: "Host" | "Origin", value: string, whose: string): string {
  return `${header} ${JSON.stringify(value)} is neither loopback nor an allowed host of this ${whose}`;
}
