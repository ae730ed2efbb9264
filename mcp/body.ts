import { isObject, LostNumber, parseJson, TooDeep } from "./json.ts";

/** Codes of JSON-RPC. */
const PARSE_ERROR = -32_700;
export const INVALID_REQUEST = -32_600;
const INVALID_PARAMS = -32_602;

/** Characters of what a client sent that an error repeats. */
const MAX_REPEATED = 64;

/** The body of a request, as far as it is understood. */
export type Body =
  /** A message or a batch of them, in the form that the library takes. */
  | { readonly type: "messages"; readonly json: unknown; readonly calls: number }
  /** It has no answer but an error. */
  | { readonly type: "refused"; readonly status: number; readonly error: RpcError };

/** An error as JSON-RPC writes it. */
export interface RpcError {
  readonly jsonrpc: "2.0";
  readonly id: string | number | null;
  readonly error: { readonly code: number; readonly message: string };
}

/**
 * Reads a body as MCP clients of every age and care send it: with a byte order mark, with null where nothing is meant, with
 * the arguments of a call as a text that holds them. What cannot be read is refused with words for the person or model at the
 * other end.
 */
export function readBody(bytes: Uint8Array): Body {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return refused(400, null, PARSE_ERROR, "Parse error: the body is not UTF-8");
  }
  let json: unknown;
  try {
    json = parseJson(text);
  } catch (error) {
    if (!(error instanceof TooDeep)) return refused(400, null, PARSE_ERROR, "Parse error: the body is not JSON");
    if (!isObject(error.json)) return refused(400, null, INVALID_REQUEST, `Invalid Request: ${error.message}`);
    return refused(200, idOf(error.json), INVALID_PARAMS, `params: ${error.message}`);
  }
  return Array.isArray(json) ? batchOf(json) : messageOf(json);
}

function messageOf(json: unknown): Body {
  if (!isObject(json)) return { type: "messages", json, calls: 0 };
  const problem = repair(json);
  // In HTTP this went well: a client shows its model an error of the call, and breaks off after one of the transport.
  if (problem !== undefined) return refused(200, idOf(json), INVALID_PARAMS, problem);
  return { type: "messages", json, calls: isCall(json) ? 1 : 0 };
}

function batchOf(messages: readonly unknown[]): Body {
  const ids = new Set<unknown>();
  for (const message of messages) {
    if (!isObject(message)) continue;
    const problem = repair(message);
    if (problem !== undefined) return refused(400, null, INVALID_PARAMS, problem);
    const { id } = message;
    if (id === undefined || message["method"] === undefined) continue;
    // The library answers only one of them.
    if (ids.has(id)) {
      const what = `two requests of this batch have the id ${JSON.stringify(id).slice(0, MAX_REPEATED)}`;
      return refused(400, null, INVALID_REQUEST, `Invalid Request: ${what}`);
    }
    ids.add(id);
  }
  return { type: "messages", json: messages, calls: messages.filter((message) => isCall(message)).length };
}

function isCall(message: unknown): boolean {
  return isObject(message) && message["method"] === "tools/call";
}

/** Puts right what can be, in place. Returns what cannot be: a problem in words. */
function repair(message: Record<string, unknown>): string | undefined {
  if (message["params"] === null) delete message["params"];
  if (message["id"] instanceof LostNumber) {
    return `the id ${message["id"].source.slice(0, MAX_REPEATED)} is no number that an answer can repeat: send a smaller one or a text`;
  }
  if (!isCall(message)) return undefined;
  const params = message["params"];
  if (!isObject(params) || typeof params["name"] !== "string") {
    return 'tools/call needs params such as {"name": "list_agent_sessions", "arguments": {}}; tools/list names the tools';
  }
  return repairArguments(params);
}

function repairArguments(params: Record<string, unknown>): string | undefined {
  const given = params["arguments"];
  if (given === undefined || isObject(given)) return undefined;
  if (given === null || given === "" || (Array.isArray(given) && given.length === 0)) {
    delete params["arguments"];
    return undefined;
  }
  const held = typeof given === "string" ? objectIn(given) : undefined;
  if (held === undefined) {
    const what = Array.isArray(given) ? "a list" : `a ${typeof given}`;
    return `arguments of ${String(params["name"]).slice(0, MAX_REPEATED)} must be an object such as {"session_id": "ses_…"}, not ${what}`;
  }
  params["arguments"] = held;
  return undefined;
}

/** The object that a text holds as JSON; undefined when it holds none. */
function objectIn(text: string): Record<string, unknown> | undefined {
  const json = jsonIn(text);
  return isObject(json) ? json : undefined;
}

/** What a text holds as JSON; undefined when it is none. */
export function jsonIn(text: string): unknown {
  try {
    return parseJson(text);
  } catch {
    return undefined;
  }
}

function idOf({ id }: Record<string, unknown>): string | number | null {
  return typeof id === "string" || typeof id === "number" ? id : null;
}

function refused(status: number, id: string | number | null, code: number, message: string): Body {
  return { type: "refused", status, error: rpcError(code, message, id) };
}

/** An error of the transport (-32000) or of JSON-RPC. */
export function rpcError(code: number, message: string, id: string | number | null = null): RpcError {
  return { jsonrpc: "2.0", id, error: { code, message } };
}
