import type { Conversation, Turn } from "./conversation.ts";

/*
 * What the model answers is written in the prompt: the newest text of the user with `[[step; step; …]]` decides, and the n-th
 * turn of the model after that text takes the n-th step. So the server keeps nothing, any number of conversations go on at
 * once, and one that is resumed days later goes on where it was. `<<step; …>>` is a script too: it stands inside of another
 * one, in the prompt that a child gets.
 */

/** Names of the steps. */
export const STEPS = [
  "text",
  "bash",
  "mcp",
  "tool",
  "structured",
  "err",
  "err1",
  "drop",
  "drop1",
  "slow",
  "hang",
] as const;

export type StepName = (typeof STEPS)[number];

/** What the model does in one of its turns. */
export interface Step {
  readonly name: StepName;
  /** What stands after the colon; empty when nothing does. */
  readonly argument: string;
  /** The same for each try of one request, and another for the next one. */
  readonly key: string;
}

const BEGINS_STEP = new RegExp(`;\\s*(?=(?:${STEPS.join("|")})\\b)`);

/** What the model says of what it was not told. */
export const DEFAULT_TEXT = "STUB-OK";

/** The steps of the script in a text; undefined when it has none. */
export function scriptIn(text: string): string[] | undefined {
  const found = /\[\[(.+)\]\]/s.exec(text) ?? /<<(.+?)>>/s.exec(text);
  return found?.[1]?.split(BEGINS_STEP).map((step) => step.trim());
}

/** The step that the conversation has come to. A request without tools cannot take one that calls a tool. */
export function stepOf({ turns, tools }: Pick<Conversation, "turns" | "tools">): Step {
  const { at, steps } = scriptOf(turns);
  const taken = modelTurns(turns.slice(at + 1), turns[at]?.who === "model");
  const typed = steps[taken] ?? "text";
  const [first = ""] = typed.split(":", 1);
  const name = STEPS.find((known) => known === first.trim());
  const key = `${at}/${taken}/${(turns[at]?.texts ?? []).join("\n")}`;
  if (name === undefined) return { name: "text", argument: typed, key };
  if (tools.length === 0 && (name === "bash" || name === "mcp" || name === "tool"))
    return { name: "text", argument: "no tools were offered", key };
  return { name, argument: typed.slice(first.length + 1), key };
}

function scriptOf(turns: readonly Turn[]): { at: number; steps: readonly string[] } {
  for (let at = turns.length - 1; at >= 0; at -= 1) {
    const turn = turns[at];
    if (turn?.who !== "user") continue;
    const steps = turn.texts.map(scriptIn).findLast((found) => found !== undefined);
    if (steps !== undefined) return { at, steps };
  }
  return { at: -1, steps: ["text"] };
}

/** Turns of the model; several items in a row are one. */
function modelTurns(turns: readonly Turn[], afterModel: boolean): number {
  let count = 0;
  let before = afterModel;
  for (const { who } of turns) {
    if (who === "model" && !before) count += 1;
    before = who === "model";
  }
  return count;
}
