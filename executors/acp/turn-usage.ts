import type { JsonObject } from "@bufbuild/protobuf";
import type { UsageEvent } from "../lib/emit.ts";
import { listOf, numberOf, objectOf, textOf } from "../lib/agent/json-of.ts";

/** Where an agent reports tokens, see AgentOutput.acpUsage. */
export type UsageSource = "answer" | "quota" | "chunks" | "none";

/** What a conversation has used by the end of a run. */
export interface Used {
  readonly inputTokens: number;
  readonly outputTokens: number;
  readonly costUsd: number;
}

export const NOTHING_USED: Used = { inputTokens: 0, outputTokens: 0, costUsd: 0 };

/** Counts the tokens and the money of one turn, by where the agent reports them. */
export class TurnUsage {
  readonly #source: UsageSource;
  readonly #before: Used;
  #input: number | undefined;
  #output: number | undefined;
  #cost: number | undefined;
  #model: string | undefined;

  /**
   * @param before what the conversation had used before this turn: the cost that an agent reports is the sum of all.
   * @param sums whether its tokens are the sum of all as well.
   */
  constructor(source: UsageSource, before: Used, sums = false) {
    this.#source = source;
    this.#before = sums ? before : { ...NOTHING_USED, costUsd: before.costUsd };
  }

  /** Looks for usage in an update of the session. */
  update(update: JsonObject): void {
    if (update["sessionUpdate"] === "usage_update") {
      const { amount, currency } = objectOf(update["cost"]);
      if (currency === "USD") this.#cost = numberOf(amount) ?? this.#cost;
    } else if (this.#source === "chunks") {
      const usage = objectOf(objectOf(update["_meta"])["usage"]);
      this.#add(numberOf(usage["inputTokens"]), numberOf(usage["outputTokens"]));
    }
  }

  /** Looks for usage in the answer to the prompt. */
  answer(answer: JsonObject): void {
    if (this.#source === "quota") {
      const quota = objectOf(objectOf(answer["_meta"])["quota"]);
      const count = objectOf(quota["token_count"]);
      this.#add(numberOf(count["input_tokens"]), numberOf(count["output_tokens"]));
      this.#model = textOf(objectOf(listOf(quota["model_usage"])[0])["model"]) || undefined;
      return;
    }
    // An agent that has learned to report usage need not wait for the roster.
    const usage = objectOf(answer["usage"]);
    if (this.#input === undefined) this.#add(inputIn(usage), numberOf(usage["outputTokens"]));
  }

  /** Whether a model has used tokens, as far as the agent tells. */
  get used(): boolean {
    const { input_tokens: input = 0, output_tokens: output = 0 } = this.event ?? {};
    return input + output > 0;
  }

  /** What the conversation has used by now, as far as the agent tells it of the whole. */
  get ofAll(): Partial<Used> {
    return {
      ...(this.#input !== undefined && { inputTokens: this.#input }),
      ...(this.#output !== undefined && { outputTokens: this.#output }),
      ...(this.#cost !== undefined && { costUsd: this.#cost }),
    };
  }

  /** Undefined when nothing is known. */
  get event(): UsageEvent | undefined {
    const event: UsageEvent = {
      ...(this.#input !== undefined && { input_tokens: Math.max(0, this.#input - this.#before.inputTokens) }),
      ...(this.#output !== undefined && { output_tokens: Math.max(0, this.#output - this.#before.outputTokens) }),
      ...(this.#cost !== undefined && { cost_usd: Math.max(0, this.#cost - this.#before.costUsd) }),
      ...(this.#model !== undefined && { model: this.#model.slice(0, 256) }),
    };
    return Object.keys(event).length === 0 ? undefined : event;
  }

  #add(input: number | undefined, output: number | undefined): void {
    if (input !== undefined) this.#input = (this.#input ?? 0) + input;
    if (output !== undefined) this.#output = (this.#output ?? 0) + output;
  }
}

/** Some count what is read from the provider's cache as input, others beside it: the sum of all tells. */
function inputIn(usage: JsonObject): number | undefined {
  const input = numberOf(usage["inputTokens"]);
  const total = numberOf(usage["totalTokens"]);
  if (input === undefined || total === undefined) return input;
  const others = (numberOf(usage["outputTokens"]) ?? 0) + (numberOf(usage["thoughtTokens"]) ?? 0);
  return Math.max(input, total - others);
}
