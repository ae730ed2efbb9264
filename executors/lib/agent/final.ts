import type { JsonObject } from "@bufbuild/protobuf";
import { AgentError } from "./agent-error.ts";
import type { AgentErrorReason } from "./agent-error.ts";
import type { AgentExit } from "./agent-process.ts";

/** What an agent said last: its result, or why there is none. */
export type Final =
  | { readonly ok: true; readonly text: string; readonly data?: JsonObject | undefined }
  | { readonly ok: false; readonly reason: AgentErrorReason; readonly message: string };

/** The end of an agent's turn. */
export interface TurnEnd {
  /** Undefined when it ended without a word. */
  readonly final: Final | undefined;
  /** Whether a model has answered anything in this turn. */
  readonly answered: boolean;
  readonly exit: AgentExit;
}

/**
 * The result of the run: the final event decides, then the exit code. Many agents exit 0 after an error, or say that they
 * are done when no model has answered.
 * @throws AgentError when the run fails.
 */
export function resultOf(
  name: string,
  { final, answered, exit }: TurnEnd,
): { text: string; data?: JsonObject | undefined } {
  if (final !== undefined && !final.ok) throw new AgentError(final.reason, final.message);
  const said = exit.stderrTail === "" ? "nothing on stderr" : `the end of its stderr: ${lastLine(exit.stderrTail)}`;
  if (exit.signal !== null) throw new AgentError("AGENT_FAILED", `${name} was ended by ${exit.signal}; ${said}`);
  if (exit.code !== 0) {
    const status = statusIn(exit.stderrTail);
    const reason = status === undefined ? "AGENT_FAILED" : reasonOfStatus(status);
    throw new AgentError(reason, `${name} exited with code ${exit.code}; ${said}`);
  }
  if (final === undefined || !answered) {
    throw new AgentError("NO_ANSWER", `${name} exited with code 0, and no model has answered; ${said}`);
  }
  return final;
}

/** What an HTTP status of the model's provider means for the run. */
export function reasonOfStatus(status: number): AgentErrorReason {
  if (status === 401) return "NOT_LOGGED_IN";
  if (status === 429) return "RATE_LIMITED";
  if (status >= 400 && status < 500) return "MODEL_REFUSED";
  return "MODEL_UNREACHABLE";
}

/** The HTTP status that a sentence of an agent names, such as "API Error: 529 …"; undefined when it names none. */
export function statusIn(text: string): number | undefined {
  const found = /\b(?:error|status|code|HTTP)\W{0,12}(4\d\d|5\d\d)\b/i.exec(text) ?? /^\W*(4\d\d|5\d\d)\b/.exec(text);
  return found === null ? undefined : Number(found[1]);
}

/** What an agent's own sentence about a failure means, by the status in it and a few words that all providers use. */
export function reasonOfText(text: string): AgentErrorReason {
  const status = statusIn(text);
  if (status !== undefined) return reasonOfStatus(status);
  if (/\b(log ?in|logged in|api key|unauthori[sz]ed|authenticat)/i.test(text)) return "NOT_LOGGED_IN";
  if (/\b(rate.?limit|quota|usage limit|too many requests)\b/i.test(text)) return "RATE_LIMITED";
  if (/\b(overloaded|ECONN\w+|ENOTFOUND|socket|connection|network|timed? ?out|stream)\b/i.test(text))
    return "MODEL_UNREACHABLE";
  return "AGENT_FAILED";
}

function lastLine(text: string): string {
  return text.split("\n").at(-1)?.slice(0, 500) ?? "";
}
