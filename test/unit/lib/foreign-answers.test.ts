import { Code, ConnectError } from "@connectrpc/connect";
import { describe, expect, it } from "vitest";
import { isTransient } from "../../../client/transient.ts";
import { EXIT } from "../../../lib/exit-codes.ts";
import { withoutBlame } from "../../../lib/rpc/foreign-answers.ts";
import { adviceOf } from "../../../mcp/errors.ts";
import { describeConnectError } from "../../../lib/rpc/transport.ts";

const URL = "https://agents.example.com";
const AGENT = { sessionId: "ses_1" };

describe("an answer in HTTP, of a proxy", () => {
  it.each([
    ["HTTP 413", Code.Unknown, EXIT.refused, /a proxy before .* refuses a request of this size \(HTTP 413\)/],
    ["HTTP 400", Code.Internal, EXIT.refused, /refuses the call \(HTTP 400\), which no coordinator says/],
    ["HTTP 401", Code.Unauthenticated, EXIT.refused, /a proxy before .* refuses the call/],
    ["HTTP 404", Code.Unimplemented, EXIT.refused, /does not offer this call/],
    ["HTTP 429", Code.Unavailable, EXIT.unreachable, /too many calls/],
    ["HTTP 500", Code.Unknown, EXIT.unreachable, /cannot reach coordinator at .* \(HTTP 500 of a proxy\)/],
    ["HTTP 502", Code.Unavailable, EXIT.unreachable, /cannot reach coordinator at .* \(HTTP 502 of a proxy\)/],
    ["HTTP 504", Code.Unavailable, EXIT.unreachable, /cannot reach coordinator at .* \(HTTP 504 of a proxy\)/],
    ["HTTP 522", Code.Unknown, EXIT.unreachable, /HTTP 522/],
    [
      "unsupported content type text/html",
      Code.Unknown,
      EXIT.unreachable,
      /text\/html came, which no coordinator sends/,
    ],
  ])("%s is explained, and is no bug of ours", (said, code, exitCode, text) => {
    const trouble = describeConnectError(new ConnectError(said, code), URL);
    expect(trouble).toMatchObject({ exitCode, text: expect.stringMatching(text) });
    expect(trouble.hint).toBeTruthy();
  });

  it("is told to a model in words too", () => {
    expect(adviceOf(new ConnectError("HTTP 413", Code.Unknown), AGENT)).toMatch(
      /^a proxy .* refuses a request of this size/,
    );
    expect(adviceOf(new ConnectError("HTTP 502", Code.Unavailable), AGENT)).toContain("cannot be reached");
  });

  it("that redirects says where to", () => {
    const error = new ConnectError("HTTP 301", Code.Unknown, { location: "https://other.example.com/" });
    expect(describeConnectError(error, URL).text).toContain("it redirects to https://other.example.com/");
  });
});

describe("a way that broke", () => {
  const unreachable = (code: string) => {
    const error = new ConnectError("broken", Code.Internal);
    error.cause = Object.assign(new Error("broken"), { code });
    return error;
  };

  it.each([
    new ConnectError("http/2 stream closed with error code INTERNAL_ERROR (0x2)", Code.Internal),
    // Node's own words, which connect-node does not look into: a coordinator that ends refuses the streams of its last moment.
    new ConnectError("Stream closed with error code NGHTTP2_REFUSED_STREAM", Code.Internal),
    new ConnectError("protocol error: missing EndStreamResponse", Code.InvalidArgument),
    new ConnectError("protocol error: incomplete envelope", Code.InvalidArgument),
    new ConnectError("protocol error: promised 9 bytes, received 4", Code.InvalidArgument),
    unreachable("EHOSTUNREACH"),
    unreachable("EPIPE"),
  ])("is worth another try: $message", (error) => {
    expect(isTransient(error)).toBe(false);
    expect(isTransient(withoutBlame(error))).toBe(true);
    expect(describeConnectError(withoutBlame(error), URL).exitCode).toBe(EXIT.unreachable);
  });

  it.each([
    new ConnectError("internal error err_1", Code.Internal),
    new ConnectError("protocol error: incomplete envelope", Code.InvalidArgument, {
      "content-type": "application/json",
    }),
    new ConnectError("prompt: must not be empty", Code.InvalidArgument),
    unreachable("DEPTH_ZERO_SELF_SIGNED_CERT"),
    "text",
  ])("is not what a coordinator says: %s", (error) => {
    expect(withoutBlame(error)).toBe(error);
  });
});
