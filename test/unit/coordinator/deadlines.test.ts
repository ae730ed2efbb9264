import { expect, it } from "vitest";
import { dropEndlessDeadlines } from "../../../coordinator/http/deadlines.ts";

it.each([
  [{ "connect-timeout-ms": "2147483647" }, true],
  [{ "connect-timeout-ms": "2147483648" }, false],
  [{ "connect-timeout-ms": "99999999999" }, false],
  [{ "grpc-timeout": "596H" }, true],
  [{ "grpc-timeout": "600H" }, false],
  [{ "grpc-timeout": "2147484S" }, false],
  [{ "grpc-timeout": "99999999m" }, true],
  [{ "grpc-timeout": "odd" }, true],
])("of %j a deadline that a timer can hold is kept", (headers: Record<string, string>, kept) => {
  const left = { ...headers };
  dropEndlessDeadlines(left);
  expect(left).toEqual(kept ? headers : {});
});
