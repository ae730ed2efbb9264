import type { Stream } from "@agentclientprotocol/sdk";
import { cutText } from "../../lib/protocol/limits.ts";
import { AgentError } from "../lib/agent/agent-error.ts";
import type { AgentProcess } from "../lib/agent/agent-process.ts";
import { objectOf } from "../lib/agent/json-of.ts";
import { LINE_MAX_BYTES, LineSplitter } from "../lib/agent/line-splitter.ts";
import { print } from "../lib/emit.ts";

/** Requests of the agent that wait for our answer; it is not read further while there are more. */
const OPEN_REQUESTS_MAX = 32;

/** What is shown of a line that is no message. */
const NOISE_MAX_BYTES = 2048;

type Message = Stream extends { readable: ReadableStream<infer M> } ? M : never;

/** The messages of an agent's process, for the SDK, with bounds that the SDK's own reader does not have. */
export interface MessageStream {
  readonly stream: Stream;
  /** Settles when the agent has closed its stdout and all is read. Rejects when what it sends cannot be borne. */
  readonly done: Promise<void>;
}

/**
 * @param onUpdate gets the notifications `session/update` in their order; nothing more is read before its promise settles, so
 * that an agent goes no faster than its events are taken, and that a turn's events stand before its end.
 */
export function messagesOf(process: AgentProcess, onUpdate: (params: unknown) => Promise<void>): MessageStream {
  const gate = new Gate();
  const { readable, controller } = openStream();
  const writable = new WritableStream<Message>({
    write: (message) =>
      new Promise<void>((resolve) => {
        if (!("method" in message)) gate.leave();
        // An agent that does not read any more is judged by its exit.
        process.stdin.write(`${JSON.stringify(message)}\n`, () => resolve());
      }),
  });
  return { stream: { readable, writable }, done: pump(process, controller, gate, onUpdate) };
}

function openStream() {
  const { promise, resolve } = Promise.withResolvers<ReadableStreamDefaultController<Message>>();
  return { readable: new ReadableStream<Message>({ start: resolve }), controller: promise };
}

async function pump(
  process: AgentProcess,
  controlled: Promise<ReadableStreamDefaultController<Message>>,
  gate: Gate,
  onUpdate: (params: unknown) => Promise<void>,
): Promise<void> {
  const controller = await controlled;
  const splitter = new LineSplitter();
  const take = async (line: string) => {
    const message = await messageIn(line);
    if (message === undefined) return;
    if (message["method"] === "session/update" && !("id" in message)) return onUpdate(message["params"]);
    if ("method" in message && "id" in message) await gate.enter();
    controller.enqueue(message as unknown as Message);
  };
  try {
    for await (const chunk of process.stdout) {
      const dropped = splitter.dropped;
      for (const line of splitter.push(chunk as Buffer)) await take(line);
      if (splitter.dropped > dropped) mindDropped(splitter.droppedHead);
    }
    const last = splitter.end();
    if (last !== undefined) await take(last);
    controller.close();
  } catch (error) {
    controller.error(error);
    throw error;
  }
}

/** A line that is no message is something that the agent prints, and is passed on. */
async function messageIn(line: string): Promise<Record<string, unknown> | undefined> {
  if (line.trim() === "") return undefined;
  try {
    const message = JSON.parse(line) as unknown;
    if (typeof message === "object" && message !== null && !Array.isArray(message)) return objectOf(message);
  } catch {
    // Below.
  }
  await print(`${cutText(line, NOISE_MAX_BYTES)}\n`, process.stderr);
  return undefined;
}

/** Without an update the transcript lacks a line; without an answer the run would wait for ever. */
function mindDropped(head: string): void {
  if (head.includes('"session/update"')) return;
  const what = head.slice(0, 120).toWellFormed();
  throw new AgentError(
    "AGENT_FAILED",
    `the agent sent a message of more than ${LINE_MAX_BYTES} bytes, which begins ${what}`,
  );
}

/** Lets so many requests in, until answers have gone out. */
class Gate {
  #open = 0;
  #waiting: (() => void) | undefined;

  async enter(): Promise<void> {
    if (this.#open >= OPEN_REQUESTS_MAX) {
      await new Promise<void>((resolve) => {
        this.#waiting = resolve;
      });
    }
    this.#open += 1;
  }

  leave(): void {
    this.#open = Math.max(0, this.#open - 1);
    this.#waiting?.();
    this.#waiting = undefined;
  }
}
