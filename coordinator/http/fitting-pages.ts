import { toBinary, toJsonString } from "@bufbuild/protobuf";
import type { DescMessage, DescMethod, Message } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import type { Interceptor, UnaryRequest } from "@connectrpc/connect";
import { errorInfo } from "../../lib/rpc/error-info.ts";

/**
 * Largest response as JSON, in messages: control characters take six bytes there, and what was taken in binary is to be readable
 * as JSON too. Only what holds a single thing grows so large; pages are made to fit a message.
 */
export const JSON_RESPONSE_FACTOR = 8;

/** Share of the bytes that fit which the next try aims at: items differ in size. */
const AIM = 0.9;

/**
 * Makes every page of a list fit a message, in the encoding that its caller reads: one that does not fit is asked for again with
 * fewer items. A single item that is too large in binary is RESOURCE_EXHAUSTED.
 */
export function fittingPages(messageMaxBytes: number): Interceptor {
  return (next) => async (request) => {
    const response = await next(request);
    // What is written answers with no more than was sent, and there are thousands a second: not worth measuring.
    if (request.stream || response.stream || !isRead(request.method)) return response;
    const json = readsJson(request);
    const bytes = bytesOf(request.method.output, response.message, json);
    if (bytes <= messageMaxBytes) return response;
    const items = itemsOf(request.method.output, response.message);
    if ("pageSize" in request.message && items > 1) {
      const pageSize = Math.max(1, Math.floor((items * AIM * messageMaxBytes) / bytes));
      Object.assign(request.message, { pageSize });
      return fittingPages(messageMaxBytes)(next)(request);
    }
    if (json) return response;
    throw new ConnectError(
      `the response has ${bytes} bytes; a message has at most ${messageMaxBytes}`,
      Code.ResourceExhausted,
      undefined,
      [errorInfo("MESSAGE_TOO_LARGE")],
    );
  };
}

function isRead({ idempotency }: DescMethod): boolean {
  return idempotency === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS;
}

function readsJson({ requestMethod, url, header }: UnaryRequest): boolean {
  if (requestMethod === "GET") return new URL(url).searchParams.get("encoding") === "json";
  return /json/.test(header.get("content-type") ?? "");
}

function bytesOf(schema: DescMessage, message: Message, json: boolean): number {
  return json
    ? Buffer.byteLength(toJsonString(schema, message, { useProtoFieldName: true }))
    : toBinary(schema, message).length;
}

function itemsOf(schema: DescMessage, message: Message): number {
  const lists = schema.fields.filter(({ fieldKind, message }) => fieldKind === "list" && message !== undefined);
  return lists.reduce((sum, { localName }) => sum + (Reflect.get(message, localName) as unknown[]).length, 0);
}
