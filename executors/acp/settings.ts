import type { JsonObject } from "@bufbuild/protobuf";
import { listOf, objectOf, textOf } from "../lib/agent/json-of.ts";

/** What is to be asked of the agent so that a setting of the session is what is wanted. */
export type Change =
  | { readonly type: "none" }
  | { readonly type: "request"; readonly method: string; readonly params: Readonly<Record<string, string>> }
  /** `offered` may be empty: there is no such setting. */
  | { readonly type: "not-offered"; readonly offered: readonly string[] };

interface Choice {
  readonly id: string;
  readonly name: string;
}

/** The mode: how freely the agent works. It may be a mode of the session, or an option. */
export function modeChange(opened: JsonObject, wanted: string): Change {
  const modes = objectOf(opened["modes"]);
  const choices = choicesIn(modes["availableModes"], "id");
  if (choices.length === 0) return optionChange(opened, "mode", wanted);
  const found = find(choices, wanted);
  if (found === undefined) return { type: "not-offered", offered: choices.map(({ id }) => id) };
  if (modes["currentModeId"] === found.id) return { type: "none" };
  return { type: "request", method: "session/set_mode", params: { modeId: found.id } };
}

/** An option of the session by its category or id: `model`, `mode`. */
export function optionChange(opened: JsonObject, kind: "mode" | "model", wanted: string): Change {
  const options = listOf(opened["configOptions"]).map(objectOf);
  const option = options.find(({ id }) => id === kind) ?? options.find(({ category }) => category === kind);
  if (option === undefined) return { type: "not-offered", offered: [] };
  // The values may stand in groups.
  const values = listOf(option["options"]).map(objectOf);
  const choices = values.flatMap((one) =>
    Array.isArray(one["options"]) ? choicesIn(one["options"]) : choicesIn([one]),
  );
  const found = find(choices, wanted);
  if (found === undefined) return { type: "not-offered", offered: choices.map(({ id }) => id) };
  if (option["currentValue"] === found.id) return { type: "none" };
  const params = { configId: textOf(option["id"]), value: found.id };
  return { type: "request", method: "session/set_config_option", params };
}

function choicesIn(list: unknown, key = "value"): Choice[] {
  return listOf(list)
    .map(objectOf)
    .map((one) => ({ id: textOf(one[key]), name: textOf(one["name"]) }))
    .filter(({ id }) => id !== "");
}

/** By the id, the part of it that a person would write when it is an address (`https://…#plan`), or the name. */
function find(choices: readonly Choice[], wanted: string): Choice | undefined {
  return (
    choices.find(({ id }) => id === wanted) ??
    choices.find(({ id }) => id.endsWith(`#${wanted}`)) ??
    choices.find(({ name }) => name.toLowerCase() === wanted.toLowerCase())
  );
}
