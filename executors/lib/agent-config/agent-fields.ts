/** What a sub-agent may be told, as Claude's `--agents` takes it, in the order in which it is written. */
export interface SubagentFields {
  readonly description?: string;
  readonly tools?: string | readonly string[];
  readonly disallowedTools?: string | readonly string[];
  readonly model?: string;
  readonly permissionMode?: string;
  readonly mcpServers?: unknown;
  readonly hooks?: Readonly<Record<string, unknown>>;
  readonly maxTurns?: number;
  readonly skills?: string | readonly string[];
  readonly memory?: string;
  readonly background?: boolean;
  readonly isolation?: string;
  readonly effort?: string | number;
  readonly color?: string;
}

/** A sub-agent as a file or a configuration defines it. */
export interface MdAgent extends SubagentFields {
  readonly name?: string;
  /** Taken without being selected. */
  readonly default?: boolean;
  /** Wins over `prompt`. */
  readonly system_prompt?: string;
  readonly prompt?: string;
  /** What else stands there, as it stands there. */
  readonly [key: string]: unknown;
}

interface FieldType {
  readonly wants: string;
  readonly fits: (value: unknown) => boolean;
}

const isText = (value: unknown) => typeof value === "string";
const isObject = (value: unknown) => typeof value === "object" && value !== null && !Array.isArray(value);

const TEXT: FieldType = { wants: "a text", fits: isText };
const TEXTS: FieldType = {
  wants: "a text or a list of texts",
  fits: (value) => isText(value) || (Array.isArray(value) && value.every(isText)),
};
const FLAG: FieldType = { wants: "true or false", fits: (value) => typeof value === "boolean" };
const MAP: FieldType = { wants: "an object", fits: isObject };

/** Every field that is handed on, in the order in which it is written. */
export const SUBAGENT_FIELDS: ReadonlyMap<string, FieldType> = new Map<string, FieldType>([
  ["description", TEXT],
  ["tools", TEXTS],
  ["disallowedTools", TEXTS],
  ["model", TEXT],
  ["permissionMode", TEXT],
  ["mcpServers", { wants: "an object or a list", fits: (value) => isObject(value) || Array.isArray(value) }],
  ["hooks", MAP],
  ["maxTurns", { wants: "a whole number above 0", fits: (value) => Number.isSafeInteger(value) && Number(value) > 0 }],
  ["skills", TEXTS],
  ["memory", TEXT],
  ["background", FLAG],
  ["isolation", TEXT],
  ["effort", { wants: "a text or a number", fits: (value) => isText(value) || typeof value === "number" }],
  ["color", TEXT],
]);

/** What is read and not handed on. */
export const OWN_FIELDS: ReadonlySet<string> = new Set(["name", "default", "file", "prompt", "system_prompt"]);

const WORDS: Readonly<Record<string, boolean>> = {
  true: true,
  yes: true,
  on: true,
  false: false,
  no: false,
  off: false,
};

/** YAML reads `yes` and `no` as words. @returns undefined for what is neither. */
export function booleanOf(value: unknown): boolean | undefined {
  if (typeof value === "boolean") return value;
  return typeof value === "string" ? WORDS[value.toLowerCase()] : undefined;
}
