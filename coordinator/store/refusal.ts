import type { ErrorReason } from "../../lib/rpc/error-info.ts";

/** Why a command was refused; nothing was changed. The names are those of gRPC status codes. */
export class Refusal extends Error {
  override readonly name = "Refusal";
  readonly code:
    | "NOT_FOUND"
    | "ALREADY_EXISTS"
    | "INVALID_ARGUMENT"
    | "FAILED_PRECONDITION"
    | "OUT_OF_RANGE"
    | "RESOURCE_EXHAUSTED"
    | "UNAVAILABLE";
  /** For programs, where the code says too little. */
  readonly reason: ErrorReason | undefined;
  constructor(code: Refusal["code"], message: string, reason?: ErrorReason) {
    super(message);
    this.code = code;
    this.reason = reason;
  }
}
