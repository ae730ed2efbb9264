import { Code, ConnectError } from "@connectrpc/connect";
import type { ConnectRouterOptions, HandlerContext, Interceptor } from "@connectrpc/connect";
import { RunnerService } from "../../gen/agentrunner/v1/runner_service_pb.ts";
import { jsonProblemIn } from "../../lib/protocol/json-values.ts";
import { numberProblem } from "../../lib/protocol/json-numbers.ts";
import { JSON_MAX_DEPTH, READ_MAX_DEPTH } from "../../lib/protocol/limits.ts";
import { errorInfo } from "../../lib/rpc/error-info.ts";
import { NotText, utf8Text } from "../../lib/text.ts";

/*
 * What is refused of the body of a request before a handler sees it. Connect has no hook where a body becomes a message, but for
 * the decoder of JSON's text and the end of the call.
 */

/** How bodies become messages. */
export const BODY_OPTIONS: Required<Pick<ConnectRouterOptions, "jsonOptions" | "binaryOptions" | "requestGate">> = {
  // A variable, because the type lacks `textDecoder`, which Connect reads.
  jsonOptions: jsonOptions({ ignoreUnknownFields: false }),
  // Deep enough for one item of a batch to be refused by its name, and not the batch.
  binaryOptions: { recursionLimit: READ_MAX_DEPTH },
  requestGate: explainRefusals,
};

/**
 * The JSON of programs, which are upgraded before the coordinator or after it: a field that it does not know is left out, as in
 * binary. People write JSON by hand, and a misspelt field must not be taken for one that was left out.
 */
export const PROGRAMS: Pick<ConnectRouterOptions, "jsonOptions"> = {
  jsonOptions: jsonOptions({ ignoreUnknownFields: true }),
};

function jsonOptions({ ignoreUnknownFields }: { ignoreUnknownFields: boolean }) {
  return {
    useProtoFieldName: true,
    ignoreUnknownFields,
    recursionLimit: READ_MAX_DEPTH,
    textDecoder: { decode: jsonTextOf },
  };
}

/** @throws ConnectError for what would arrive as other text, or other numbers, than were sent. */
function jsonTextOf(body: Uint8Array = new Uint8Array()): string {
  let text: string;
  try {
    text = utf8Text(body);
  } catch (error) {
    if (error instanceof NotText) throw new ConnectError(`the body ${error.message}`, Code.InvalidArgument);
    throw error;
  }
  const problem = numberProblem(text);
  if (problem !== undefined) throw new ConnectError(problem, Code.InvalidArgument);
  return text;
}

/** Connect's own refusals, as a caller needs them. The error is sent after this, and there is no other hook. */
function explainRefusals({ signal }: HandlerContext): void {
  const look = () => {
    const error: unknown = signal.reason;
    if (error instanceof ConnectError) explain(error);
  };
  signal.addEventListener("abort", look, { once: true });
}

function explain(error: ConnectError): void {
  const { code, rawMessage } = error;
  // A body that cannot be read is its sender's fault; Connect calls it INTERNAL when it is binary.
  if (code === Code.Internal && rawMessage.startsWith("parse binary: ")) {
    Object.assign(error, { code: Code.InvalidArgument });
  }
  if (/maximum recursion depth|call stack/.test(rawMessage)) {
    Object.assign(error, { rawMessage: `${rawMessage}; JSON may be nested ${JSON_MAX_DEPTH} levels deep` });
  }
  if (code === Code.ResourceExhausted && /larger than configured (read|write)MaxBytes/.test(rawMessage)) {
    error.details.push(errorInfo("MESSAGE_TOO_LARGE"));
  }
}

/** Batches: one item that is too deep must not refuse the others, and gets its own verdict. */
const BY_ITEM: ReadonlySet<unknown> = new Set([RunnerService.method.reportStatus, RunnerService.method.appendEvents]);

/** Refuses requests with JSON that some reader could not have: nested too deep, or without a form. */
export const boundedJson: Interceptor = (next) => (request) => {
  if (!request.stream && !BY_ITEM.has(request.method)) {
    const problem = jsonProblemIn(request.method.input, request.message);
    if (problem !== undefined) throw new ConnectError(problem, Code.InvalidArgument);
  }
  return next(request);
};
