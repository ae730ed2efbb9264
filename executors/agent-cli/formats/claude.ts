import type { JsonObject } from "@bufbuild/protobuf";
import { Transcript } from "../../claude-code/transcript.ts";
import type { UsageEvent } from "../../lib/emit.ts";
import type { Usage } from "../../lib/agent/usage.ts";
import type { Format, LineReader, Reading } from "./format.ts";
import { textOf } from "../../lib/agent/json-of.ts";

/** Tools that an unattended agent may use, besides those of the run's servers. */
const ALLOWED_TOOLS = "Bash,Edit,Glob,Grep,NotebookEdit,Read,Skill,Task,TodoWrite,WebFetch,WebSearch,Write";

/** `claude -p --output-format stream-json --verbose`: the messages of its SDK. */
export const claude: Format = {
  saysEnd: true,
  reader: (before) => new ClaudeReader(before),
  args: (servers) => ["--allowedTools", [ALLOWED_TOOLS, ...servers.map((name) => `mcp__${name}`)].join(",")],
};

export class ClaudeReader implements LineReader {
  readonly #transcript: Transcript;

  constructor(before: Usage) {
    this.#transcript = new Transcript({ costBeforeUsd: before.costUsd ?? 0 });
  }

  read(line: JsonObject): Reading {
    const reading = this.#transcript.read(line);
    const usage = reading.said.find((event) => event.type === "usage");
    const { final, answered = false, failedServers = [], costUsd } = reading;
    return {
      ...{ final, answered, failedServers },
      said: reading.said.filter((event) => event.type !== "usage" && event.type !== "session"),
      sessionId: textOf(line["session_id"]) || undefined,
      usage: usage && usageOf(usage),
      conversationCostUsd: costUsd,
    };
  }

  end(): undefined {
    return undefined;
  }
}

function usageOf({ input_tokens, output_tokens, cost_usd }: UsageEvent): Usage {
  return { inputTokens: input_tokens, outputTokens: output_tokens, costUsd: cost_usd };
}
