import { setTimeout as delay } from "node:timers/promises";
import { RequestError, client, methods } from "@agentclientprotocol/sdk";
import type { ClientConnection, RequestPermissionRequest, RequestPermissionResponse } from "@agentclientprotocol/sdk";
import type { JsonObject } from "@bufbuild/protobuf";
import { AgentError } from "../lib/agent/agent-error.ts";
import { AgentProcess } from "../lib/agent/agent-process.ts";
import type { AgentCommand, AgentExit } from "../lib/agent/agent-process.ts";
import { reasonOfStatus, statusIn } from "../lib/agent/final.ts";
import { objectOf } from "../lib/agent/json-of.ts";
import { messagesOf } from "./message-stream.ts";
import type { MessageStream } from "./message-stream.ts";
import { agentErrorOf } from "./rpc-error.ts";
import type { Step } from "./rpc-error.ts";

/** Time for an agent to end after a signal. */
const SIGNAL_MS = 1000;

/** Time for an agent to end after it has closed its stdout. */
const END_MS = 2000;

/** What the agent says and asks while it works. */
export interface AgentCalls {
  /** `params` of a notification `session/update`. */
  readonly update: (params: unknown) => Promise<void>;
  readonly permission: (request: RequestPermissionRequest) => Promise<RequestPermissionResponse>;
}

/** An agent that runs, and speaks the Agent Client Protocol on its stdin and stdout. */
export class AgentConnection {
  readonly #label: string;
  readonly #process: AgentProcess;
  readonly #messages: MessageStream;
  readonly #connection: ClientConnection;
  #failure: AgentError | undefined;
  #closed: Promise<AgentExit | undefined> | undefined;

  private constructor(label: string, process: AgentProcess, calls: AgentCalls) {
    this.#label = label;
    this.#process = process;
    this.#messages = messagesOf(process, calls.update);
    this.#messages.done.catch((error: unknown) => {
      this.#failure =
        error instanceof AgentError ? error : new AgentError("AGENT_FAILED", `${label}: ${String(error)}`);
    });
    this.#connection = client({ name: "agent-runner" })
      .onRequest(methods.client.session.requestPermission, ({ params }) => calls.permission(params))
      .connect(this.#messages.stream);
  }

  /** @throws AgentError AGENT_NOT_INSTALLED, or AGENT_FAILED when it cannot be started. */
  static async start(label: string, command: AgentCommand, calls: AgentCalls): Promise<AgentConnection> {
    return new AgentConnection(label, await AgentProcess.start(command), calls);
  }

  /** What the agent answers. @throws AgentError for an error, and when it ends before it answers. */
  async request(step: Step, method: string, params: JsonObject): Promise<JsonObject> {
    try {
      return objectOf(await this.#connection.agent.request<unknown, JsonObject>(method, params));
    } catch (error) {
      if (error instanceof RequestError) throw agentErrorOf(error, step, this.#label);
      // What the reader threw comes back as it was.
      if (error instanceof AgentError) throw error;
      throw this.#failure ?? (await this.#endedEarly(step));
    }
  }

  /** Says something that has no answer; an agent that has ended does not hear it. */
  async notify(method: string, params: JsonObject): Promise<void> {
    await this.#connection.agent.notify(method, params).catch(() => undefined);
  }

  /**
   * Lets the agent end: by the end of its stdin, which some heed when they heed no signal, then by signals. What it still says
   * is taken before. A second call waits for the first.
   * @returns undefined when a process that it left behind holds its output.
   */
  close(graceMs: number): Promise<AgentExit | undefined> {
    this.#closed ??= this.#close(graceMs);
    return this.#closed;
  }

  async #close(graceMs: number): Promise<AgentExit | undefined> {
    this.#process.stdin.end();
    const exit = (await this.#exit(graceMs)) ?? (await this.#signal("SIGTERM")) ?? (await this.#signal("SIGKILL"));
    // Somebody else has its stdout: a process that it left behind, which the runner's sweep ends.
    if (exit === undefined) this.#process.abandon();
    else await this.#messages.done.catch(() => undefined);
    this.#connection.close();
    return exit;
  }

  #signal(signal: NodeJS.Signals): Promise<AgentExit | undefined> {
    this.#process.kill(signal);
    return this.#exit(SIGNAL_MS);
  }

  async #exit(withinMs: number): Promise<AgentExit | undefined> {
    const late = new AbortController();
    const timer = delay(withinMs, undefined, { signal: late.signal }).catch(() => undefined);
    const exit = await Promise.race([this.#process.exited, timer]);
    late.abort();
    return exit;
  }

  async #endedEarly(step: Step): Promise<AgentError> {
    const exit = await this.close(END_MS);
    const tail = exit?.stderrTail ?? "";
    const said = tail === "" ? "nothing on stderr" : `the end of its stderr: ${tail.split("\n").at(-1)?.slice(0, 500)}`;
    const end =
      exit === undefined || exit.signal !== null ? `signal ${exit?.signal ?? "SIGKILL"}` : `exit code ${exit.code}`;
    const status = statusIn(tail);
    const reason = status === undefined ? "AGENT_FAILED" : reasonOfStatus(status);
    return new AgentError(reason, `${this.#label} ended before it answered (${step}): ${end}, ${said}`);
  }
}
