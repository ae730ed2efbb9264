import type { HttpRequest } from "./http.ts";

/** Loopback in every spelling a browser or client may use for itself; `localhost` and names below it never leave the machine. */
const LOOPBACK = /^(?:localhost|.+\.localhost|127(?:\.\d{1,3}){3}|\[::1\])$/;

/** `host`, `host:port`, `[v6]` or `[v6]:port`; the host is captured. */
const AUTHORITY = /^(\[[\da-f:.]+\]|[^\s:/?#@[\]]+)(?::\d{1,5})?$/;

/**
 * Decides who may speak to this port (ADR 14). A web page can make its reader's browser call localhost: by its own
 * name, pointed at 127.0.0.1 (then Host gives it away), or directly (then Origin does). Both must be loopback or allowed.
 *
 * Returns the reason of a refusal, which names the program as `whose`, or undefined. A request without Host passes, because
 * browsers always send one.
 */
export function hostGuard(
  allowedHosts: readonly string[],
  whose: "coordinator" | "runner",
): (request: HttpRequest) => string | undefined {
  const allowed = new Set(allowedHosts.map((host) => host.toLowerCase()));
  const mayCall = (host: string | undefined) => host !== undefined && (LOOPBACK.test(host) || allowed.has(host));
  return (request) => {
    const authority = authorityOf(request);
    if (authority !== undefined && !mayCall(hostOf(authority))) return refusal("Host", authority, whose);
    const { origin } = request.headers;
    if (origin !== undefined && !mayCall(hostOf(origin.replace(/^https?:\/\//i, ""))))
      return refusal("Origin", origin, whose);
    return undefined;
  };
}

/** The host a request is addressed to, with its port; undefined when the request does not say. */
export function authorityOf(request: HttpRequest): string | undefined {
  return ("authority" in request ? request.authority : request.headers.host) || undefined;
}

/** True for addresses and names that only this machine can reach. IPv6 with or without brackets. */
export function isLoopback(host: string): boolean {
  return LOOPBACK.test(bracketed(host.toLowerCase()));
}

/** The host as it stands in a URL: IPv6 in brackets. */
export function bracketed(host: string): string {
  return host.includes(":") && !host.startsWith("[") ? `[${host}]` : host;
}

function hostOf(authority: string): string | undefined {
  return AUTHORITY.exec(authority.toLowerCase())?.[1];
}

function refusal(header: "Host" | "Origin", value: string, whose: string): string {
  return `${header} ${JSON.stringify(value)} is neither loopback nor an allowed host of this ${whose}`;
}
