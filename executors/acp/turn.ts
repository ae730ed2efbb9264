import type { RequestPermissionRequest, RequestPermissionResponse } from "@agentclientprotocol/sdk";
import type { JsonObject } from "@bufbuild/protobuf";
import { cutText } from "../../lib/protocol/limits.ts";
import type { Final } from "../lib/agent/final.ts";
import { objectOf, textOf } from "../lib/agent/json-of.ts";
import { emit } from "../lib/emit.ts";
import type { SaidEvent } from "../lib/emit.ts";
import type { RosterEntry } from "../lib/roster/roster-entry.ts";
import type { AgentCalls } from "./connection.ts";
import { finalOf } from "./outcome.ts";
import type { PermissionDecider } from "./permissions.ts";
import { TurnUsage } from "./turn-usage.ts";
import type { UsageSource, Used } from "./turn-usage.ts";
import { Updates } from "./updates.ts";

/** Titles and reasons in a status. */
const STATUS_MAX_BYTES = 1024;

export interface TurnTerms {
  readonly entry: Pick<RosterEntry, "label" | "output">;
  readonly decide: PermissionDecider;
  /** What the conversation had used before. */
  readonly usedBefore: Used;
  /** Called once, when the agent does something for the first time in this turn. */
  readonly onBegun: () => void;
}

/**
 * What the agent does between the prompt and its end, said as events when it happens. Before the prompt is sent it hears of the
 * history that some agents send when a conversation is taken up: that was said in its time.
 */
export class Turn implements AgentCalls {
  readonly #terms: TurnTerms;
  readonly #updates = new Updates();
  readonly #source: UsageSource;
  readonly #usage: TurnUsage;
  #isOpen = false;
  #isStopped = false;
  #begun = false;
  #lastUpdateAt = 0;

  constructor(terms: TurnTerms) {
    this.#terms = terms;
    this.#source = terms.entry.output.acpUsage ?? "none";
    this.#usage = new TurnUsage(this.#source, terms.usedBefore, terms.entry.output.acpUsageSums);
  }

  /** The prompt is about to be sent: from here on what the agent says is new. */
  open(): void {
    this.#isOpen = true;
  }

  /** Nothing is allowed any more. */
  stop(): void {
    this.#isStopped = true;
  }

  /** Milliseconds since the last update. */
  get quietMs(): number {
    return performance.now() - this.#lastUpdateAt;
  }

  readonly update = async (params: unknown): Promise<void> => {
    this.#lastUpdateAt = performance.now();
    if (!this.#isOpen) return;
    const update = objectOf(objectOf(params)["update"]);
    this.#usage.update(update);
    this.#mindBegin(textOf(update["sessionUpdate"]));
    await this.#say(this.#updates.read(update));
  };

  readonly permission = async ({ toolCall, options }: RequestPermissionRequest): Promise<RequestPermissionResponse> => {
    if (this.#isStopped) return { outcome: { outcome: "cancelled" } };
    // Some announce the call by the question alone.
    const announced = this.#updates.nameOf(toolCall.toolCallId);
    await this.#say(this.#updates.read({ ...toolCall, status: "pending", sessionUpdate: "tool_call_update" }));
    const names = [announced, textOf(toolCall.title)].filter((name) => name !== undefined && name !== "") as string[];
    const answer = await this.#terms.decide({ names, kind: textOf(toolCall.kind) || "other" }, options);
    if (answer.decision === "deny") {
      await this.#say([status(`not allowed: ${names[0] ?? toolCall.toolCallId} (${answer.because})`)]);
    } else if (answer.optionId === undefined) {
      await this.#say([status(`${names[0] ?? toolCall.toolCallId} is allowed, but the agent offers no such answer`)]);
    }
    const { optionId } = answer;
    return { outcome: optionId === undefined ? { outcome: "cancelled" } : { outcome: "selected", optionId } };
  };

  /** Takes the answer to the prompt. */
  async end(answer: JsonObject): Promise<Final> {
    this.#usage.answer(answer);
    await this.#say(this.#updates.flush());
    return finalOf({
      label: this.#terms.entry.label,
      stopReason: textOf(answer["stopReason"]),
      answer: this.#updates.answer,
      lastPiece: this.#updates.lastPiece,
      used: this.#usage.used,
      reportsUsage: this.#source !== "none",
      toolCalls: this.#updates.toolCalls,
    });
  }

  /** Says what the turn has used. After the agent has ended, since some tell the cost last. */
  async sayUsage(): Promise<void> {
    await this.#say(this.#updates.flush());
    const { event } = this.#usage;
    if (event !== undefined) await emit.usage(event);
  }

  /** What the conversation has used so far, as far as the agent tells. */
  get used(): Partial<Used> {
    return this.#usage.ofAll;
  }

  #mindBegin(kind: string): void {
    if (this.#begun || !/^(agent_|tool_call)/.test(kind)) return;
    this.#begun = true;
    this.#terms.onBegun();
  }

  async #say(events: readonly SaidEvent[]): Promise<void> {
    for (const event of events) await emit.event(event);
  }
}

function status(text: string): SaidEvent {
  return { type: "status", text: cutText(text, STATUS_MAX_BYTES) };
}
