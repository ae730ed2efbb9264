import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import type { SaidEvent } from "../lib/emit.ts";
import { listOf, objectOf, textOf } from "../lib/agent/json-of.ts";
import { reasonOfStatus, reasonOfText } from "../lib/agent/final.ts";
import type { Final } from "../lib/agent/final.ts";

/** What one message of the agent comes to. */
export interface Reading {
  readonly said: readonly SaidEvent[];
  /** The last message of the turn has it. */
  readonly final?: Final;
  /** Names of MCP servers that do not answer, as the agent saw them at its start. */
  readonly failedServers?: readonly string[];
  /** A model has answered. */
  readonly answered?: boolean;
  /** Money that the conversation has cost so far. */
  readonly costUsd?: number;
}

const NOTHING: Reading = { said: [] };

export interface TranscriptTerms {
  /** Money that the conversation had cost at the end of its last run: the agent reports the sum of all. */
  readonly costBeforeUsd?: number;
}

/** Names of the tools that are being called, by the id of the call: an outcome has the id alone. */
type Calls = Map<string, string>;

/** Reads the messages of the agent's SDK in their order. What it does not know says nothing. */
export class Transcript {
  readonly #calls: Calls = new Map();
  readonly #terms: TranscriptTerms;

  constructor(terms: TranscriptTerms = {}) {
    this.#terms = terms;
  }

  read(message: unknown): Reading {
    const object = objectOf(message);
    switch (object["type"]) {
      case "system":
        return readSystem(object);
      case "assistant":
        return readAssistant(object, this.#calls);
      case "user":
        return { said: blocksOf(object).flatMap((block) => readToolResult(block, this.#calls)) };
      case "rate_limit_event":
        return readRateLimit(objectOf(object["rate_limit_info"]));
      case "result":
        return readResult(object, this.#terms);
      default:
        return NOTHING;
    }
  }
}

function readSystem(system: JsonObject): Reading {
  switch (system["subtype"]) {
    case "init": {
      const servers = listOf(system["mcp_servers"]).map(objectOf);
      const failed = servers.filter(({ status }) => status === "failed" || status === "needs-auth");
      const said: SaidEvent[] = [{ type: "session", executor_session_id: textOf(system["session_id"]) }];
      return { said, failedServers: failed.map(({ name, status }) => `${textOf(name)} (${textOf(status)})`) };
    }
    case "api_retry": {
      const status = system["error_status"];
      const why =
        typeof status === "number" ? `the model's provider answered ${status}` : "the model's provider broke off";
      const delayMs = Number(system["retry_delay_ms"] ?? 0);
      return status_(`${why}; attempt ${numberText(system["attempt"])} follows in ${Math.ceil(delayMs / 1000)} s`);
    }
    case "compact_boundary":
      return status_("the conversation is summarized, because it has become long");
    default:
      return NOTHING;
  }
}

/** Text of a sub-agent is no answer of the agent: it is shown as what goes on. */
function readAssistant(assistant: JsonObject, calls: Calls): Reading {
  const isSub = typeof assistant["parent_tool_use_id"] === "string";
  const message = objectOf(assistant["message"]);
  // An error of the provider comes as a message of a model that does not exist.
  const answered = message["model"] !== "<synthetic>" && assistant["error"] === undefined;
  const said = blocksOf(assistant).flatMap((block): SaidEvent[] => {
    if (block["type"] === "text" && textOf(block["text"]) !== "") {
      const text = textOf(block["text"]);
      return isSub ? [{ type: "status", text: `sub-agent: ${text}` }] : [{ type: "message", role: "assistant", text }];
    }
    if (block["type"] === "tool_use") {
      const [id, name] = [textOf(block["id"]), textOf(block["name"])];
      calls.set(id, name);
      return [{ type: "tool", tool_call_id: id, name, input: block["input"] ?? {} }];
    }
    return [];
  });
  return { said, answered };
}

function readToolResult(block: JsonObject, calls: Calls): SaidEvent[] {
  if (block["type"] !== "tool_result") return [];
  const id = textOf(block["tool_use_id"]);
  const output = toolText(block["content"]);
  // An earlier run may have called it, when this one resumes in the middle of a turn.
  const name = calls.get(id) ?? "tool";
  calls.delete(id);
  return [{ type: "tool", tool_call_id: id, name, ...(block["is_error"] === true ? { error: output } : { output }) }];
}

/** Blocks of text become one text; a picture is named, not printed. */
function toolText(content: JsonValue | undefined): string {
  if (typeof content === "string") return content;
  return listOf(content)
    .map(objectOf)
    .map((block) => (block["type"] === "text" ? textOf(block["text"]) : `[${textOf(block["type"])}]`))
    .join("\n");
}

function readRateLimit(info: JsonObject): Reading {
  if (info["status"] === "allowed") return NOTHING;
  const resetsAt = info["resetsAt"];
  const until = typeof resetsAt === "number" ? `; it is free again at ${new Date(resetsAt * 1000).toISOString()}` : "";
  const what = textOf(info["rateLimitType"]) || "usage";
  return status_(
    info["status"] === "rejected"
      ? `the ${what} limit is used up${until}`
      : `the ${what} limit is nearly used up${until}`,
  );
}

/** By `is_error`: an error of the provider has the subtype "success" too. */
function readResult(result: JsonObject, { costBeforeUsd = 0 }: TranscriptTerms): Reading {
  const said: SaidEvent[] = [usageOf(result, costBeforeUsd)];
  const total = result["total_cost_usd"];
  const spent = typeof total === "number" ? { costUsd: total } : {};
  if (result["is_error"] !== true && result["subtype"] === "success") {
    const data = result["structured_output"];
    const final: Final = {
      ok: true,
      text: textOf(result["result"]),
      data: data === undefined ? undefined : dataOf(data),
    };
    return { said, final, ...spent };
  }
  return { said, final: failureOf(result), ...spent };
}

function failureOf(result: JsonObject): Final {
  const text = textOf(result["result"]) || listOf(result["errors"]).map(textOf).join("; ");
  const turns = numberText(result["num_turns"]);
  switch (result["subtype"]) {
    case "error_max_turns":
      return { ok: false, reason: "LIMIT_REACHED", message: `not done at turn ${turns}: max_turns allows no more` };
    case "error_max_budget_usd": {
      const spent = numberText(result["total_cost_usd"]);
      return { ok: false, reason: "LIMIT_REACHED", message: `not done at ${spent} USD: max_budget_usd allows no more` };
    }
    case "error_max_structured_output_retries":
      return { ok: false, reason: "OUTPUT_SCHEMA", message: `no result fits the output schema; ${text}` };
    default: {
      if (text.startsWith("No conversation found")) {
        const message = `${text}; its files are not in this session's private folder: start a new session`;
        return { ok: false, reason: "UNKNOWN_SESSION", message };
      }
      const status = result["api_error_status"];
      const reason = typeof status === "number" ? reasonOfStatus(status) : reasonOfText(text);
      return { ok: false, reason, message: text || `the agent ended with ${textOf(result["subtype"]) || "an error"}` };
    }
  }
}

function usageOf(result: JsonObject, costBeforeUsd: number): SaidEvent {
  const usage = objectOf(result["usage"]);
  // What is read from or written to the provider's cache is input as well.
  const inputs = ["input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"].map((key) => usage[key]);
  const input = inputs.reduce<number>((sum, value) => sum + (typeof value === "number" ? value : 0), 0);
  const cost = result["total_cost_usd"];
  const models = Object.keys(objectOf(result["modelUsage"]));
  return {
    type: "usage",
    ...(typeof usage["input_tokens"] === "number" && { input_tokens: input }),
    ...(typeof usage["output_tokens"] === "number" && { output_tokens: usage["output_tokens"] }),
    ...(typeof cost === "number" && { cost_usd: Math.max(0, cost - costBeforeUsd) }),
    ...(models[0] !== undefined && { model: models[0] }),
  };
}

function blocksOf(message: JsonObject): JsonObject[] {
  const { content } = objectOf(message["message"]);
  if (typeof content === "string") return [{ type: "text", text: content }];
  return listOf(content).map(objectOf);
}

/** A result is an object for programs; a schema may ask for something else. */
function dataOf(value: JsonValue): JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? value : { value };
}

function status_(text: string): Reading {
  return { said: [{ type: "status", text }] };
}

function numberText(value: unknown): string {
  return typeof value === "number" ? String(value) : "?";
}
