import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { AgentError } from "./agent-error.ts";

/** What a key of `executor_config` may hold: said to people, and read. Undefined: it holds something else. */
export interface Check<T> {
  readonly is: string;
  readonly read: (value: JsonValue) => T | undefined;
}

export const text: Check<string> = {
  is: "a string that is not empty",
  read: (value) => (typeof value === "string" && value !== "" && !value.includes("\0") ? value : undefined),
};

export const texts: Check<string[]> = {
  is: "a list of strings",
  read: (value) =>
    Array.isArray(value) && value.every((one) => typeof one === "string" && !one.includes("\0"))
      ? (value as string[])
      : undefined,
};

export const flag: Check<boolean> = {
  is: "true or false",
  read: (value) => (typeof value === "boolean" ? value : undefined),
};

export const object: Check<JsonObject> = {
  is: "an object",
  read: (value) => (isObject(value) ? value : undefined),
};

export const money: Check<number> = {
  is: "a number above 0",
  read: (value) => (typeof value === "number" && value > 0 ? value : undefined),
};

/** Variables of the environment. */
export const variables: Check<Record<string, string>> = {
  is: "an object of names of variables with strings",
  read: (value) => {
    if (!isObject(value)) return undefined;
    const fits = Object.entries(value).every(
      ([name, one]) => /^[A-Za-z_]\w*$/.test(name) && typeof one === "string" && !one.includes("\0"),
    );
    return fits ? (value as Record<string, string>) : undefined;
  },
};

export function wholeNumber(from: number): Check<number> {
  return {
    is: `a whole number from ${from}`,
    read: (value) => (typeof value === "number" && Number.isSafeInteger(value) && value >= from ? value : undefined),
  };
}

export function oneOf<T extends string>(...names: readonly T[]): Check<T> {
  return { is: `one of ${names.join(", ")}`, read: (value) => names.find((name) => name === value) };
}

type Values<Checks extends Readonly<Record<string, Check<unknown>>>> = {
  readonly [K in keyof Checks]?: NonNullable<ReturnType<Checks[K]["read"]>> | undefined;
};

/**
 * The known keys of `executor_config`.
 * @throws AgentError BAD_CONFIG for a key that is not known, and for a value that the key cannot have.
 */
export function checkedConfig<Checks extends Readonly<Record<string, Check<unknown>>>>(
  config: JsonObject,
  checks: Checks,
): Values<Checks> {
  const values: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(config)) {
    const check = Object.hasOwn(checks, key) ? checks[key] : undefined;
    if (check === undefined) {
      throw new AgentError("BAD_CONFIG", `"${key}" of config is not known; known: ${Object.keys(checks).join(", ")}`);
    }
    const read = check.read(value);
    if (read === undefined) {
      const found = JSON.stringify(value).slice(0, 80);
      throw new AgentError("BAD_CONFIG", `"${key}" of config must be ${check.is}, not ${found}`);
    }
    values[key] = read;
  }
  return values as Values<Checks>;
}

function isObject(value: JsonValue): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
