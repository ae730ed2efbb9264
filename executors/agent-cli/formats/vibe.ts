import type { JsonObject } from "@bufbuild/protobuf";
import { reasonOfText } from "../../lib/agent/final.ts";
import type { Final } from "../../lib/agent/final.ts";
import type { Format, LineReader, Reading } from "./format.ts";
import { objectOf, textOf } from "../../lib/agent/json-of.ts";
import { LastWords, call, message, outcome, plainText, spokenText } from "./format.ts";

/** `vibe -p --output streaming`: entries of the conversation, which may come again when they have changed. No line says the end. */
export const vibe: Format = {
  saysEnd: false,
  reader: () => new VibeReader(),
  serversKey: "mcp_servers",
  server: (server) => {
    if (server.type !== "stdio") return { transport: "streamable-http", url: server.url, headers: server.headers };
    return { transport: "stdio", command: server.command, args: server.args, env: server.env };
  },
};

class VibeReader implements LineReader {
  readonly #last = new LastWords();
  /** Ids of entries that were said: `begun` or `done`. */
  readonly #said = new Map<string, "begun" | "done">();

  read(line: JsonObject): Reading {
    return { sessionId: textOf(line["sessionId"]) || undefined, ...this.#read(line) };
  }

  end(): Final | undefined {
    return this.#last.end();
  }

  #read(line: JsonObject): Reading {
    if (line["type"] === "effect") return this.#effect(line);
    if (line["type"] !== "message" || line["role"] !== "assistant") return {};
    const id = textOf(line["id"]);
    const outcome_ = objectOf(line["outcome"]);
    if (outcome_["type"] === "failed" || outcome_["type"] === "error") {
      const text = textOf(outcome_["message"]) || plainText(line["content"]);
      this.#last.failure = { ok: false, reason: reasonOfText(text), message: text };
      return {};
    }
    // A message that is being made is said when it is whole.
    if (this.#said.has(id) || !isSettled(line["generationStatus"])) return {};
    this.#said.set(id, "done");
    const text = spokenText(line["content"]);
    if (text !== "") this.#last.text = text;
    return { said: message(text), answered: text !== "" };
  }

  #effect(line: JsonObject): Reading {
    const [id, detail, state] = [textOf(line["id"]), objectOf(line["detail"]), objectOf(line["state"])];
    const name = textOf(detail["toolName"]) || textOf(line["title"]);
    const said = [];
    if (!this.#said.has(id)) {
      this.#said.set(id, "begun");
      said.push(call(id, name, detail["input"]));
    }
    const isDone = state["status"] !== undefined && !/^(pending|running|in_progress)$/.test(textOf(state["status"]));
    if (isDone && this.#said.get(id) === "begun") {
      this.#said.set(id, "done");
      const output = textOf(state["outputText"]) || state["output"] || textOf(state["error"]);
      said.push(outcome(id, name, output, state["status"] !== "completed"));
    }
    return { said, answered: true };
  }
}

function isSettled(generationStatus: unknown): boolean {
  return generationStatus === undefined || generationStatus === "completed";
}
