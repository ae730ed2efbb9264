import { AgentError } from "../lib/agent/agent-error.ts";
import type { AgentErrorReason } from "../lib/agent/agent-error.ts";
import { reasonOfStatus, reasonOfText } from "../lib/agent/final.ts";
import { objectOf, textOf } from "../lib/agent/json-of.ts";

/** What an agent answers instead of a result: an error of JSON-RPC. */
export interface RpcFailure {
  readonly code: number;
  readonly message: string;
  readonly data?: unknown;
}

/** A request of ours that may fail. */
export type Step = "initialize" | "begin" | "resume" | "configure" | "prompt";

/** Codes of JSON-RPC and of the protocol. */
const METHOD_NOT_FOUND = -32_601;
const AUTH_REQUIRED = -32_000;
const NOT_FOUND = -32_002;

/** Longest text of an error that is shown. */
const MESSAGE_MAX = 1000;

/** How agents say that they do not know a conversation, where they do not use the code for it. */
const UNKNOWN =
  /\b(session|conversation|thread)\b.*\b(not (be )?found|unknown|does not exist|no longer|not exist)|\b(no|unknown|invalid|find|load) (\w+ )?(session(s|id)?|conversation|thread)\b/i;

/** The error of the run: by the code where it has a meaning, otherwise by the words. */
export function agentErrorOf(failure: RpcFailure, step: Step, label: string): AgentError {
  const said = saidBy(failure);
  const reason = reasonOf(failure, step, said);
  switch (reason) {
    case "UNKNOWN_SESSION":
      return new AgentError(reason, `${label} does not know the conversation: ${said}; start a new session`);
    case "AGENT_VERSION":
      return new AgentError(reason, `${label} cannot do what is asked of it (${step}): ${said}`);
    default:
      return new AgentError(reason, `${label}: ${said}`);
  }
}

function reasonOf({ code, data }: RpcFailure, step: Step, said: string): AgentErrorReason {
  // One tells only which part of it has failed.
  const isUnknown = code === NOT_FOUND || UNKNOWN.test(said) || objectOf(data)["service"] === "session";
  if (step === "resume" && isUnknown) return "UNKNOWN_SESSION";
  if (code >= 400 && code < 600) return reasonOfStatus(code);
  if (code === METHOD_NOT_FOUND) return "AGENT_VERSION";
  const byText = reasonOfText(said);
  return code === AUTH_REQUIRED && byText === "AGENT_FAILED" ? "NOT_LOGGED_IN" : byText;
}

/** Its message and what it adds to it: some say only "Internal error" in the message. */
function saidBy({ message, data, code }: RpcFailure): string {
  const more = objectOf(data);
  const nested = objectOf(more["error"]);
  const details = [textOf(data), textOf(more["details"]), textOf(more["message"]), textOf(nested["message"])];
  const detail = details.find((text) => text !== "" && !message.includes(text));
  const text = [message, detail].filter((one) => one !== undefined && one !== "").join(": ");
  return (text === "" ? `error ${code}` : text).replaceAll(/\s+/g, " ").slice(0, MESSAGE_MAX).toWellFormed();
}
