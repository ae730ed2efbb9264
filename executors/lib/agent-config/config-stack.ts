import { configError } from "./diagnostics.ts";

/** Keys and values as YAML or JSON gives them. */
export type ConfigData = Readonly<Record<string, unknown>>;

/** Stands for what the level below says, in a list or instead of a value. */
export const INHERIT = "_inherit";

/** One level of a configuration. */
export interface ConfigScope {
  /** Such as `global`, `project`, `preset`, `cli`. */
  readonly level: string;
  /** The file, for people. Null when there is none. */
  readonly source: string | null;
  /** Null for an empty file. */
  readonly data: ConfigData | null;
}

/** Levels of a configuration, the lowest first, merged into one. */
export class ConfigStack {
  readonly #scopes: ConfigScope[] = [];

  /** For showing where a value comes from. */
  get scopes(): readonly ConfigScope[] {
    return this.#scopes;
  }

  /** @throws AgentConfigError when the data is no map. */
  push(scope: ConfigScope): void {
    if (scope.data !== null && !isMap(scope.data)) {
      const where = scope.source ?? scope.level;
      throw configError("spec-invalid", `${where} holds no map of keys and values: write \`key: value\` lines`);
    }
    this.#scopes.push(scope);
  }

  resolve(): ConfigData {
    return this.#scopes.reduce<ConfigData>((base, { data }) => merged(base, data ?? {}), {});
  }

  /** The map under a key; empty when there is none. */
  resolveSection(key: string): ConfigData {
    const section = this.resolve()[key];
    return isMap(section) ? section : {};
  }
}

/**
 * `over` on top of `base`. Maps are merged key by key; null takes a key away; every other value replaces the one below,
 * where `_inherit` in a list stands for the list below, and `_inherit` alone for whatever is below. What has nothing below
 * keeps its `_inherit`, for whoever has a default of their own.
 */
function merged(base: ConfigData, over: ConfigData): ConfigData {
  const result = new Map(Object.entries(base));
  for (const [key, value] of Object.entries(over)) {
    // A map is laid over the one below anyway.
    if (key === INHERIT) continue;
    if (value === null) result.delete(key);
    else result.set(key, laidOver(result.get(key), value));
  }
  return Object.fromEntries(result);
}

function laidOver(below: unknown, value: unknown): unknown {
  if (isMap(value)) return merged(isMap(below) ? below : {}, value);
  if (value === INHERIT && below !== undefined) return below;
  if (Array.isArray(value) && Array.isArray(below)) {
    return value.flatMap((item: unknown) => (item === INHERIT ? (below as unknown[]) : [item]));
  }
  return value;
}

function isMap(value: unknown): value is ConfigData {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
