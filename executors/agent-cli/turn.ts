import type { JsonObject } from "@bufbuild/protobuf";
import { emit, print } from "../lib/emit.ts";
import { AgentError } from "../lib/agent/agent-error.ts";
import type { AgentExit, AgentProcess } from "../lib/agent/agent-process.ts";
import type { Final } from "../lib/agent/final.ts";
import { usageAfter } from "../lib/agent/usage.ts";
import type { Usage, UsageRule } from "../lib/agent/usage.ts";
import type { Format, Reading } from "./formats/format.ts";

/** An agent that has said its last word and does not end is ended. */
const END_MS = 10_000;
/** Between the request to end and the end by force. */
const GRACE_MS = 5_000;

export interface TurnTerms {
  readonly format: Format;
  readonly rule: UsageRule;
  /** Usage of the conversation until now. */
  readonly before: Usage;
  /** Names of the run's MCP servers: of others the agent may say what it likes. */
  readonly serverNames: readonly string[];
  /** The id that was said. */
  readonly sessionId: string | undefined;
  /** Remembers what is known, each time that it changes: a run may be cut short. */
  readonly remember: (known: Pick<Turn, "sessionId" | "answered" | "conversation">) => void;
}

export interface Turn {
  readonly final: Final | undefined;
  readonly answered: boolean;
  readonly exit: AgentExit;
  readonly sessionId: string | undefined;
  /** Usage of the whole conversation, this run included. */
  readonly conversation: Usage;
}

/** Says what the agent does until it has ended. @throws AgentError MCP_SERVER_FAILED as soon as the agent says so. */
export async function followTurn(agent: AgentProcess, terms: TurnTerms): Promise<Turn> {
  const follower = new Follower(terms);
  const ending = new Ending(agent);
  try {
    for await (const line of agent.lines()) {
      await follower.read(line);
      if (follower.final !== undefined && terms.format.saysEnd) ending.expect();
    }
  } catch (error) {
    // It works on without a server that the blueprint wants: no money is spent on that.
    ending.now();
    await agent.exited;
    throw error;
  } finally {
    void agent.exited.then(() => ending.clear());
  }
  const exit = await agent.exited;
  return follower.turn(ending.isForced ? { ...exit, code: 0, signal: null } : exit);
}

class Follower {
  readonly #terms: TurnTerms;
  readonly #reader;
  #usage: Usage = {};
  #sessionId: string | undefined;
  #answered = false;
  #costOfAll: number | undefined;
  final: Final | undefined;

  constructor(terms: TurnTerms) {
    this.#terms = terms;
    this.#reader = terms.format.reader(terms.before);
    this.#sessionId = terms.sessionId;
  }

  async read(line: string): Promise<void> {
    const object = jsonObject(line);
    if (object === undefined) {
      // What it says besides its lines is for people.
      if (line.trim() !== "") await print(`${line}\n`, process.stderr);
      return;
    }
    const reading = this.#reader.read(object);
    await this.#session(reading);
    for (const event of reading.said ?? []) await emit.event(event);
    await this.#count(reading);
    this.#failedServers(reading.failedServers ?? []);
    this.final = reading.final ?? this.final;
    if (reading.answered === true && !this.#answered) {
      this.#answered = true;
      this.#remember();
    }
  }

  turn(exit: AgentExit): Turn {
    return {
      final: this.final ?? this.#reader.end(),
      exit,
      ...{ answered: this.#answered, sessionId: this.#sessionId, conversation: this.#conversation() },
    };
  }

  async #session({ sessionId }: Reading): Promise<void> {
    if (sessionId === undefined || sessionId === this.#sessionId) return;
    this.#sessionId = sessionId;
    this.#remember();
    await emit.session(sessionId);
  }

  async #count({ usage: report, conversationCostUsd }: Reading): Promise<void> {
    if (report === undefined) return;
    const { rule, before } = this.#terms;
    this.#usage = usageAfter(rule, this.#usage, report, before);
    this.#costOfAll = conversationCostUsd;
    this.#remember();
    const { inputTokens, outputTokens, costUsd } = this.#usage;
    const event = {
      ...(inputTokens !== undefined && { input_tokens: inputTokens }),
      ...(outputTokens !== undefined && { output_tokens: outputTokens }),
      ...(costUsd !== undefined && { cost_usd: costUsd }),
    };
    if (Object.keys(event).length > 0) await emit.usage(event);
  }

  #failedServers(all: readonly string[]): void {
    const failed = all.filter((one) => this.#terms.serverNames.some((name) => one.startsWith(`${name} (`)));
    if (failed.length === 0) return;
    throw new AgentError("MCP_SERVER_FAILED", `MCP servers of the run do not answer: ${failed.join(", ")}`);
  }

  #conversation(): Usage {
    const { before } = this.#terms;
    const all = usageAfter("delta", before, this.#usage);
    return this.#costOfAll === undefined ? all : { ...all, costUsd: this.#costOfAll };
  }

  #remember(): void {
    const { remember } = this.#terms;
    remember({ sessionId: this.#sessionId, answered: this.#answered, conversation: this.#conversation() });
  }
}

/** Sees to it that the agent ends after its last word. */
class Ending {
  readonly #agent: AgentProcess;
  #timer: NodeJS.Timeout | undefined;
  isForced = false;

  constructor(agent: AgentProcess) {
    this.#agent = agent;
  }

  /** It is to end by itself, soon. */
  expect(): void {
    this.#timer ??= setTimeout(() => {
      this.isForced = true;
      void emit.status("the agent has said its last word and does not end; it is ended");
      this.now();
    }, END_MS);
  }

  /** It is to end now. */
  now(): void {
    clearTimeout(this.#timer);
    this.#agent.kill("SIGTERM");
    this.#timer = setTimeout(() => this.#agent.kill("SIGKILL"), GRACE_MS);
  }

  clear(): void {
    clearTimeout(this.#timer);
  }
}

function jsonObject(line: string): JsonObject | undefined {
  if (!line.trimStart().startsWith("{")) return undefined;
  try {
    return JSON.parse(line) as JsonObject;
  } catch {
    // Plain text, or a line that the agent did not finish.
    return undefined;
  }
}
