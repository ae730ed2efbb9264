import { once } from "node:events";
import { createServer } from "node:http";
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import type { Dialect, Frame, Reply, ReplyContext, Turn } from "./conversation.ts";
import { anthropic } from "./dialects/anthropic.ts";
import { chat } from "./dialects/chat.ts";
import { gemini } from "./dialects/gemini.ts";
import { responses } from "./dialects/responses.ts";
import { stubEnvironment } from "./endpoints.ts";
import { object } from "./json.ts";
import type { Json } from "./json.ts";
import { stepOf } from "./script.ts";
import type { Step } from "./script.ts";
import { fullName, replyOf } from "./tools.ts";

const DIALECTS: readonly Dialect[] = [anthropic, chat, responses, gemini];

/** Largest request that is read: a conversation of several prompts of 1 MB, escaped. */
const BODY_MAX_BYTES = 64 * 1024 * 1024;

/** Bytes of requests that are remembered; the oldest go first. */
const KEPT_MAX_BYTES = 256 * 1024 * 1024;

/** A request to the model. */
export interface ModelRequest {
  /** From 1, in the order in which they came. */
  readonly number: number;
  readonly dialect: Dialect["name"];
  readonly path: string;
  readonly model: string;
  readonly headers: IncomingHttpHeaders;
  readonly system: string;
  readonly turns: readonly Turn[];
  /** Names of the tools that it offers. */
  readonly tools: readonly string[];
  readonly step: Pick<Step, "name" | "argument">;
  /** From 1: how often this same request has come. */
  readonly attempt: number;
  /** What was said, or will be. */
  readonly reply: Reply;
  readonly bytes: number;
}

/** A scripted model server on loopback. */
export interface ModelStub {
  /** Without a slash at its end. */
  readonly url: string;
  /** The requests to the model, oldest first. */
  readonly requests: readonly ModelRequest[];
  /** Everything else that came, such as `GET /v1/models`. */
  readonly others: readonly string[];
  /** The variables by which programs find it. */
  env(more?: Parameters<typeof stubEnvironment>[1]): Record<string, string>;
  /** Ends it, with every connection. */
  close(): Promise<void>;
}

/** Starts a scripted model server (script.ts) that speaks every dialect, on a free port of loopback. */
export async function startModelStub(): Promise<ModelStub> {
  const stub = new Stub();
  const server = createServer((request, response) => {
    // A client that leaves in the middle has nobody to be told.
    stub.serve(request, response).catch(() => response.destroy());
  });
  // Some clients try a WebSocket first, and fall back when it is refused.
  server.on("upgrade", (_, socket: Socket) => socket.end("HTTP/1.1 426 Upgrade Required\r\nconnection: close\r\n\r\n"));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    url,
    requests: stub.requests,
    others: stub.others,
    env: (more) => stubEnvironment(url, more),
    async close() {
      const closed = once(server, "close");
      stub.closing.abort();
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

class Stub {
  readonly requests: ModelRequest[] = [];
  readonly others: string[] = [];
  readonly closing = new AbortController();
  readonly #attempts = new Map<string, number>();
  #keptBytes = 0;
  #ids = 0;
  #count = 0;

  async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const [path = ""] = (request.url ?? "").split("?", 1);
    const text = await bodyOf(request);
    const dialect = request.method === "POST" ? DIALECTS.find((one) => one.matches(path)) : undefined;
    if (dialect === undefined) return this.#other(request, path, response);
    const body = parsed(text);
    const conversation = dialect.read(body);
    const step = stepOf(conversation);
    const attempt = (this.#attempts.get(step.key) ?? 0) + 1;
    this.#attempts.set(step.key, attempt);
    const context = {
      model: dialect.model(body, path),
      now: Math.floor(Date.now() / 1000),
      id: (prefix: string) => `${prefix}_stub${(this.#ids += 1)}`,
    };
    const reply = replyOf(step, conversation.tools);
    this.#keep({
      number: (this.#count += 1),
      dialect: dialect.name,
      path,
      model: context.model,
      headers: request.headers,
      system: conversation.system,
      turns: conversation.turns,
      tools: conversation.tools.map(fullName),
      step: { name: step.name, argument: step.argument },
      attempt,
      reply,
      bytes: text.length,
    });
    await this.#perform({ step, attempt, dialect, reply, context, response, streams: dialect.streams(body, path) });
  }

  async #perform(exchange: Exchange): Promise<void> {
    const { step, attempt, dialect, response } = exchange;
    switch (step.name) {
      case "hang":
        return;
      case "err":
      case "err1": {
        if (step.name === "err1" && attempt > 1) return answer(exchange);
        return sendError(step.argument, dialect, response);
      }
      case "drop":
        return dropHalfway(exchange);
      case "drop1":
        return attempt === 1 ? dropHalfway(exchange) : answer(exchange);
      case "slow":
        if (exchange.streams) beginStream(response);
        await delay(1000 * (Number(step.argument) || 1), undefined, { signal: this.closing.signal });
        return answer(exchange);
      default:
        return answer(exchange);
    }
  }

  #other(request: IncomingMessage, path: string, response: ServerResponse): void {
    this.others.push(`${request.method} ${path}`);
    if (this.others.length > 1000) this.others.shift();
    if (/(?:count_tokens|:countTokens)$/.test(path))
      return sendJson(response, 200, { input_tokens: 10, totalTokens: 10 });
    if (path.endsWith("/models")) return sendJson(response, 200, MODELS);
    sendJson(response, 404, { error: { message: `the stub has no ${path}`, type: "not_found_error" } });
  }

  #keep(request: ModelRequest): void {
    this.requests.push(request);
    this.#keptBytes += request.bytes;
    while (this.#keptBytes > KEPT_MAX_BYTES && this.requests.length > 1)
      this.#keptBytes -= this.requests.shift()?.bytes ?? 0;
  }
}

const MODEL = { id: "stub-model", object: "model", type: "model", owned_by: "stub", display_name: "stub" };
const MODELS = { object: "list", data: [MODEL], models: [], has_more: false };

interface Exchange {
  readonly step: Step;
  readonly attempt: number;
  readonly dialect: Dialect;
  readonly reply: Reply;
  readonly context: ReplyContext;
  readonly response: ServerResponse;
  readonly streams: boolean;
}

function answer({ streams, dialect, reply, context, response }: Exchange): void {
  if (!streams) return sendJson(response, 200, dialect.whole(reply, context));
  beginStream(response);
  for (const frame of dialect.frames(reply, context)) response.write(frameText(frame));
  response.end();
}

/** The beginning of an answer, and then a reset. */
function dropHalfway({ streams, dialect, reply, context, response }: Exchange): void {
  if (streams) {
    beginStream(response);
    const [first] = dialect.frames(reply, context);
    if (first !== undefined) response.write(frameText(first));
  } else {
    const text = JSON.stringify(dialect.whole(reply, context));
    response.writeHead(200, { "content-type": "application/json", "content-length": text.length });
    response.write(text.slice(0, 20));
  }
  const { socket } = response;
  // The client is to see what was written before it sees the reset.
  setTimeout(() => socket?.resetAndDestroy(), 20);
}

function beginStream(response: ServerResponse): void {
  if (response.headersSent) return;
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache" });
  response.flushHeaders();
}

/** `429`, or `429:7` with the seconds after which the client may come again. */
function sendError(argument: string, dialect: Dialect, response: ServerResponse): void {
  const [code, seconds] = argument.split(":");
  const status = Number(code) || 500;
  if (seconds !== undefined) response.setHeader("retry-after", seconds);
  sendJson(response, status, dialect.error(status, `stub error ${status}`));
}

function sendJson(response: ServerResponse, status: number, value: unknown): void {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(value));
}

function frameText({ event, data }: Frame): string {
  const text = typeof data === "string" ? data : JSON.stringify(data);
  return `${event === undefined ? "" : `event: ${event}\n`}data: ${text}\n\n`;
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > BODY_MAX_BYTES) throw new Error(`a request has more than ${BODY_MAX_BYTES} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

function parsed(text: string): Json {
  try {
    return object(JSON.parse(text));
  } catch {
    // Not JSON: a conversation without a word, which is answered like any other.
    return {};
  }
}
