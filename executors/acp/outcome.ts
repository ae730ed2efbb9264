import { reasonOfText, statusIn } from "../lib/agent/final.ts";
import type { Final } from "../lib/agent/final.ts";

/** The end of a turn, as the agent tells it. */
export interface TurnFacts {
  readonly label: string;
  /** `stopReason` of the answer to the prompt. */
  readonly stopReason: string;
  /** The last message of the agent. */
  readonly answer: string;
  /** The last piece that it sent of it: an error is often said after other things. */
  readonly lastPiece: string;
  /** Whether it reported tokens that a model has used in this turn. */
  readonly used: boolean;
  /** Whether it reports them after each turn that a model had a part in. */
  readonly reportsUsage: boolean;
  /** Calls of tools in this turn, which a model has asked for. */
  readonly toolCalls: number;
}

/** A sentence that is longer is no error but an answer about one. */
const ERROR_MAX = 2000;

/** How the sentences begin in which agents tell errors of the provider as if they were answers. */
const ERROR_START = /^\W*(\w+ ){0,2}(error|failed|failure)\b[^.\n]{0,40}[:(]|^\W*\{"error"/i;

/**
 * The result, or why there is none. "The turn has ended" is no success by itself: some agents tell an error of the provider as a
 * message and end the turn as usual. What gives them away is that no model has used tokens for it.
 */
export function finalOf(turn: TurnFacts): Final {
  const { label, answer, used, toolCalls } = turn;
  const stopped = stopProblem(turn);
  if (stopped !== undefined) return stopped;
  if (used) return { ok: true, text: answer };
  const error = errorSentence(turn);
  if (error !== undefined) return { ok: false, reason: reasonOfText(error), message: `${label}: ${error.trim()}` };
  if (answer.trim() === "" && toolCalls === 0) {
    return { ok: false, reason: "NO_ANSWER", message: `${label} ended its turn, and no model has answered` };
  }
  return { ok: true, text: answer };
}

function stopProblem({ stopReason, label, answer }: TurnFacts): Final | undefined {
  const so = answer.trim() === "" ? "" : `; it said: ${answer.trim().slice(0, 500).toWellFormed()}`;
  switch (stopReason) {
    case "end_turn":
      return undefined;
    case "max_tokens":
      return {
        ok: false,
        reason: "LIMIT_REACHED",
        message: `${label} is not done: its model may write no more tokens${so}`,
      };
    case "max_turn_requests":
      return {
        ok: false,
        reason: "LIMIT_REACHED",
        message: `${label} is not done: it may ask its model no more often${so}`,
      };
    case "refusal":
      return { ok: false, reason: "MODEL_REFUSED", message: `${label}: the model refuses${so}` };
    case "cancelled":
      return {
        ok: false,
        reason: "AGENT_FAILED",
        message: `${label} cancelled its turn, which nobody had asked for${so}`,
      };
    default: {
      const why = stopReason === "" ? "no stop reason" : `the stop reason "${stopReason.slice(0, 80)}"`;
      return {
        ok: false,
        reason: "AGENT_FAILED",
        message: `${label} ended its turn with ${why}, which is not known${so}`,
      };
    }
  }
}

/** The message when it is an error of the provider, said as if it were an answer. */
function errorSentence({ answer, lastPiece, reportsUsage }: TurnFacts): string | undefined {
  if (answer.length <= ERROR_MAX && ERROR_START.test(answer)) return answer;
  // Without such a beginning it takes an agent that would have reported usage, and words of an error.
  if (!reportsUsage || lastPiece.length > ERROR_MAX) return undefined;
  if (ERROR_START.test(lastPiece)) return lastPiece;
  return statusIn(lastPiece) !== undefined || reasonOfText(lastPiece) !== "AGENT_FAILED" ? lastPiece : undefined;
}
