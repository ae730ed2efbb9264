import { Code, ConnectError } from "@connectrpc/connect";
import { EXIT } from "../lib/exit-codes.ts";
import { describeForeignAnswer } from "../lib/rpc/foreign-answers.ts";
import { isStoreTrouble } from "../lib/rpc/error-info.ts";

/** A call that a tool refuses; the message says what to do instead. */
export class ToolError extends Error {
  override name = "ToolError";
}

const AGAIN = "Nothing was changed. Wait a minute and call again.";

/** What a model is told to do about an error of the coordinator. */
const ADVICE: ReadonlyMap<Code, string> = new Map([
  [Code.InvalidArgument, "Nothing was changed. Correct the arguments and call again."],
  [Code.NotFound, "list_agent_sessions and list_agent_blueprints list what there is."],
  [Code.AlreadyExists, "Nothing was started. Use another session_name or request_id, or resume_agent_session."],
  [Code.PermissionDenied, "An agent may use its own session and those that it started, and nothing else."],
  [Code.FailedPrecondition, "Nothing was changed."],
  [Code.OutOfRange, "Begin again without the page_token."],
  [Code.Unimplemented, "This coordinator is older than this tool; go on without it."],
  [
    Code.Unauthenticated,
    "This run's lease is over: it has ended, or another attempt has taken its place. Nothing was changed and nothing " +
      "can be: stop working.",
  ],
  [Code.ResourceExhausted, AGAIN],
  [Code.Unavailable, "The coordinator cannot be reached. Call again in a minute, a start with the same request_id."],
  [Code.DeadlineExceeded, "The coordinator does not answer. Call again in a minute, a start with the same request_id."],
]);

/** What a person is told whose client sends a token: they need none. */
const NO_TOKEN =
  "Nothing was changed. Only agents send a token, that of their run: take `authorization` out of the client's headers.";

/** Says what went wrong and what to do, for the model of an agent or of a person's client. */
export function adviceOf(error: unknown, { sessionId }: { readonly sessionId: string | undefined }): string {
  if (error instanceof ToolError) return error.message;
  const foreign = describeForeignAnswer(ConnectError.from(error), "the coordinator");
  if (foreign?.exitCode === EXIT.refused) return `${foreign.text}. Nothing was changed: ${foreign.hint}.`;
  const { code, rawMessage } = ConnectError.from(error);
  const ofPerson = code === Code.Unauthenticated && sessionId === undefined ? NO_TOKEN : ADVICE.get(code);
  const advice = isStoreTrouble(error) ? AGAIN : ofPerson;
  return advice === undefined ? `${Code[code]}: ${rawMessage}` : `${rawMessage}. ${advice}`;
}
