import type { JsonObject } from "@bufbuild/protobuf";
import { cutText } from "../../lib/protocol/limits.ts";
import type { SaidEvent } from "../lib/emit.ts";
import { eventId, eventName, eventValue } from "../lib/agent/event-values.ts";
import { listOf, objectOf, textOf } from "../lib/agent/json-of.ts";

/** Text of one event: an agent streams a message in words, and what is longer is said in parts. */
const MESSAGE_MAX_BYTES = 256 * 1024;

/** The last message, which becomes the result; a runner keeps 256 KiB of that, and says so. */
const ANSWER_MAX_BYTES = 512 * 1024;

/** Output of one tool call that is said; the transcript is no place for more. */
const OUTPUT_MAX_BYTES = 128 * 1024;

/** Input of one tool call that is said. */
const INPUT_MAX_BYTES = 64 * 1024;

/** Calls that have begun and not ended; of more the name is forgotten. */
const OPEN_CALLS_MAX = 10_000;

/** One step of a plan, a mode, and the like. */
const STATUS_MAX_BYTES = 1024;

/** Turns the updates of a session (`session/update`, protocol version 1) into events. What it does not know says nothing. */
export class Updates {
  readonly #calls = new Map<string, string>();
  readonly #message = new Message();
  #toolCalls = 0;

  /** Events of one update. */
  read(update: unknown): SaidEvent[] {
    const object = objectOf(update);
    switch (object["sessionUpdate"]) {
      case "agent_message_chunk":
        return this.#chunk(object);
      case "tool_call":
      case "tool_call_update":
        return [...this.flush(), ...this.#toolCall(object)];
      case "plan":
        return [...this.flush(), ...planOf(object)];
      case "current_mode_update":
        return [status(`mode ${textOf(object["currentModeId"])}`)];
      default:
        // A thought is not said to anybody; it neither ends a message nor counts as an answer. Titles, lists of commands and
        // the like come between the words of a message as well.
        return [];
    }
  }

  /** What is left of the message that was being said. For the end of the turn. */
  flush(): SaidEvent[] {
    return said(this.#message.end());
  }

  /** The last message. */
  get answer(): string {
    return this.#message.last;
  }

  /** The last piece that came of it. */
  get lastPiece(): string {
    return this.#message.lastPiece;
  }

  /** Calls of tools so far. */
  get toolCalls(): number {
    return this.#toolCalls;
  }

  /** What a call was named when it was announced; undefined for one that was not. */
  nameOf(toolCallId: string): string | undefined {
    return this.#calls.get(eventId(toolCallId));
  }

  #chunk({ content, messageId }: JsonObject): SaidEvent[] {
    const block = objectOf(content);
    if (block["type"] !== "text") return [];
    return said([...this.#message.begin(textOf(messageId)), ...this.#message.add(textOf(block["text"]))]);
  }

  #toolCall(call: JsonObject): SaidEvent[] {
    const id = eventId(textOf(call["toolCallId"]));
    if (id === "") return [];
    const before = this.#calls.get(id);
    const name = eventName(textOf(call["title"]) || textOf(call["name"])) || before || textOf(call["kind"]) || "tool";
    const events: SaidEvent[] = [];
    if (before === undefined) {
      this.#toolCalls += 1;
      const input = eventValue(inputOf(call), INPUT_MAX_BYTES);
      events.push({ type: "tool", tool_call_id: id, name, input });
    }
    const { status } = call;
    if (status !== "completed" && status !== "failed") {
      if (before !== undefined || this.#calls.size < OPEN_CALLS_MAX) this.#calls.set(id, before ?? name);
      return events;
    }
    this.#calls.delete(id);
    const output = cutText(outputOf(call), OUTPUT_MAX_BYTES);
    const outcome = status === "failed" ? { error: output || "failed" } : { output };
    return [...events, { type: "tool", tool_call_id: id, name: before ?? name, ...outcome }];
  }
}

/** A message as it comes, in pieces. */
class Message {
  /** The last message that was not empty. */
  last = "";
  lastPiece = "";
  #id = "";
  #open = false;
  /** What is not said yet. */
  #unsaid = "";
  #unsaidBytes = 0;
  #lastBytes = 0;

  /** The texts to be said because another message begins; "" is an id that the agent does not tell. */
  begin(id: string): string[] {
    const before = id !== this.#id && this.#open ? this.end() : [];
    this.#id = id;
    return before;
  }

  /** The texts to be said because enough has come. */
  add(piece: string): string[] {
    if (!this.#open && piece.trim() === "") return [];
    if (!this.#open) {
      this.last = "";
      this.#lastBytes = 0;
    }
    this.#open = true;
    this.lastPiece = piece;
    const bytes = Buffer.byteLength(piece);
    if (this.#lastBytes < ANSWER_MAX_BYTES) this.last += cutText(piece, ANSWER_MAX_BYTES);
    this.#lastBytes += bytes;
    const before = this.#unsaidBytes + bytes > MESSAGE_MAX_BYTES ? this.#take() : [];
    this.#unsaid += cutText(piece, MESSAGE_MAX_BYTES);
    this.#unsaidBytes += bytes;
    return before;
  }

  end(): string[] {
    this.#open = false;
    return this.#take();
  }

  #take(): string[] {
    const text = this.#unsaid;
    this.#unsaid = "";
    this.#unsaidBytes = 0;
    return text.trim() === "" ? [] : [text];
  }
}

function said(texts: readonly string[]): SaidEvent[] {
  return texts.map((text) => ({ type: "message", role: "assistant", text }));
}

function status(text: string): SaidEvent {
  return { type: "status", text: cutText(text, STATUS_MAX_BYTES) };
}

/** Some tell the input as JSON in the text that a person would be shown. */
function inputOf(call: JsonObject): unknown {
  if (call["rawInput"] !== undefined && call["rawInput"] !== null) return call["rawInput"];
  const shown = textOf(objectOf(objectOf(listOf(call["content"])[0])["content"])["text"]);
  if (!shown.startsWith("{") || call["status"] === "completed" || call["status"] === "failed") return {};
  try {
    return JSON.parse(shown) as unknown;
  } catch {
    // A text for people after all.
    return {};
  }
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
  return typeof raw === "string" ? raw : JSON.stringify(eventValue(raw, OUTPUT_MAX_BYTES));
}

function planOf(plan: JsonObject): SaidEvent[] {
  const entries = listOf(plan["entries"]).map(objectOf);
  const current =
    entries.find(({ status }) => status === "in_progress") ?? entries.find(({ status }) => status === "pending");
  if (current === undefined) return [];
  const done = entries.filter(({ status }) => status === "completed").length;
  return [status(`plan, ${done} of ${entries.length} done: ${textOf(current["content"])}`)];
}
