import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { readJson } from "../../lib/protocol/json-text.ts";
import { jsonProblem } from "../../lib/protocol/json-values.ts";

export type HookName = "on_run_start" | "on_run_finish";

/** What an on_run_start hook wants of the run that it was asked about. */
export type HookAnswer =
  | { readonly type: "continue"; readonly prompt?: string; readonly parameters?: JsonObject }
  | { readonly type: "block"; readonly reason: string }
  /** It cannot be understood; says why. */
  | { readonly type: "unclear"; readonly problem: string };

/** Characters of a reason that are kept. */
const REASON_MAX = 4_000;

/** Reads what an on_run_start hook printed. Nothing means that the run goes on as it is. */
export function hookAnswer(stdout: string): HookAnswer {
  if (stdout.trim() === "") return { type: "continue" };
  let json: JsonValue;
  try {
    json = readJson(stdout);
  } catch (error) {
    return unclear(`its output is not JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
  if (typeof json !== "object" || json === null || Array.isArray(json)) return unclear("its output is no JSON object");
  const { action, block_reason: reason, prompt, parameters } = json;
  if (action === "block") {
    const said = typeof reason === "string" && reason.trim() !== "" ? reason : "it says no reason";
    return { type: "block", reason: said.slice(0, REASON_MAX) };
  }
  if (action !== "continue") return unclear(`its "action" is ${shown(action)}, neither "continue" nor "block"`);
  if (prompt !== undefined && (typeof prompt !== "string" || prompt === "")) return unclear('its "prompt" is no text');
  if (parameters === undefined) return { type: "continue", ...(prompt === undefined ? {} : { prompt }) };
  if (typeof parameters !== "object" || parameters === null || Array.isArray(parameters)) {
    return unclear('its "parameters" are no JSON object');
  }
  const problem = jsonProblem(parameters, "its parameters");
  if (problem !== undefined) return unclear(problem);
  return { type: "continue", parameters, ...(prompt === undefined ? {} : { prompt }) };
}

function unclear(problem: string): HookAnswer {
  return { type: "unclear", problem };
}

function shown(value: JsonValue | undefined): string {
  return value === undefined ? "missing" : JSON.stringify(value).slice(0, 60);
}
