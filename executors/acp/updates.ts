import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import type { SaidEvent, UsageEvent } from "../lib/emit.ts";

/** Text of one message that is collected before it is said: an agent streams it in words. */
const MESSAGE_MAX_CHARACTERS = 256 * 1024;

/** Output of one tool call that is said; the transcript is no place for more. */
const TOOL_OUTPUT_MAX_CHARACTERS = 256 * 1024;

/** Turns the updates of a session (`session/update`, protocol version 1) into events. What it does not know says nothing. */
export class Updates {
  readonly #calls = new Map<string, { name: string; said: boolean }>();
  #text = "";
  #answer = "";
  #usage: UsageEvent = {};

  /** Events of one update. */
  read(update: unknown): SaidEvent[] {
    const object = objectOf(update);
    const type = object["sessionUpdate"];
    if (type === "agent_message_chunk") return this.#chunk(objectOf(object["content"]));
    // A thought is not said to anybody; it neither ends a message nor counts as an answer.
    if (type === "agent_thought_chunk") return [];
    const before = this.flush();
    switch (type) {
      case "tool_call":
      case "tool_call_update":
        return [...before, ...this.#toolCall(object)];
      case "plan":
        return [...before, ...planOf(object)];
      case "usage_update":
        return [...before, ...this.#usageUpdate(object)];
      case "current_mode_update":
        return [...before, { type: "status", text: `mode ${textOf(object["currentModeId"])}` }];
      default:
        return before;
    }
  }

  /** What was collected of a message. */
  flush(): SaidEvent[] {
    const text = this.#text;
    this.#text = "";
    if (text.trim() === "") return [];
    this.#answer = text;
    return [{ type: "message", role: "assistant", text }];
  }

  /** The last message. */
  get answer(): string {
    return this.#answer;
  }

  /** Totals of the turn: what the answer to the prompt says, and the cost of earlier updates. */
  usage(reported: unknown): SaidEvent[] {
    const usage = objectOf(reported);
    this.#usage = {
      ...this.#usage,
      ...(typeof usage["inputTokens"] === "number" && { input_tokens: withCache(usage) }),
      ...(typeof usage["outputTokens"] === "number" && { output_tokens: usage["outputTokens"] }),
    };
    return Object.keys(this.#usage).length === 0 ? [] : [{ type: "usage", ...this.#usage }];
  }

  #chunk(content: JsonObject): SaidEvent[] {
    if (content["type"] !== "text") return [];
    this.#text += textOf(content["text"]);
    return this.#text.length < MESSAGE_MAX_CHARACTERS ? [] : this.flush();
  }

  #toolCall(call: JsonObject): SaidEvent[] {
    const id = textOf(call["toolCallId"]);
    if (id === "") return [];
    const known = this.#calls.get(id) ?? { name: "", said: false };
    known.name = textOf(call["title"]) || known.name || textOf(call["kind"]) || "tool";
    this.#calls.set(id, known);
    const said: SaidEvent[] = [];
    if (!known.said) {
      known.said = true;
      said.push({ type: "tool", tool_call_id: id, name: known.name, input: call["rawInput"] ?? {} });
    }
    const { status } = call;
    if (status !== "completed" && status !== "failed") return said;
    this.#calls.delete(id);
    const output = outputOf(call).slice(0, TOOL_OUTPUT_MAX_CHARACTERS);
    const outcome = status === "failed" ? { error: output || "failed" } : { output };
    return [...said, { type: "tool", tool_call_id: id, name: known.name, ...outcome }];
  }

  #usageUpdate(update: JsonObject): SaidEvent[] {
    const cost = objectOf(update["cost"]);
    if (typeof cost["amount"] !== "number" || cost["currency"] !== "USD") return [];
    this.#usage = { ...this.#usage, cost_usd: cost["amount"] };
    return [];
  }
}

function withCache(usage: JsonObject): number {
  const keys = ["inputTokens", "cachedReadTokens", "cachedWriteTokens"];
  return keys.reduce((sum, key) => sum + (typeof usage[key] === "number" ? usage[key] : 0), 0);
}

function outputOf(call: JsonObject): string {
  const blocks = listOf(call["content"]).map(objectOf);
  const texts = blocks.flatMap((block) => {
    if (block["type"] === "content") return [textOf(objectOf(block["content"])["text"])];
    if (block["type"] === "diff") return [`changed ${textOf(block["path"])}`];
    return [];
  });
  if (texts.some((text) => text !== "")) return texts.join("\n");
  const raw = call["rawOutput"];
  if (raw === undefined || raw === null) return "";
  return typeof raw === "string" ? raw : JSON.stringify(raw);
}

function planOf(plan: JsonObject): SaidEvent[] {
  const entries = listOf(plan["entries"]).map(objectOf);
  const current =
    entries.find(({ status }) => status === "in_progress") ?? entries.find(({ status }) => status === "pending");
  if (current === undefined) return [];
  const done = entries.filter(({ status }) => status === "completed").length;
  return [{ type: "status", text: `plan, ${done} of ${entries.length} done: ${textOf(current["content"])}` }];
}

function objectOf(value: unknown): JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as JsonObject) : {};
}

function listOf(value: unknown): JsonValue[] {
  return Array.isArray(value) ? value : [];
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : "";
}
