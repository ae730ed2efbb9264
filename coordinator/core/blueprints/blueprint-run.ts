import { create } from "@bufbuild/protobuf";
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import type { AgentBlueprint } from "../../../gen/agentrunner/v1/blueprint_pb.ts";
import { DemandsSchema } from "../../../gen/agentrunner/v1/run_pb.ts";
import type { Demands } from "../../../gen/agentrunner/v1/run_pb.ts";

/** Most tags that a run may ask for, as in run.proto. */
const MAX_TAGS = 64;

/** What a run is asked for. */
export interface Asked {
  /** Empty: the parameters make it. */
  readonly prompt: string;
  readonly parameters?: JsonObject | undefined;
  readonly demands?: Demands | undefined;
}

/** What a run is made with, or why it is refused, in words for the caller. */
export type AgentRun =
  | { readonly type: "ok"; readonly prompt: string; readonly demands: Demands | undefined }
  | { readonly type: "refused"; readonly message: string };

/**
 * What has to be held against the `parameters_schema` before a run is made; undefined when nothing has to.
 *
 * It is the parameters of a first run, and of a resume that has some: an agent that takes parameters at its start is
 * continued with plain words.
 */
export function parametersToJudge(
  parameters: JsonObject | undefined,
  blueprint: AgentBlueprint | undefined,
  resumes: boolean,
): { readonly schema: JsonObject; readonly value: JsonObject } | undefined {
  const schema = blueprint?.parametersSchema;
  if (schema === undefined || (resumes && parameters === undefined)) return undefined;
  return { schema, value: parameters ?? {} };
}

/**
 * Puts what is asked for and the agent together. A prompt is sent as it is; without one, an agent that has a
 * `parameters_schema` gets its parameters as text.
 *
 * @param wrong what of `parametersToJudge` does not fit its schema; undefined when nobody has looked.
 */
export function agentRun(
  asked: Asked,
  blueprint: AgentBlueprint | undefined,
  resumes: boolean,
  wrong: readonly string[] | undefined,
): AgentRun {
  const schema = blueprint?.parametersSchema;
  if (blueprint !== undefined && parametersToJudge(asked.parameters, blueprint, resumes) !== undefined) {
    // The session was deleted, or made, after the parameters were judged for what was there then.
    if (wrong === undefined) return refused("the session has just changed: repeat the call");
    if (wrong.length > 0) return refused(`agent blueprint ${blueprint.name}: ${wrong.join("; ")}`);
  }
  const { prompt, parameters } = asked;
  const text = prompt === "" && schema !== undefined && parameters !== undefined ? inputs(parameters, schema) : prompt;
  if (text === "") {
    const choice = schema === undefined ? "prompt" : "prompt or parameters";
    return refused(`${choice}: a run needs a text for the agent`);
  }
  const demands = mergeDemands(blueprint, asked.demands);
  return typeof demands === "string" ? refused(demands) : { type: "ok", prompt: text, demands };
}

function refused(message: string): AgentRun {
  return { type: "refused", message };
}

/** Parameters as text: a line each, in the order of the schema. Lists and objects are JSON, further lines are indented. */
function inputs(parameters: JsonObject, schema: JsonObject): string {
  const place = new Map(Object.keys((schema["properties"] ?? {}) as JsonObject).map((key, i) => [key, i]));
  const order = (key: string): number => place.get(key) ?? place.size;
  const keys = Object.keys(parameters).sort((a, b) => order(a) - order(b) || (a < b ? -1 : 1));
  const lines = keys.map((key) => `${key}: ${inputText(parameters[key] ?? null)}`);
  return ["<inputs>", ...lines, "</inputs>"].join("\n");
}

function inputText(value: JsonValue): string {
  if (typeof value !== "string") return JSON.stringify(value);
  return value.includes("\n") ? ["", ...value.split("\n")].join("\n  ") : value;
}

/**
 * The demands of the blueprint and of the request: the request can only add (ADR 10). A text says which of them
 * contradict each other.
 */
function mergeDemands(blueprint: AgentBlueprint | undefined, asked: Demands | undefined): Demands | string | undefined {
  const given = blueprint?.demands;
  if (blueprint === undefined || given === undefined) return asked;
  if (asked === undefined) return given;
  const merged = create(DemandsSchema, { tags: [...new Set([...given.tags, ...asked.tags])] });
  for (const key of ["executorProfile", "hostname", "projectDir"] as const) {
    if (given[key] !== "" && asked[key] !== "" && given[key] !== asked[key]) {
      const field = DemandsSchema.field[key].name;
      return `demands.${field}: agent blueprint ${blueprint.name} demands ${given[key]}, not ${asked[key]}; a run can only add demands`;
    }
    merged[key] = given[key] || asked[key];
  }
  if (merged.tags.length > MAX_TAGS) {
    return `demands.tags: ${merged.tags.length} together with those of agent blueprint ${blueprint.name}; at most ${MAX_TAGS}`;
  }
  return merged;
}

/**
 * Why the data of a result are not what the blueprint promises; undefined when they are, or when it promises nothing. A turn
 * that ends without data while children are to call back has promised nothing yet: the session goes on.
 *
 * @param violations what of the data does not fit `output_schema`; undefined when nobody has looked.
 */
export function resultProblem(
  blueprint: AgentBlueprint,
  data: JsonObject | undefined,
  violations: readonly string[] | undefined,
  awaitsCallbacks = false,
): string | undefined {
  const { name, outputSchema } = blueprint;
  if (outputSchema === undefined || (data === undefined && awaitsCallbacks)) return undefined;
  const wrong = data === undefined ? ["the result has no data"] : (violations ?? ["the data were not judged"]);
  return wrong.length === 0 ? undefined : `output_schema of agent blueprint ${name}: ${wrong.join("; ")}`;
}
