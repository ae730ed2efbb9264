import type { JsonObject } from "@bufbuild/protobuf";
import { reasonOfStatus, reasonOfText } from "../../lib/agent/final.ts";
import type { Final } from "../../lib/agent/final.ts";
import type { Format, LineReader, Reading } from "./format.ts";
import { listOf, numberOf, objectOf, textOf } from "../../lib/agent/json-of.ts";
import { Calls, LastWords, message, status } from "./format.ts";

/** `copilot --output-format json`: events, of which those marked as ephemeral are said again as a whole. */
export const copilot: Format = {
  saysEnd: true,
  reader: () => new CopilotReader(),
  server: (server) => {
    if (server.type !== "stdio") return { type: server.type, url: server.url, headers: server.headers, tools: ["*"] };
    return { type: "local", command: server.command, args: server.args, env: server.env, tools: ["*"] };
  },
};

class CopilotReader implements LineReader {
  readonly #calls = new Calls();
  readonly #last = new LastWords();

  read(line: JsonObject): Reading {
    const data = objectOf(line["data"]);
    if (line["type"] === "session.mcp_servers_loaded") return { failedServers: failedServers(data) };
    if (line["ephemeral"] === true) return {};
    switch (line["type"]) {
      case "assistant.message": {
        const text = textOf(data["content"]);
        if (text !== "") this.#last.text = text;
        return { said: message(text), answered: true };
      }
      case "tool.execution_start": {
        const { toolCallId, toolName, arguments: input } = data;
        return { said: this.#calls.begin(textOf(toolCallId), textOf(toolName), input) };
      }
      case "tool.execution_complete": {
        const output = objectOf(data["result"])["content"] ?? textOf(objectOf(data["error"])["message"]);
        return { said: this.#calls.end(textOf(data["toolCallId"]), output, data["success"] !== true) };
      }
      case "session.error":
        this.#last.failure = failureOf(data);
        return status(textOf(data["message"]));
      case "result":
        return this.#result(line);
      default:
        return {};
    }
  }

  end(): undefined {
    return undefined;
  }

  /** Its exit code is 0 after a signal as well; whether a model has answered decides then. */
  #result(line: JsonObject): Reading {
    const code = numberOf(line["exitCode"]) ?? 0;
    const failed: Final = { ok: false, reason: "AGENT_FAILED", message: `it ended with exit code ${code}` };
    const final = code === 0 && this.#last.failure === undefined ? this.#last.end() : (this.#last.failure ?? failed);
    return { sessionId: textOf(line["sessionId"]) || undefined, final };
  }
}

function failureOf(data: JsonObject): Final {
  const text = textOf(data["message"]) || textOf(data["errorType"]) || "an error that it did not explain";
  const code = numberOf(data["statusCode"]);
  return { ok: false, reason: code === undefined ? reasonOfText(text) : reasonOfStatus(code), message: text };
}

function failedServers(data: JsonObject): string[] {
  return listOf(data["servers"])
    .map(objectOf)
    .filter((server) => server["status"] === "failed")
    .map((server) => `${textOf(server["name"])} (failed)`);
}
