/** One turn of a conversation, whatever the dialect calls it. */
export interface Turn {
  readonly who: "user" | "model" | "tool" | "system";
  /** Each part as it came: parts of one message are not joined. */
  readonly texts: readonly string[];
}

/** A tool that the request offers to the model. */
export interface OfferedTool {
  readonly name: string;
  /** JSON Schema of its arguments. */
  readonly schema: Readonly<Record<string, unknown>>;
  /** Name of the group that it stands in, where the dialect has groups. */
  readonly namespace?: string;
  /** The dialect's own kind of a tool that has no schema. */
  readonly kind?: string;
}

/** What a request says, in one shape for all dialects. */
export interface Conversation {
  readonly turns: readonly Turn[];
  readonly tools: readonly OfferedTool[];
  /** The system prompt. */
  readonly system: string;
}

/** What the model says: words, or the call of a tool. */
export type Reply =
  | { readonly type: "text"; readonly text: string }
  | { readonly type: "call"; readonly tool: OfferedTool; readonly args: Readonly<Record<string, unknown>> };

/** Tokens of each answer, the same every time. */
export const TOKENS = { input: 111, output: 22, cached: 33 } as const;

/** Facts of one answer. */
export interface ReplyContext {
  readonly model: string;
  /** Seconds since 1970. */
  readonly now: number;
  /** A new id that begins so. */
  readonly id: (prefix: string) => string;
}

/** One server-sent event. */
export interface Frame {
  readonly event?: string;
  readonly data: unknown;
}

/** A model API: how its requests are read and its answers written. */
export interface Dialect {
  readonly name: "anthropic" | "chat" | "responses" | "gemini";
  /** Whether a POST to this path is a request to the model. */
  matches(path: string): boolean;
  read(body: Readonly<Record<string, unknown>>): Conversation;
  streams(body: Readonly<Record<string, unknown>>, path: string): boolean;
  /** The model that the request names. */
  model(body: Readonly<Record<string, unknown>>, path: string): string;
  /** The answer in one piece. */
  whole(reply: Reply, context: ReplyContext): unknown;
  /** The answer as a stream, of which the first frame may be all that comes. */
  frames(reply: Reply, context: ReplyContext): Frame[];
  error(status: number, message: string): unknown;
}

/** What an error of that status is called, by most APIs. */
export function errorType(status: number): string {
  return ERROR_TYPES[status] ?? "api_error";
}

const ERROR_TYPES: Readonly<Record<number, string>> = {
  400: "invalid_request_error",
  401: "authentication_error",
  403: "permission_error",
  404: "not_found_error",
  429: "rate_limit_error",
  503: "overloaded_error",
  529: "overloaded_error",
};
