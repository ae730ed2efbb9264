import { TOKENS } from "../conversation.ts";
import type { Conversation, Dialect, Frame, Reply, ReplyContext, Turn } from "../conversation.ts";
import { object, objects, string, texts } from "../json.ts";
import type { Json } from "../json.ts";

/** Google's Gemini. */
export const gemini: Dialect = {
  name: "gemini",
  matches: (path) => /:(?:generate|streamGenerate)Content$/.test(path),
  streams: (_, path) => path.endsWith(":streamGenerateContent"),
  model: (_, path) => /models\/([^/:]+):/.exec(path)?.[1] ?? "",
  read(body): Conversation {
    const declared = objects(body["tools"]).flatMap((group) => objects(group["functionDeclarations"]));
    return {
      turns: objects(body["contents"]).map(turnOf),
      tools: declared.map((one) => ({
        name: string(one["name"]),
        schema: object(one["parametersJsonSchema"] ?? one["parameters"]),
      })),
      system: texts(object(body["systemInstruction"])["parts"]).join("\n"),
    };
  },
  whole: (reply, context) => answer(partOf(reply), context, true),
  frames(reply, context): Frame[] {
    const half: Frame[] = reply.type === "text" ? [{ data: answer({ text: "" }, context, false) }] : [];
    return [...half, { data: answer(partOf(reply), context, true) }];
  },
  error: (code, message) => ({ error: { code, message, status: STATUS[code] ?? "UNAVAILABLE" } }),
};

const STATUS: Readonly<Record<number, string>> = {
  400: "INVALID_ARGUMENT",
  401: "UNAUTHENTICATED",
  403: "PERMISSION_DENIED",
  404: "NOT_FOUND",
  429: "RESOURCE_EXHAUSTED",
};

function turnOf({ role, parts }: Json): Turn {
  if (role === "model") return { who: "model", texts: texts(parts) };
  const answers = objects(parts).flatMap((part) =>
    part["functionResponse"] === undefined ? [] : [object(part["functionResponse"])["response"]],
  );
  if (answers.length > 0) return { who: "tool", texts: answers.map((one) => JSON.stringify(one)) };
  return { who: "user", texts: texts(parts) };
}

function partOf(reply: Reply): Json {
  return reply.type === "text" ? { text: reply.text } : { functionCall: { name: reply.tool.name, args: reply.args } };
}

function answer(part: Json, { id, model }: ReplyContext, last: boolean) {
  const content = { role: "model", parts: [part] };
  const base = { modelVersion: model, responseId: id("r") };
  if (!last) return { candidates: [{ content, index: 0 }], ...base };
  const usageMetadata = {
    promptTokenCount: TOKENS.input,
    candidatesTokenCount: TOKENS.output,
    totalTokenCount: TOKENS.input + TOKENS.output,
    cachedContentTokenCount: TOKENS.cached,
  };
  return { candidates: [{ content, finishReason: "STOP", index: 0 }], usageMetadata, ...base };
}
