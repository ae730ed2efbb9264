/** A session that a script starts, as the tool start_agent_session takes it. */
export interface Start {
  /** Name of the session; must not exist yet. */
  readonly name?: string;
  /** Agent blueprint. */
  readonly agent?: string;
  readonly executor_profile?: string;
  readonly tags: readonly string[];
  readonly mode: "sync" | "async_poll" | "async_callback";
  readonly prompt: string;
}

/** One turn of a script agent. What is given is done in this order. */
export interface Script {
  readonly say?: string;
  /** Seconds, up to 600. */
  readonly sleep?: number;
  readonly start: readonly Start[];
  /** Waits until the sessions that this turn has started have settled. */
  readonly wait: boolean;
  /** The turn to take when every session that was started with a callback has called back. */
  readonly afterwards?: Script;
  /** Ends with exit code 1 and this on stderr. */
  readonly fail?: string;
  readonly result?: string;
}

/** The prompt is not a script. Says where and what was found. */
export class ScriptError extends Error {
  override readonly name = "ScriptError";
}

const MAX_SLEEP = 600;
const MODES = ["sync", "async_poll", "async_callback"] as const;

/** Reads a script: one JSON object, in which `afterwards` and every `prompt` may be a script again. @throws ScriptError */
export function parseScript(text: string): Script {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new ScriptError(`the prompt is no JSON: ${(error as Error).message}`);
  }
  return scriptOf(value, "script");
}

function scriptOf(value: unknown, where: string): Script {
  const { say, sleep, start = [], wait = false, afterwards, fail, result, ...rest } = objectOf(value, where);
  refuseUnknown(rest, where);
  if (typeof wait !== "boolean") throw expected(`${where}.wait`, "true or false", wait);
  if (!Array.isArray(start)) throw expected(`${where}.start`, "a list", start);
  return {
    ...textOf("say", say, where),
    ...(sleep === undefined ? {} : { sleep: secondsOf(sleep, `${where}.sleep`) }),
    start: start.map((one, i) => startOf(one, `${where}.start[${i}]`)),
    wait,
    ...(afterwards === undefined ? {} : { afterwards: scriptOf(afterwards, `${where}.afterwards`) }),
    ...textOf("fail", fail, where),
    ...textOf("result", result, where),
  };
}

function startOf(value: unknown, where: string): Start {
  const { name, agent, executor_profile, tags = [], mode = "async_callback", prompt, ...rest } = objectOf(value, where);
  refuseUnknown(rest, where);
  const known = MODES.find((one) => one === mode);
  if (known === undefined) throw expected(`${where}.mode`, MODES.join(" or "), mode);
  if (!isTexts(tags)) throw expected(`${where}.tags`, "a list of texts", tags);
  return {
    ...textOf("name", name, where),
    ...textOf("agent", agent, where),
    ...textOf("executor_profile", executor_profile, where),
    tags,
    mode: known,
    prompt: typeof prompt === "string" ? prompt : JSON.stringify(objectOf(prompt, `${where}.prompt`)),
  };
}

function refuseUnknown(rest: object, where: string): void {
  for (const key of Object.keys(rest)) throw new ScriptError(`${where}.${key}: unknown`);
}

function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((one) => typeof one === "string");
}

function secondsOf(value: unknown, where: string): number {
  if (typeof value === "number" && value >= 0 && value <= MAX_SLEEP) return value;
  throw expected(where, `seconds up to ${MAX_SLEEP}`, value);
}

function objectOf(value: unknown, where: string): Record<string, unknown> {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw expected(where, "an object", value);
}

function textOf<K extends string>(key: K, value: unknown, where: string): { [P in K]?: string } {
  if (value === undefined) return {};
  if (typeof value !== "string") throw expected(`${where}.${key}`, "a text", value);
  return { [key]: value } as { [P in K]: string };
}

function expected(where: string, what: string, found: unknown): ScriptError {
  return new ScriptError(`${where}: expected ${what}, found ${JSON.stringify(found)}`);
}
