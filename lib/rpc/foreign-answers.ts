import { Code, ConnectError } from "@connectrpc/connect";
import { refused, unreachable } from "./call-trouble.ts";
import type { CallTrouble } from "./call-trouble.ts";

/*
 * What stands between a client and its coordinator answers in HTTP, with a page for people, and cuts what it likes. Here is
 * what such answers mean. All of it is decided by the error that connect-node makes of them.
 */

/** The HTTP status of an answer that no coordinator gave; undefined for every other error. */
export function httpStatusOf({ rawMessage }: ConnectError): number | undefined {
  const status = /^HTTP (\d{3})$/.exec(rawMessage)?.[1];
  return status === undefined ? undefined : Number(status);
}

/** Says what an answer means that no coordinator gave; undefined for every other error. */
export function describeForeignAnswer(error: ConnectError, url: string): CallTrouble | undefined {
  const [, type] = /^unsupported content type (.+)$/.exec(error.rawMessage) ?? [];
  if (type !== undefined) {
    const what = type === "null" ? "an answer without a content type" : type.slice(0, 100);
    return unreachable(`${what} came, which no coordinator sends`, url, "another program answers there: check the URL");
  }
  const status = httpStatusOf(error);
  return status === undefined ? undefined : describeStatus(status, error.metadata.get("location"), url);
}

function describeStatus(status: number, location: string | null, url: string): CallTrouble {
  const said = `HTTP ${status}`;
  switch (status) {
    case 413:
      return refused(
        `a proxy before ${url} refuses a request of this size (${said})`,
        "send less, or raise its limit; nginx: client_max_body_size 8m",
      );
    case 429:
      return unreachable(`${said} of a proxy: too many calls`, url, "repeat later, or raise its limit");
    case 401:
    case 403:
    case 407:
      return refused(`a proxy before ${url} refuses the call (${said})`, "it wants to know who calls: ask who runs it");
    case 404:
    case 405:
      return refused(
        `${url} does not offer this call (${said})`,
        "check the URL and its path, or upgrade the coordinator",
      );
    case 408:
    case 500:
    case 502:
    case 503:
    case 504:
      return unreachable(`${said} of a proxy`, url, "the proxy does not reach it: is it running? See the proxy's log");
    default:
      break;
  }
  if (status >= 300 && status < 400) {
    const where = location === null ? "" : ` to ${location.slice(0, 200)}`;
    return unreachable(`${said}: it redirects${where}`, url, "name the URL that it redirects to");
  }
  if (status >= 500) return unreachable(said, url, "see the log of the proxy before it");
  return refused(
    `${url} refuses the call (${said}), which no coordinator says`,
    "check the URL, and the proxy before it",
  );
}

/** What a connection ends with that says nothing of the call: the same call may succeed on the next. */
const BROKEN: ReadonlySet<string> = new Set([
  "ECONNABORTED",
  "EHOSTDOWN",
  "EHOSTUNREACH",
  "ENETDOWN",
  "ENETRESET",
  "ENETUNREACH",
  "ENOTCONN",
  "EPIPE",
]);

/** A reset of one stream, in the words of connect-node and of Node. */
const RESET = /^(?:http\/2 stream|Stream) closed with error code /;

const CUT = /^protocol error: (?:missing EndStreamResponse|incomplete envelope|promised \d+ bytes, received \d+)$/;

/**
 * The error, as UNAVAILABLE when the way to the coordinator broke under the call. connect-node takes some of that for
 * an error of the peer (INTERNAL) or of the caller (INVALID_ARGUMENT): a stream that a proxy cut off looks like one that ended
 * too early. Everything else is returned as it is.
 */
export function withoutBlame(error: unknown): unknown {
  if (!(error instanceof ConnectError)) return error;
  const { code, rawMessage, cause } = error;
  // What the coordinator itself says comes with its headers.
  const ours = [...error.metadata.keys()].length === 0;
  const reset = code === Code.Internal && RESET.test(rawMessage);
  const cut = code === Code.InvalidArgument && ours && CUT.test(rawMessage);
  const broken = code === Code.Internal && isBroken(cause);
  if (!reset && !cut && !broken) return error;
  const text = broken ? rawMessage : `the answer was cut off on its way: ${rawMessage}`;
  return new ConnectError(text, Code.Unavailable, undefined, undefined, cause);
}

function isBroken(cause: unknown): boolean {
  return cause instanceof Error && "code" in cause && typeof cause.code === "string" && BROKEN.has(cause.code);
}
