import type { JsonObject, JsonValue } from "@bufbuild/protobuf";

/** A tool call (no output yet), or its outcome under the same id. */
export interface ToolEvent {
  tool_call_id: string;
  name: string;
  input?: JsonValue;
  output?: JsonValue;
  error?: string;
}

/** Totals so far, not increments. */
export interface UsageEvent {
  input_tokens?: number;
  output_tokens?: number;
  cost_usd?: number;
  model?: string;
}

/** An event as it stands on a line of stdout, but for the result, which `emit.result` says. */
export type SaidEvent =
  | { type: "session"; executor_session_id: string }
  | { type: "message"; role: "user" | "assistant" | "system"; text: string }
  | ({ type: "tool" } & ToolEvent)
  | ({ type: "usage" } & UsageEvent)
  | { type: "status"; text: string };

/**
 * Says an event to the runner: one line of JSON on stdout (ADR 12). Each promise settles when the line is handed to
 * the operating system; who awaits it goes no faster than the runner reads and loses nothing at exit. When nobody reads
 * stdout any more the promise rejects with EPIPE, and the process ends unless it handles `error` of process.stdout.
 */
export const emit = {
  /** The executor's own id for the conversation, which a later run of the session gets back. Say it as soon as it is known. */
  session: (executorSessionId: string) => write({ type: "session", executor_session_id: executorSessionId }),
  /** Something said in the conversation. */
  message: (role: "user" | "assistant" | "system", text: string) => write({ type: "message", role, text }),
  tool: (event: ToolEvent) => write({ type: "tool", ...event }),
  /** The result of the run: a string for people and models, an object for programs, or both. The last one counts. */
  result: (textOrData: string | JsonObject, data?: JsonObject) =>
    write({ type: "result", ...(typeof textOrData === "string" ? { text: textOrData, data } : { data: textOrData }) }),
  usage: (event: UsageEvent) => write({ type: "usage", ...event }),
  /** What the agent is doing now, in one line. */
  status: (text: string) => write({ type: "status", text }),
  /** Any of these, as what reads an agent's own output makes them. */
  event: (event: SaidEvent) => write(event),
};

function write(event: object): Promise<void> {
  return print(`${JSON.stringify(event)}\n`);
}

/** Writes plain output with the same promise. */
export function print(text: string, stream: NodeJS.WritableStream = process.stdout): Promise<void> {
  return new Promise((resolve, reject) => {
    stream.write(text, (error) => (error ? reject(error) : resolve()));
  });
}
