import type { JsonObject, JsonValue } from "@bufbuild/protobuf";

/** A table under its header: `[name]`, or `[[name]]` for one more of a list. Null has no form, and is left out. */
export function tomlTable(header: string, values: JsonObject): string {
  return `\n${header}\n${tomlLines(values)}`;
}

/** Keys with their values, each on a line. */
export function tomlLines(values: JsonObject): string {
  return Object.entries(values)
    .filter(([, value]) => value !== null)
    .map(([key, value]) => `${tomlKey(key)} = ${tomlValue(value)}\n`)
    .join("");
}

/** A name of a table or a value, in quotes when it needs them. */
export function tomlKey(key: string): string {
  return /^[A-Za-z0-9_-]+$/.test(key) ? key : tomlString(key);
}

function tomlValue(value: JsonValue): string {
  if (typeof value === "string") return tomlString(value);
  if (Array.isArray(value)) return `[${value.map(tomlValue).join(", ")}]`;
  if (typeof value !== "object" || value === null) return String(value);
  const pairs = Object.entries(value).map(([key, one]) => `${tomlKey(key)} = ${tomlValue(one)}`);
  return `{ ${pairs.join(", ")} }`;
}

/** As JSON has it, but for DEL, which TOML wants escaped, and halves of characters, which it does not have. */
function tomlString(text: string): string {
  return JSON.stringify(text.toWellFormed()).replaceAll("\u007f", "\\u007f");
}
