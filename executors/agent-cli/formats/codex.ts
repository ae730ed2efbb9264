import type { JsonObject } from "@bufbuild/protobuf";
import type { SaidEvent } from "../../lib/emit.ts";
import { reasonOfText } from "../../lib/agent/final.ts";
import type { Final } from "../../lib/agent/final.ts";
import type { Format, LineReader, Reading } from "./format.ts";
import { listOf, numberOf, objectOf, textOf } from "../../lib/agent/json-of.ts";
import { call, message, outcome, status } from "./format.ts";

/** `codex exec --json`: threads of turns of items. */
export const codex: Format = {
  saysEnd: true,
  schemaBy: "file",
  reader: () => new CodexReader(),
};

export class CodexReader implements LineReader {
  #lastMessage = "";
  /** Lines of type error that were said as a status: the last one comes twice, and again as the failure. */
  #lastError = "";

  read(line: JsonObject): Reading {
    switch (line["type"]) {
      case "thread.started":
        return { sessionId: textOf(line["thread_id"]) || undefined };
      case "item.started":
      case "item.updated":
      case "item.completed":
        return this.#item(textOf(line["type"]), objectOf(line["item"]));
      case "error":
        return this.#error(textOf(line["message"]));
      case "turn.completed":
        return { usage: usageOf(objectOf(line["usage"])), final: { ok: true, text: this.#lastMessage } };
      case "turn.failed":
        return { final: failureOf(textOf(objectOf(line["error"])["message"])) };
      default:
        return {};
    }
  }

  /** Nothing was said of a turn, but of an error: its start failed. */
  end(): Final | undefined {
    return this.#lastError === "" ? undefined : failureOf(this.#lastError);
  }

  #item(when: string, item: JsonObject): Reading {
    if (item["type"] === "agent_message" && when === "item.completed") {
      this.#lastMessage = textOf(item["text"]);
      return { said: message(this.#lastMessage), answered: true };
    }
    // A warning, such as of a model that it does not know.
    if (item["type"] === "error") return when === "item.completed" ? status(textOf(item["message"])) : {};
    if (item["type"] === "todo_list") return todoList(item);
    const said = toolOf(when, item);
    return said.length === 0 ? {} : { said, answered: true };
  }

  /** It tries again, or says why it will fail: turn.failed decides. */
  #error(text: string): Reading {
    this.#lastError = text;
    return status(text);
  }
}

function toolOf(when: string, item: JsonObject): SaidEvent[] {
  const id = textOf(item["id"]);
  const tool = toolNameAndInput(item);
  if (tool === undefined || when === "item.updated") return [];
  if (when === "item.started") return [call(id, tool.name, tool.input)];
  const failed = item["status"] === "failed" || (typeof item["exit_code"] === "number" && item["exit_code"] !== 0);
  return [outcome(id, tool.name, tool.output, failed)];
}

type Tool = { name: string; input: JsonObject; output: JsonObject | string };

function toolNameAndInput(item: JsonObject): Tool | undefined {
  switch (item["type"]) {
    case "command_execution": {
      const code = numberOf(item["exit_code"]);
      const output = textOf(item["aggregated_output"]);
      const text = code === undefined || code === 0 ? output : `exit code ${code}\n${output}`;
      return { name: "shell", input: { command: textOf(item["command"]) }, output: text };
    }
    case "mcp_tool_call": {
      const error = textOf(objectOf(item["error"])["message"]);
      const blocks = listOf(objectOf(item["result"])["content"]).map(objectOf);
      const text = blocks.map((block) => textOf(block["text"]) || `[${textOf(block["type"])}]`).join("\n");
      const name = `${textOf(item["server"])}.${textOf(item["tool"])}`;
      return { name, input: objectOf(item["arguments"]), output: error || text };
    }
    case "file_change": {
      const changes = listOf(item["changes"]);
      return { name: "file_change", input: { changes }, output: textOf(item["status"]) };
    }
    case "web_search":
      return { name: "web_search", input: { query: textOf(item["query"]) }, output: "" };
    default:
      return undefined;
  }
}

function todoList(item: JsonObject): Reading {
  const items = listOf(item["items"]).map(objectOf);
  const done = items.filter(({ completed }) => completed === true).length;
  const next = items.find(({ completed }) => completed !== true);
  return status(`plan: ${done} of ${items.length} done${next === undefined ? "" : `; next: ${textOf(next["text"])}`}`);
}

/** Input from a cache is in input_tokens already. */
function usageOf(usage: JsonObject) {
  return { inputTokens: numberOf(usage["input_tokens"]), outputTokens: numberOf(usage["output_tokens"]) };
}

function failureOf(text: string): Final {
  const told = text || "the turn failed, and it did not say why";
  // A strict schema is what its provider takes; which rule is broken it says in the message of a 400.
  const reason = /invalid_json_schema|response_format/i.test(told) ? "OUTPUT_SCHEMA" : reasonOfText(told);
  return { ok: false, reason, message: told };
}
