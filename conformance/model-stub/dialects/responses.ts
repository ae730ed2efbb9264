import { TOKENS } from "../conversation.ts";
import type { Conversation, Dialect, Frame, OfferedTool, Reply, ReplyContext, Turn } from "../conversation.ts";
import { object, objects, string, texts } from "../json.ts";
import type { Json } from "../json.ts";
import { openAiError } from "./chat.ts";

/** OpenAI's Responses. */
export const responses: Dialect = {
  name: "responses",
  matches: (path) => path.endsWith("/responses"),
  streams: (body) => body["stream"] === true,
  model: (body) => string(body["model"]),
  read(body): Conversation {
    const { input } = body;
    return {
      turns: typeof input === "string" ? [{ who: "user", texts: [input] }] : objects(input).flatMap(turnsOf),
      // Some models are told of tools in the conversation.
      tools: [body["tools"], ...objects(input).map((item) => item["tools"])].flatMap(objects).flatMap(toolsOf),
      system: string(body["instructions"]),
    };
  },
  whole: (reply, context) => done(begun(context), itemOf(reply, context)),
  frames(reply, context): Frame[] {
    const response = begun(context);
    const item = itemOf(reply, context);
    let sequence_number = 0;
    const frame = (type: string, fields: Json): Frame => {
      const data = { type, sequence_number, ...fields };
      sequence_number += 1;
      return { event: type, data };
    };
    return [
      frame("response.created", { response }),
      frame("response.output_item.added", { output_index: 0, item: inProgress(item) }),
      ...partsOf(item).map(([type, fields]) => frame(type, { item_id: item.id, output_index: 0, ...fields })),
      frame("response.output_item.done", { output_index: 0, item }),
      frame("response.completed", { response: done(response, item) }),
    ];
  },
  error: openAiError,
};

/** Items that are the model's, beside its messages. */
const CALLS = new Set(["function_call", "custom_tool_call", "local_shell_call"]);

function turnsOf(item: Json): Turn[] {
  const [type, role] = [string(item["type"]), string(item["role"])];
  if (CALLS.has(type) || role === "assistant") return [{ who: "model", texts: texts(item["content"]) }];
  if (type.endsWith("_output")) return [{ who: "tool", texts: texts(item["output"]) }];
  if (role === "user") return [{ who: "user", texts: texts(item["content"]) }];
  return role === "" ? [] : [{ who: "system", texts: texts(item["content"]) }];
}

function toolsOf(tool: Json): OfferedTool[] {
  const type = string(tool["type"]);
  if (type !== "namespace") return [offered(tool, type)];
  const namespace = string(tool["name"]);
  return objects(tool["tools"]).map((one) => ({ ...offered(one, "function"), namespace }));
}

function offered(tool: Json, kind: string): OfferedTool {
  return { name: string(tool["name"]) || kind, schema: object(tool["parameters"]), kind };
}

type Item =
  | { id: string; type: "message"; status: string; role: string; content: readonly Json[] }
  | { id: string; type: "function_call"; status: string; call_id: string; name: string; arguments: string }
  | { id: string; type: "local_shell_call"; status: string; call_id: string; action: Json };

function itemOf(reply: Reply, { id }: ReplyContext): Item {
  const status = "completed";
  if (reply.type === "text") {
    const content = [{ type: "output_text", text: reply.text, annotations: [] }];
    return { id: id("msg"), type: "message", status, role: "assistant", content };
  }
  const { tool, args } = reply;
  if (tool.kind === "local_shell") {
    const action = { type: "exec", command: ["bash", "-lc", string(args["command"])] };
    return { id: id("lsh"), type: "local_shell_call", status, call_id: id("call"), action };
  }
  const namespace = tool.namespace === undefined ? {} : { namespace: tool.namespace };
  const call = { call_id: id("call"), name: tool.name, ...namespace, arguments: JSON.stringify(args) };
  return { id: id("fc"), type: "function_call", status, ...call };
}

function inProgress(item: Item): Json {
  return { ...item, status: "in_progress", ...(item.type === "message" && { content: [] }) };
}

/** The events between the beginning of an item and its end. */
function partsOf(item: Item): [type: string, fields: Json][] {
  if (item.type === "message") {
    const [part = {}] = item.content;
    const text = part["text"];
    return [
      ["response.content_part.added", { content_index: 0, part: { ...part, text: "" } }],
      ["response.output_text.delta", { content_index: 0, delta: text }],
      ["response.output_text.done", { content_index: 0, text }],
      ["response.content_part.done", { content_index: 0, part }],
    ];
  }
  if (item.type === "local_shell_call") return [];
  return [
    ["response.function_call_arguments.delta", { delta: item.arguments }],
    ["response.function_call_arguments.done", { arguments: item.arguments }],
  ];
}

function begun({ id, now, model }: ReplyContext) {
  return { id: id("resp"), object: "response", created_at: now, model, status: "in_progress", output: [] };
}

function done(response: ReturnType<typeof begun>, item: Item) {
  const usage = {
    input_tokens: TOKENS.input,
    input_tokens_details: { cached_tokens: TOKENS.cached },
    output_tokens: TOKENS.output,
    output_tokens_details: { reasoning_tokens: 0 },
    total_tokens: TOKENS.input + TOKENS.output,
  };
  return { ...response, status: "completed", output: [item], usage };
}
