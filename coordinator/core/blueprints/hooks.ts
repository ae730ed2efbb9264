import { create } from "@bufbuild/protobuf";
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { durationFromMs, durationMs } from "@bufbuild/protobuf/wkt";
import { AgentHook_OnError, AgentHookSchema, AgentHooksSchema } from "../../../gen/agentrunner/v1/blueprint_pb.ts";
import type { AgentHook, AgentHooks } from "../../../gen/agentrunner/v1/blueprint_pb.ts";
import { BlueprintError, isFilled, list, object, optional, refuse, string } from "./reads.ts";
import { meantKey } from "./slips.ts";

/** Capability of runners that execute hooks. */
export const HOOKS_CAPABILITY = "hooks";

const NAMES = ["on_run_start", "on_run_finish"] as const;
const KEYS = ["command", "timeout_seconds", "on_error"];
const MAX_ARGUMENTS = 64;
const MAX_TIMEOUT_S = 24 * 3600;

/** The hooks of agent.json; undefined when there are none. A slip refuses the blueprint: what is to block a run must run. */
export function hooksOf(value: JsonValue | undefined, at: string): AgentHooks | undefined {
  const json = optional(object)(value, at);
  if (json === undefined || !isFilled(json)) return undefined;
  mustKnow(json, NAMES, at);
  const hooks = create(AgentHooksSchema);
  const [start, finish] = NAMES.map((name) => hookOf(json[name], `${at}.${name}`, name));
  if (start !== undefined) hooks.onRunStart = start;
  if (finish !== undefined) hooks.onRunFinish = finish;
  return start === undefined && finish === undefined ? undefined : hooks;
}

function hookOf(value: JsonValue | undefined, at: string, name: (typeof NAMES)[number]): AgentHook | undefined {
  const json = optional(object)(value, at);
  if (json === undefined) return undefined;
  if (json["type"] === "agent" || json["agent_name"] !== undefined) {
    throw new BlueprintError(
      `${at}: an agent as a hook would wait for a slot while its run holds one; give a program that the runner executes ` +
        'itself: "command": ["prog", "arg"]. It may ask a model by itself',
    );
  }
  mustKnow(json, json["type"] === "command" ? ["type", ...KEYS] : KEYS, at);
  const hook = create(AgentHookSchema, { command: commandOf(json["command"], `${at}.command`) });
  const seconds = json["timeout_seconds"];
  if (seconds !== undefined && seconds !== null) hook.timeout = timeoutOf(seconds, `${at}.timeout_seconds`);
  const onError = optional(string)(json["on_error"], `${at}.on_error`) ?? "continue";
  if (onError !== "block" && onError !== "continue") return refuse(`${at}.on_error`, '"block" or "continue"', onError);
  if (onError === "block" && name === "on_run_finish") {
    throw new BlueprintError(`${at}.on_error: the run has ended by then and cannot be blocked; say "continue"`);
  }
  hook.onError = onError === "block" ? AgentHook_OnError.BLOCK : AgentHook_OnError.CONTINUE;
  return hook;
}

function commandOf(value: JsonValue | undefined, at: string): string[] {
  if (typeof value === "string") return refuse(at, `a list, as in [${JSON.stringify(value)}]`, value);
  const command = list(string)(value, at);
  const fits = command.length >= 1 && command.length <= MAX_ARGUMENTS && command[0] !== "";
  if (!fits) return refuse(at, `a program and at most ${MAX_ARGUMENTS - 1} arguments`, value);
  if (command.some((part) => part.includes("\0"))) return refuse(at, "strings without NUL", value);
  return command;
}

function timeoutOf(value: JsonValue, at: string) {
  const isTime = typeof value === "number" && value > 0 && value <= MAX_TIMEOUT_S;
  return isTime
    ? durationFromMs(Math.ceil(value * 1000))
    : refuse(at, `more than 0 and at most ${MAX_TIMEOUT_S}`, value);
}

function mustKnow(json: JsonObject, known: readonly string[], at: string): void {
  for (const key of Object.keys(json)) {
    if (known.includes(key)) continue;
    const meant = meantKey(key, known);
    const hint = meant === undefined ? `known: ${known.join(", ")}` : `did you mean ${meant}?`;
    throw new BlueprintError(`${at}.${key} is not known; ${hint}`);
  }
}

/** As it stands in agent.json. */
export function hooksJson({ onRunStart, onRunFinish }: AgentHooks): JsonObject {
  return {
    ...(onRunStart === undefined ? {} : { on_run_start: hookJson(onRunStart) }),
    ...(onRunFinish === undefined ? {} : { on_run_finish: hookJson(onRunFinish) }),
  };
}

function hookJson({ command, timeout, onError }: AgentHook): JsonObject {
  return {
    command,
    ...(timeout === undefined ? {} : { timeout_seconds: durationMs(timeout) / 1000 }),
    ...(onError === AgentHook_OnError.BLOCK ? { on_error: "block" } : {}),
  };
}
