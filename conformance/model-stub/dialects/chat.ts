import { errorType, TOKENS } from "../conversation.ts";
import type { Conversation, Dialect, Frame, Reply, ReplyContext, Turn } from "../conversation.ts";
import { object, objects, string, texts } from "../json.ts";
import type { Json } from "../json.ts";

/** OpenAI's Chat Completions. */
export const chat: Dialect = {
  name: "chat",
  matches: (path) => path.endsWith("/chat/completions"),
  streams: (body) => body["stream"] === true,
  model: (body) => string(body["model"]),
  read(body): Conversation {
    const turns = objects(body["messages"]).map(turnOf);
    return {
      turns,
      tools: objects(body["tools"]).map((tool) => {
        const { name, parameters } = object(tool["function"]);
        return { name: string(name), schema: object(parameters) };
      }),
      system: turns.flatMap(({ who, texts }) => (who === "system" ? texts : [])).join("\n"),
    };
  },
  whole(reply, context) {
    const content = reply.type === "text" ? reply.text : null;
    const calls = reply.type === "call" ? { tool_calls: [callOf(reply, context)] } : {};
    const choice = { index: 0, message: { role: "assistant", content, ...calls }, finish_reason: finishOf(reply) };
    return { ...head(context), object: "chat.completion", choices: [choice], usage: USAGE };
  },
  frames(reply, context): Frame[] {
    const base = { ...head(context), object: "chat.completion.chunk" };
    const chunk = (delta: Json, finish_reason: string | null = null): Frame => ({
      data: { ...base, choices: [{ index: 0, delta, finish_reason }] },
    });
    const said =
      reply.type === "text" ? { content: reply.text } : { tool_calls: [{ index: 0, ...callOf(reply, context) }] };
    return [
      chunk({ role: "assistant", content: "" }),
      chunk(said),
      chunk({}, finishOf(reply)),
      { data: { ...base, choices: [], usage: USAGE } },
      { data: "[DONE]" },
    ];
  },
  error: (status, message) => openAiError(status, message),
};

/** An error of both of OpenAI's APIs. */
export function openAiError(status: number, message: string) {
  const code = status === 401 ? "invalid_api_key" : status === 429 ? "rate_limit_exceeded" : null;
  return { error: { message, type: errorType(status), code, param: null } };
}

const USAGE = {
  prompt_tokens: TOKENS.input,
  completion_tokens: TOKENS.output,
  total_tokens: TOKENS.input + TOKENS.output,
  prompt_tokens_details: { cached_tokens: TOKENS.cached },
};

const WHO: Readonly<Record<string, Turn["who"]>> = { assistant: "model", tool: "tool", user: "user" };

function turnOf(message: Json): Turn {
  return { who: WHO[string(message["role"])] ?? "system", texts: texts(message["content"]) };
}

function head({ id, now, model }: ReplyContext) {
  return { id: id("chatcmpl"), created: now, model };
}

function callOf({ tool, args }: Extract<Reply, { type: "call" }>, { id }: ReplyContext) {
  return { id: id("call"), type: "function", function: { name: tool.name, arguments: JSON.stringify(args) } };
}

function finishOf({ type }: Reply): string {
  return type === "text" ? "stop" : "tool_calls";
}
