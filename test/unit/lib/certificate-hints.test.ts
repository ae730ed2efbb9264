import { Code, ConnectError } from "@connectrpc/connect";
import { describe, expect, it } from "vitest";
import { EXIT } from "../../../lib/exit-codes.ts";
import { describeConnectError } from "../../../lib/rpc/transport.ts";

describe("a certificate that is refused", () => {
  it.each([
    ["ERR_TLS_CERT_ALTNAME_INVALID", /is for other names/],
    ["CERT_HAS_EXPIRED", /has expired: renew it/],
    ["CERT_NOT_YET_VALID", /not valid yet: check the clocks/],
    ["DEPTH_ZERO_SELF_SIGNED_CERT", /not trusted here: pass its CA with --tls-ca/],
  ])("with %s is explained by what is wrong with it", (code, hint) => {
    const cause = Object.assign(new Error("refused"), { code });
    const error = new ConnectError("refused", Code.Unavailable, undefined, undefined, cause);
    const trouble = describeConnectError(error, "https://h:1");
    expect(trouble.exitCode).toBe(EXIT.unreachable);
    expect(trouble.hint).toMatch(hint);
  });
});
