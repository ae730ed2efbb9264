import type { JsonObject } from "@bufbuild/protobuf";
import { reasonOfText } from "../../lib/agent/final.ts";
import type { Final } from "../../lib/agent/final.ts";
import type { Format, LineReader, Reading } from "./format.ts";
import { listOf, objectOf, textOf } from "../../lib/agent/json-of.ts";
import { Calls, LastWords, message, plainText, spokenText, status } from "./format.ts";

/** `kimi --output-format stream-json`: messages as of a chat; the last line has the id of the conversation. */
export const kimi: Format = {
  saysEnd: false,
  reader: () => new KimiReader(),
};

class KimiReader implements LineReader {
  readonly #calls = new Calls();
  readonly #last = new LastWords();

  read(line: JsonObject): Reading {
    switch (line["role"]) {
      case "assistant":
        return this.#assistant(line);
      case "tool":
        return {
          said: this.#calls.end(textOf(line["tool_call_id"]), plainText(line["content"]), line["is_error"] === true),
        };
      case "meta":
        return this.#meta(line);
      default:
        return {};
    }
  }

  end(): Final | undefined {
    return this.#last.end();
  }

  #assistant(line: JsonObject): Reading {
    const text = spokenText(line["content"]);
    if (text !== "") this.#last.text = text;
    const calls = listOf(line["tool_calls"]).map(objectOf);
    const begun = calls.flatMap((one) => {
      const { name, arguments: input } = objectOf(one["function"]);
      return this.#calls.begin(textOf(one["id"]), textOf(name), inputOf(textOf(input)));
    });
    return { said: [...message(text), ...begun], answered: text !== "" || calls.length > 0 };
  }

  #meta(line: JsonObject): Reading {
    const type = textOf(line["type"]);
    if (type === "session.resume_hint") return { sessionId: sessionIdOf(line) };
    if (type === "turn.step.retrying")
      return status(`it tries again: ${textOf(line["error_message"]) || textOf(line["message"])}`);
    if (!/error|failed/.test(type)) return {};
    const text = textOf(line["message"]) || textOf(objectOf(line["error"])["message"]) || type;
    this.#last.failure = { ok: false, reason: reasonOfText(text), message: text };
    return {};
  }
}

function sessionIdOf(line: JsonObject): string | undefined {
  const named = textOf(line["session_id"]) || textOf(line["sessionId"]);
  if (named !== "") return named;
  // The hint is a sentence with the command that resumes.
  return /\s-(?:S|r|-session|-resume)[ =](\S+)/.exec(` ${textOf(line["command"]) || textOf(line["content"])}`)?.[1];
}

function inputOf(text: string): JsonObject | string {
  try {
    return JSON.parse(text) as JsonObject;
  } catch {
    // Arguments that the model did not finish.
    return text;
  }
}
