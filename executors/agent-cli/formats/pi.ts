import type { JsonObject } from "@bufbuild/protobuf";
import { reasonOfText } from "../../lib/agent/final.ts";
import type { Format, LineReader, Reading } from "./format.ts";
import { numberOf, objectOf, textOf } from "../../lib/agent/json-of.ts";
import { LastWords, call, message, outcome, plainText, spokenText, status, sumOf } from "./format.ts";

/** `pi -p --mode json`: it exits 0 after every error, so that `stopReason` of the last message decides. */
export const pi: Format = {
  saysEnd: true,
  reader: () => new PiReader(),
};

class PiReader implements LineReader {
  readonly #last = new LastWords();

  read(line: JsonObject): Reading {
    const [id, name] = [textOf(line["toolCallId"]), textOf(line["toolName"])];
    switch (line["type"]) {
      case "session":
        return { sessionId: textOf(line["id"]) || undefined };
      case "message_end":
        return this.#message(objectOf(line["message"]));
      case "tool_execution_start":
        return { said: [call(id, name, line["args"])] };
      case "tool_execution_end": {
        const output = plainText(objectOf(line["result"])["content"]);
        return { said: [outcome(id, name, output, line["isError"] === true)] };
      }
      case "auto_retry_start":
        return status(`attempt ${numberOf(line["attempt"]) ?? "another"} follows: ${textOf(line["errorMessage"])}`);
      case "agent_settled":
        return { final: this.#last.end() };
      default:
        return {};
    }
  }

  end(): undefined {
    return undefined;
  }

  #message(said: JsonObject): Reading {
    if (said["role"] !== "assistant") return {};
    const text = spokenText(said["content"]);
    if (said["stopReason"] === "error" || said["stopReason"] === "aborted") {
      const why = textOf(said["errorMessage"]) || `it stopped: ${said["stopReason"]}`;
      // "terminated" is all that it says of a stream that broke off.
      const reason = why === "terminated" ? "MODEL_UNREACHABLE" : reasonOfText(why);
      this.#last.failure = { ok: false, reason, message: why };
      return { said: message(text), usage: usageOf(objectOf(said["usage"])) };
    }
    // An attempt after an error that succeeds.
    this.#last.failure = undefined;
    if (text !== "") this.#last.text = text;
    return { said: message(text), usage: usageOf(objectOf(said["usage"])), answered: true };
  }
}

/** Of one message; what is read from or written to a cache is input as well. */
function usageOf(usage: JsonObject) {
  return {
    inputTokens: sumOf(usage["input"], usage["cacheRead"], usage["cacheWrite"]),
    outputTokens: numberOf(usage["output"]),
    costUsd: numberOf(objectOf(usage["cost"])["total"]),
  };
}
