import type { JsonObject } from "@bufbuild/protobuf";
import { AgentError } from "../lib/agent/agent-error.ts";
import { reasonOfText, resultOf } from "../lib/agent/final.ts";
import type { Turn } from "./turn.ts";

export interface OutcomeTerms {
  /** Name of the agent, for people. */
  readonly label: string;
  readonly isResumed: boolean;
  /** The result's data are asked for. */
  readonly hasSchema: boolean;
}

/**
 * The result of the run.
 * @throws AgentError when it fails.
 */
export function outcomeOf(turn: Turn, terms: OutcomeTerms): { text: string; data?: JsonObject | undefined } {
  if (turn.exit.stopped) throw new AgentError("AGENT_FAILED", "stopped before its end");
  const result = named(turn, terms);
  if (!terms.hasSchema || result.data !== undefined) return result;
  const data = jsonObject(result.text);
  if (data !== undefined) return { text: result.text, data };
  const found = JSON.stringify(result.text.slice(0, 200));
  throw new AgentError(
    "OUTPUT_SCHEMA",
    `${terms.label} was asked for a JSON object by output_schema, and answered ${found}`,
  );
}

function named(turn: Turn, { label, isResumed }: OutcomeTerms): { text: string; data?: JsonObject | undefined } {
  try {
    return resultOf(label, turn);
  } catch (error) {
    if (!(error instanceof AgentError) || turn.answered) throw error;
    const said = `${error.message}\n${turn.exit.stderrTail}`;
    if (isResumed && isUnknownSession(said)) {
      const message = `${error.message}; its files are not in this session's private folder: start a new session`;
      throw new AgentError("UNKNOWN_SESSION", message, { cause: error });
    }
    // Before it had an answer it says on stderr what its provider said.
    if (error.reason !== "AGENT_FAILED" || turn.exit.signal !== null) throw error;
    throw new AgentError(reasonOfText(turn.exit.stderrTail), error.message, { cause: error });
  }
}

/** Sentences of many agents: "no rollout found for thread id", "Session not found", "No conversation found". */
function isUnknownSession(text: string): boolean {
  const what = "(?:session|conversation|thread|rollout|chat)s?";
  return (
    new RegExp(
      `\\b(?:no|unknown|invalid|cannot find|could not find|couldn't find)\\b[^\\n]{0,40}\\b${what}\\b`,
      "i",
    ).test(text) ||
    new RegExp(`\\b${what}\\b[^\\n]{0,80}\\b(?:not found|does not exist|unknown|no such)\\b`, "i").test(text)
  );
}

function jsonObject(text: string): JsonObject | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as JsonObject) : undefined;
  } catch {
    // An answer in words.
    return undefined;
  }
}
