import { configError } from "./diagnostics.ts";
import { JsonText, isObject, jsonText } from "./json-edit.ts";
import type { JsonEdited } from "./json-edit.ts";
import { shown } from "./spec.ts";

const SCHEMA = "https://opencode.ai/config.json";

/**
 * `opencode.json` with the path among its `instructions`. It may have comments; everything else in it stays as it is, to
 * the byte when there is nothing to do. A text there becomes the first of the list.
 * @param text of the file; undefined when there is none.
 */
export function withOpencodeInstructions(text: string | undefined, path: string): JsonEdited {
  const fresh = jsonText({ $schema: SCHEMA, instructions: [path] });
  if (text === undefined || text.trim() === "") return { text: fresh, lost: [] };
  const json = JsonText.of(text);
  if (typeof json === "string") return { text: fresh, lost: [{ code: "shared-file-replaced", message: json }] };
  const { instructions } = json.value;
  const lost: JsonEdited["lost"][number][] = [];
  if (Array.isArray(instructions)) {
    if (!instructions.includes(path)) json.append(["instructions"], path);
  } else if (typeof instructions === "string") {
    json.set(["instructions"], instructions === path ? [path] : [instructions, path]);
  } else {
    if (instructions !== undefined && instructions !== null) {
      const message = `instructions is ${shown(instructions)}, no list of files`;
      lost.push({ code: "shared-value-replaced", message });
    }
    json.set(["instructions"], [path]);
  }
  if (json.value["$schema"] === undefined) json.set(["$schema"], SCHEMA);
  const now = json.value["instructions"];
  // Of two keys of the same name the first is edited, and the second counts.
  if (!Array.isArray(now) || !now.includes(path) || !isObject(json.value)) {
    throw configError("shared-file-unusable", "has the key instructions twice: take one out");
  }
  return { text: json.text, lost };
}
