import { Code, ConnectError } from "@connectrpc/connect";
import type { Interceptor } from "@connectrpc/connect";
import { errorInfo } from "../../lib/rpc/error-info.ts";
import { CommitError, damageOf } from "../../lib/sqlite.ts";
import { Refusal } from "../store/store.ts";

const CODES: Readonly<Record<Refusal["code"], Code>> = {
  NOT_FOUND: Code.NotFound,
  ALREADY_EXISTS: Code.AlreadyExists,
  INVALID_ARGUMENT: Code.InvalidArgument,
  FAILED_PRECONDITION: Code.FailedPrecondition,
  OUT_OF_RANGE: Code.OutOfRange,
  RESOURCE_EXHAUSTED: Code.ResourceExhausted,
  UNAVAILABLE: Code.Unavailable,
};

export interface StoreErrorHooks {
  /** File of the store, for the texts. */
  readonly store: string;
  /** SQLite could not read the file as it is. */
  readonly onDamage: (error: unknown, message: string) => void;
}

/** Turns what the store refuses into errors with a status for callers; every other error stays as it was thrown. */
export function storeErrors({ store, onDamage }: StoreErrorHooks): Interceptor {
  const translate = (error: unknown): unknown => {
    if (error instanceof Refusal) {
      const details = error.reason === undefined ? [] : [errorInfo(error.reason)];
      return new ConnectError(error.message, CODES[error.code], undefined, details);
    }
    const damage = damageOf(error);
    if (damage !== undefined) {
      const message = `STORE_DAMAGED: ${store} cannot be read (${damage}): stop the coordinator and restore a copy`;
      onDamage(error, message);
      return new ConnectError(message, Code.Internal, undefined, [errorInfo("STORE_DAMAGED")]);
    }
    if (!(error instanceof CommitError)) return error;
    const cure = error.full ? ". Free disk space and repeat" : error.gone ? ". Restart the coordinator" : "";
    const what = `${error.message}${cure}`;
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
