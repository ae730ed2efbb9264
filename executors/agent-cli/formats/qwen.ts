import type { JsonObject } from "@bufbuild/protobuf";
import { ClaudeReader } from "./claude.ts";
import type { Format, LineReader, Reading } from "./format.ts";
import { numberOf, objectOf, textOf } from "../../lib/agent/json-of.ts";

/** `qwen --output-format stream-json`: as Claude's, with other names in its result, and no cost. */
export const qwen: Format = {
  saysEnd: true,
  reader: () => new QwenReader(),
  server: ({ ...server }) => {
    if (server.type === "stdio") return { command: server.command, args: server.args, env: server.env };
    return { [server.type === "http" ? "httpUrl" : "url"]: server.url, headers: server.headers, trust: true };
  },
};

class QwenReader implements LineReader {
  readonly #inner = new ClaudeReader({});

  read(line: JsonObject): Reading {
    if (line["type"] !== "result") return this.#inner.read(line);
    const error = textOf(objectOf(line["error"])["message"]);
    const data = line["structured_result"];
    const reading = this.#inner.read({
      ...line,
      ...(error !== "" && { result: error }),
      ...(data !== undefined && { structured_output: data }),
    });
    // What it takes from a cache is in input_tokens already.
    const usage = objectOf(line["usage"]);
    return {
      ...reading,
      usage: { inputTokens: numberOf(usage["input_tokens"]), outputTokens: numberOf(usage["output_tokens"]) },
    };
  }

  end(): undefined {
    return undefined;
  }
}
