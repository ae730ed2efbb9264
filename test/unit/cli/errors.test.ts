import { Code, ConnectError } from "@connectrpc/connect";
import { expect, it } from "vitest";
import { cliError } from "../../../cli/errors.ts";
import { errorInfo } from "../../../lib/rpc/error-info.ts";
import { ProxyError } from "../../../lib/rpc/tunnel.ts";

const URL = "http://localhost:8765";

it("a proxy that cannot be used is no bug", () => {
  expect(cliError(new ProxyError("the proxy x cannot be reached"), URL)).toMatchObject({
    exitCode: 3,
    message: "the proxy x cannot be reached",
  });
});

it.each([
  [Code.AlreadyExists, "session a exists (ses_1)", /ao resume NAME/],
  [Code.AlreadyExists, "/b.db exists, and no backup replaces a file: name another", undefined],
  [Code.FailedPrecondition, "it is active with run_1", /ao ps/],
  [Code.FailedPrecondition, "agent blueprint a is broken: …", undefined],
])("with %j “%s” a hint stands only where it helps", (code, message, hint) => {
  const found = cliError(new ConnectError(message, code), URL).hint;
  if (hint === undefined) expect(found).toBeUndefined();
  else expect(found).toMatch(hint);
});

it("a store that went back is not called another one", () => {
  const error = new ConnectError("cursor x", Code.OutOfRange, undefined, [errorInfo("STORE_WENT_BACK")]);
  expect(cliError(error, URL).hint).toBe("repeat the command to begin from the start");
});
