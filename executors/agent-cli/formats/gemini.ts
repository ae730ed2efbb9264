import type { JsonObject } from "@bufbuild/protobuf";
import type { SaidEvent } from "../../lib/emit.ts";
import { reasonOfText } from "../../lib/agent/final.ts";
import type { Format, LineReader, Reading } from "./format.ts";
import { numberOf, objectOf, textOf } from "../../lib/agent/json-of.ts";
import { Calls, message, status } from "./format.ts";

/** Text of one message that is collected before it is said: it comes in words. */
const MESSAGE_MAX_CHARACTERS = 256 * 1024;

/** `gemini --output-format stream-json`. */
export const gemini: Format = {
  saysEnd: true,
  reader: () => new GeminiReader(),
  server: (server) => {
    if (server.type === "stdio") return { command: server.command, args: server.args, env: server.env, trust: true };
    return { [server.type === "http" ? "httpUrl" : "url"]: server.url, headers: server.headers, trust: true };
  },
};

class GeminiReader implements LineReader {
  readonly #calls = new Calls();
  #collected = "";
  #last = "";

  read(line: JsonObject): Reading {
    const isMore = line["type"] === "message" && line["role"] === "assistant" && line["delta"] === true;
    if (isMore) {
      this.#collected += textOf(line["content"]);
      return { said: this.#collected.length < MESSAGE_MAX_CHARACTERS ? [] : this.#flush(), answered: true };
    }
    const before = this.#flush();
    const { said = [], ...rest } = this.#read(line);
    return { ...rest, said: [...before, ...said] };
  }

  end(): undefined {
    return undefined;
  }

  #read(line: JsonObject): Reading {
    switch (line["type"]) {
      case "init":
        return { sessionId: textOf(line["session_id"]) || undefined };
      case "message": {
        if (line["role"] !== "assistant") return {};
        this.#last = textOf(line["content"]);
        return { said: message(this.#last), answered: true };
      }
      case "tool_use": {
        const said = this.#calls.begin(textOf(line["tool_id"]), textOf(line["tool_name"]), line["parameters"]);
        return { said, answered: true };
      }
      case "tool_result": {
        const failed = line["status"] !== "success";
        const output = failed ? textOf(objectOf(line["error"])["message"]) || line["output"] : line["output"];
        return { said: this.#calls.end(textOf(line["tool_id"]), output, failed) };
      }
      case "error":
        return status(textOf(line["message"]));
      case "result":
        return this.#result(line);
      default:
        return {};
    }
  }

  #result(line: JsonObject): Reading {
    const stats = objectOf(line["stats"]);
    const usage = { inputTokens: numberOf(stats["input_tokens"]), outputTokens: numberOf(stats["output_tokens"]) };
    if (line["status"] === "success") return { usage, final: { ok: true, text: this.#last } };
    const text = textOf(objectOf(line["error"])["message"]) || `its result is ${textOf(line["status"])}`;
    return { usage, final: { ok: false, reason: reasonOfText(text), message: text } };
  }

  #flush(): SaidEvent[] {
    const text = this.#collected;
    this.#collected = "";
    if (text !== "") this.#last = text;
    return message(text);
  }
}
