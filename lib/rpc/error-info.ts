import { create } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { ErrorInfoSchema } from "../../gen/google/rpc/error_details_pb.ts";

/** `domain` of every reason of ours. */
export const ERROR_DOMAIN = "agentrunner";

/** Why a call failed, for programs. The texts beside them are for people and change. */
export type ErrorReason =
  /** The disk of the store, or the space that it may use, is full. Nothing was changed. */
  | "STORE_FULL"
  /** The store could not be written for another reason, such as an I/O error. Nothing was changed. */
  | "STORE_FAILED"
  /** A part of the store's file cannot be read. Repeating does not help. */
  | "STORE_DAMAGED"
  /** A cursor or page token was made by another store. */
  | "OTHER_STORE"
  /** A cursor was made by this store in a time that it has lost: it was restored from an older copy. */
  | "STORE_WENT_BACK"
  /** A session was to be given a name that could be taken for an id, or that cannot be seen. */
  | "SESSION_NAME_INVALID"
  /** A message is larger than messages may be. Repeating it as it is does not help. */
  | "MESSAGE_TOO_LARGE"
  /** What of a NOT_FOUND was not found. */
  | MissingReason;

/** Kinds of things that a request can name. */
export type MissingReason = "RUN_NOT_FOUND" | "SESSION_NOT_FOUND" | "RUNNER_NOT_FOUND" | "BLUEPRINT_NOT_FOUND";

/** The detail of an error that carries its reason. */
export function errorInfo(reason: ErrorReason) {
  return { desc: ErrorInfoSchema, value: create(ErrorInfoSchema, { reason, domain: ERROR_DOMAIN }) };
}

/** A NOT_FOUND that says what was not found. */
export function notFound(reason: MissingReason, text: string): ConnectError {
  return new ConnectError(text, Code.NotFound, undefined, [errorInfo(reason)]);
}

/** The reason that an error of a coordinator carries; undefined when it has none. Anything can be passed. */
export function reasonOf(error: unknown): string | undefined {
  if (!(error instanceof ConnectError)) return undefined;
  return error.findDetails(ErrorInfoSchema).find(({ domain }) => domain === ERROR_DOMAIN)?.reason;
}

/** True when the coordinator refused a call because its store could not be written: nothing was changed, and the same call may succeed later. */
export function isStoreTrouble(error: unknown): boolean {
  const reason = reasonOf(error);
  return reason === ("STORE_FULL" satisfies ErrorReason) || reason === ("STORE_FAILED" satisfies ErrorReason);
}
