import type { JsonObject } from "@bufbuild/protobuf";
import { reasonOfStatus, reasonOfText } from "../../lib/agent/final.ts";
import type { Final } from "../../lib/agent/final.ts";
import type { Format, LineReader, Reading } from "./format.ts";
import { numberOf, objectOf, textOf } from "../../lib/agent/json-of.ts";
import { LastWords, call, message, outcome, sumOf } from "./format.ts";

/** `opencode run --format json`: parts of messages, each when it is done. No line says the end. */
export const opencode: Format = {
  saysEnd: false,
  reader: () => new OpencodeReader(),
  serversKey: "mcp",
  server: (server) => {
    if (server.type !== "stdio") return { type: "remote", url: server.url, headers: server.headers, oauth: false };
    return { type: "local", command: [server.command, ...server.args], environment: server.env };
  },
};

class OpencodeReader implements LineReader {
  readonly #last = new LastWords();

  read(line: JsonObject): Reading {
    return { sessionId: textOf(line["sessionID"]) || undefined, ...this.#read(line) };
  }

  end(): Final | undefined {
    return this.#last.end();
  }

  #read(line: JsonObject): Reading {
    const part = objectOf(line["part"]);
    switch (line["type"]) {
      case "text": {
        const text = textOf(part["text"]);
        if (text !== "") this.#last.text = text;
        return { said: message(text), answered: true };
      }
      case "tool_use": {
        const [id, name, state] = [textOf(part["callID"]), textOf(part["tool"]), objectOf(part["state"])];
        const failed = state["status"] === "error";
        const output = failed ? (state["error"] ?? state["output"]) : state["output"];
        return { said: [call(id, name, state["input"]), outcome(id, name, output, failed)], answered: true };
      }
      case "step_finish":
        return { usage: usageOf(part) };
      case "error":
        this.#last.failure = failureOf(objectOf(line["error"]));
        return { final: this.#last.failure };
      default:
        return {};
    }
  }
}

/** Of one step; what is read from or written to a cache is input as well. */
function usageOf(part: JsonObject) {
  const tokens = objectOf(part["tokens"]);
  const cache = objectOf(tokens["cache"]);
  return {
    inputTokens: sumOf(tokens["input"], cache["read"], cache["write"]),
    outputTokens: sumOf(tokens["output"], tokens["reasoning"]),
    costUsd: numberOf(part["cost"]),
  };
}

function failureOf(error: JsonObject): Final {
  const data = objectOf(error["data"]);
  const text = textOf(data["message"]) || textOf(error["name"]) || "an error that it did not explain";
  const code = numberOf(data["statusCode"]);
  return { ok: false, reason: code === undefined ? reasonOfText(text) : reasonOfStatus(code), message: text };
}
