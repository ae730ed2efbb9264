import { Code, ConnectError } from "@connectrpc/connect";
import type { Interceptor } from "@connectrpc/connect";
import { errorInfo } from "../../lib/rpc/error-info.ts";
import { CommitError } from "../../lib/sqlite.ts";
import { Refusal } from "../store/store.ts";

const CODES: Readonly<Record<Refusal["code"], Code>> = {
  NOT_FOUND: Code.NotFound,
  ALREADY_EXISTS: Code.AlreadyExists,
  INVALID_ARGUMENT: Code.InvalidArgument,
  FAILED_PRECONDITION: Code.FailedPrecondition,
  OUT_OF_RANGE: Code.OutOfRange,
  RESOURCE_EXHAUSTED: Code.ResourceExhausted,
};

/** Turns what the store refuses into errors with a status for callers; every other error stays as it was thrown. */
export function storeErrors(): Interceptor {
  const translate = (error: unknown): unknown => {
    if (error instanceof Refusal) return new ConnectError(error.message, CODES[error.code]);
    if (!(error instanceof CommitError)) return error;
    const what = error.full ? `${error.message}. Free disk space and repeat` : error.message;
    // Not RESOURCE_EXHAUSTED, which a caller gets for a message that is too large: this one is to be repeated as it is.
    return new ConnectError(`${what}; nothing was changed`, Code.Unavailable, undefined, [
      errorInfo(error.full ? "STORE_FULL" : "STORE_FAILED"),
    ]);
  };
  return (next) => async (request) => {
    try {
      const response = await next(request);
      if (!response.stream) return response;
      return { ...response, message: translated(response.message, translate) };
    } catch (error) {
      throw translate(error);
    }
  };
}

async function* translated<T>(source: AsyncIterable<T>, translate: (error: unknown) => unknown): AsyncIterable<T> {
  try {
    yield* source;
  } catch (error) {
    throw translate(error);
  }
}
