import { listOf, objectOf, textOf } from "../../lib/agent/json-of.ts";
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import type { McpServerJson } from "../../../lib/invocation.ts";
import type { SaidEvent } from "../../lib/emit.ts";
import type { Final } from "../../lib/agent/final.ts";
import type { Usage } from "../../lib/agent/usage.ts";

/** What one line of an agent comes to. */
export interface Reading {
  readonly said?: readonly SaidEvent[];
  /** The agent's id of the conversation. */
  readonly sessionId?: string | undefined;
  /** The last line of the turn has it, or the line after which nothing good can come. */
  readonly final?: Final | undefined;
  /** A model has answered: it has said something, or called a tool. */
  readonly answered?: boolean;
  /** A report, which the rule of the roster's entry reads. */
  readonly usage?: Usage | undefined;
  /** Money that the whole conversation has cost so far, where the report has that of the run. */
  readonly conversationCostUsd?: number | undefined;
  /** MCP servers that do not answer, as the agent sees them. */
  readonly failedServers?: readonly string[];
}

/** Reads lines in their order. What it does not know says nothing. */
export interface LineReader {
  read(line: JsonObject): Reading;
  /**
   * The end of the turn, when no line says one: the last text, or the error that was said. Undefined: no end was said.
   */
  end(): Final | undefined;
}

/** What differs between the JSON lines of two agents, and the documents that they read. Everything else is in the roster. */
export interface Format {
  /** @param before usage of the conversation until now. */
  reader(before: Usage): LineReader;
  /** Whether a line says the end of the turn. Without one, the end of the output is the end of the turn. */
  readonly saysEnd: boolean;
  /** A server in the agent's document; absent: as `serverOf` of servers.ts has it. */
  server?(server: McpServerJson): JsonObject;
  /** Key of the servers in the agent's document; absent: `mcpServers`. */
  readonly serversKey?: string;
  /** What the flag of the schema takes; absent: the JSON. */
  readonly schemaBy?: "file";
  /** Further arguments, by the names of the run's servers. */
  args?(servers: readonly string[]): readonly string[];
}

/** The last text, and the error that no line of the end repeats. */
export class LastWords {
  text = "";
  failure: Final | undefined;

  end(): Final | undefined {
    return this.failure ?? (this.text === "" ? undefined : { ok: true, text: this.text });
  }
}

export function message(text: string): SaidEvent[] {
  return text.trim() === "" ? [] : [{ type: "message", role: "assistant", text }];
}

export function status(text: string): Reading {
  return { said: [{ type: "status", text }] };
}

/** A call of a tool that begins. */
export function call(id: string, name: string, input: JsonValue | undefined): SaidEvent {
  return { type: "tool", tool_call_id: id, name: name || "tool", input: input ?? {} };
}

/** The outcome of a call. */
export function outcome(id: string, name: string, output: JsonValue | undefined, isError: boolean): SaidEvent {
  const base = { type: "tool" as const, tool_call_id: id, name: name || "tool" };
  return isError ? { ...base, error: plainText(output) || "failed" } : { ...base, output: output ?? "" };
}

/** Names of calls by their id, for outcomes that have the id alone. */
export class Calls {
  readonly #names = new Map<string, string>();

  begin(id: string, name: string, input: JsonValue | undefined): SaidEvent[] {
    this.#names.set(id, name);
    return [call(id, name, input)];
  }

  end(id: string, output: JsonValue | undefined, isError: boolean): SaidEvent[] {
    const name = this.#names.get(id) ?? "tool";
    this.#names.delete(id);
    return [outcome(id, name, output, isError)];
  }
}

/** Text of content that is a text, or a list of blocks with texts; otherwise its JSON. */
export function plainText(value: JsonValue | undefined): string {
  if (value === undefined || value === null) return "";
  if (typeof value === "string") return value;
  if (!Array.isArray(value)) return JSON.stringify(value);
  return value
    .map(objectOf)
    .map((block) => (typeof block["text"] === "string" ? block["text"] : `[${textOf(block["type"]) || "data"}]`))
    .join("\n");
}

/** Texts of the blocks of type `text` alone. */
export function spokenText(content: JsonValue | undefined): string {
  if (typeof content === "string") return content;
  return listOf(content)
    .map(objectOf)
    .filter((block) => block["type"] === "text")
    .map((block) => textOf(block["text"]))
    .join("\n");
}

/** The sum of those that are known; undefined when none is. */
export function sumOf(...values: readonly unknown[]): number | undefined {
  const known = values.filter((value) => typeof value === "number");
  return known.length === 0 ? undefined : known.reduce((sum, value) => sum + value, 0);
}
