import { errorType, TOKENS } from "../conversation.ts";
import type { Conversation, Dialect, Frame, Reply, ReplyContext, Turn } from "../conversation.ts";
import { object, objects, string, texts } from "../json.ts";
import type { Json } from "../json.ts";

/** Anthropic's Messages. */
export const anthropic: Dialect = {
  name: "anthropic",
  matches: (path) => path.endsWith("/messages"),
  streams: (body) => body["stream"] === true,
  model: (body) => string(body["model"]),
  read(body): Conversation {
    return {
      turns: objects(body["messages"]).flatMap(turnsOf),
      tools: objects(body["tools"]).map((tool) => ({
        name: string(tool["name"]),
        schema: object(tool["input_schema"]),
      })),
      system: texts(body["system"]).join("\n"),
    };
  },
  whole: message,
  frames(reply, context): Frame[] {
    const { content, usage, stop_reason, ...rest } = message(reply, context);
    const begun = { ...rest, content: [], stop_reason: null, usage: { ...usage, output_tokens: 1 } };
    return [
      frame({ type: "message_start", message: begun }),
      ...content.flatMap((block, index) => [
        frame({ type: "content_block_start", index, content_block: emptied(block) }),
        frame({ type: "content_block_delta", index, delta: deltaOf(block) }),
        frame({ type: "content_block_stop", index }),
      ]),
      frame({
        type: "message_delta",
        delta: { stop_reason, stop_sequence: null },
        usage: { output_tokens: TOKENS.output },
      }),
      frame({ type: "message_stop" }),
    ];
  },
  error: (status, message) => ({ type: "error", error: { type: errorType(status), message } }),
};

function turnsOf(message: Json): Turn[] {
  const { role, content } = message;
  if (role === "assistant") return [{ who: "model", texts: texts(content) }];
  if (typeof content === "string") return [{ who: "user", texts: [content] }];
  return objects(content).map((part) =>
    part["type"] === "tool_result"
      ? { who: "tool", texts: texts(part["content"]) }
      : { who: "user", texts: texts(part) },
  );
}

type Block = { type: "text"; text: string } | { type: "tool_use"; id: string; name: string; input: Json };

function message(reply: Reply, { model, id }: ReplyContext) {
  const block: Block =
    reply.type === "text"
      ? { type: "text", text: reply.text }
      : { type: "tool_use", id: id("toolu"), name: reply.tool.name, input: reply.args };
  return {
    id: id("msg"),
    type: "message",
    role: "assistant",
    model,
    content: [block],
    stop_reason: reply.type === "text" ? "end_turn" : "tool_use",
    stop_sequence: null,
    usage: {
      input_tokens: TOKENS.input,
      output_tokens: TOKENS.output,
      cache_read_input_tokens: TOKENS.cached,
      cache_creation_input_tokens: 0,
    },
  };
}

function emptied(block: Block): Block {
  return block.type === "text" ? { ...block, text: "" } : { ...block, input: {} };
}

function deltaOf(block: Block) {
  return block.type === "text"
    ? { type: "text_delta", text: block.text }
    : { type: "input_json_delta", partial_json: JSON.stringify(block.input) };
}

function frame(data: { readonly type: string; readonly [field: string]: unknown }): Frame {
  return { event: data.type, data };
}
