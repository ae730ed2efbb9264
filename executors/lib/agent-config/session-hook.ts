import { configError } from "./diagnostics.ts";
import { JsonText, isObject, jsonText } from "./json-edit.ts";
import type { JsonEdited, JsonObject } from "./json-edit.ts";
import { shellQuote } from "./shell-quote.ts";
import { shown } from "./spec.ts";

/** In the command of the hook, with its version: a later version takes the place of an earlier one. */
const TAG = "terok-session-hook";
const VERSION = 2;

/** Reads the hook's JSON first and replaces the file in one step: a hook that fails leaves the id that is there. */
const PROGRAM = [
  "import json,os,sys",
  "i=json.load(sys.stdin)['session_id']",
  "p=sys.argv[1]",
  "t=p+'.'+str(os.getpid())",
  "f=open(t,'w')",
  "f.write(i+'\\n')",
  "f.close()",
  "os.replace(t,p)",
].join(";");

/**
 * What the SessionStart hook runs: it writes the id of the conversation into a file of the config folder, and does nothing
 * where there is no such folder, because settings that are shared reach other sessions too.
 */
export function sessionHookCommand(configDir: string, sessionFile: string): string {
  const target = shellQuote(`${configDir}/${sessionFile}`);
  return `test ! -d ${shellQuote(configDir)} || python3 -c "${PROGRAM}" ${target} # ${TAG}:${VERSION}`;
}

/** A hook of ours, of any version; the first one had no tag. */
function isOurs(command: unknown, sessionFile: string): boolean {
  if (typeof command !== "string") return false;
  return (
    command.includes(`${TAG}:`) || (command.includes("session_id") && command.trimEnd().endsWith(`/${sessionFile}`))
  );
}

/** A nested hook: index of the entry, index in its `hooks`. */
type Place = readonly [entry: number, hook: number];

/**
 * Settings with the SessionStart hook, once. Everything else in them stays as it is, to the byte when there is nothing to
 * do; earlier versions of the hook are replaced.
 * @param text of the file; undefined when there is none.
 */
export function withSessionHook(text: string | undefined, command: string, sessionFile: string): JsonEdited {
  const entry = { hooks: [{ type: "command", command }] };
  const fresh = jsonText({ hooks: { SessionStart: [entry] } });
  if (text === undefined || text.trim() === "") return { text: fresh, lost: [] };
  const json = JsonText.of(text);
  if (typeof json === "string") return { text: fresh, lost: [{ code: "shared-file-replaced", message: json }] };
  const lost: JsonEdited["lost"][number][] = [];
  const { hooks } = json.value;
  const entries = isObject(hooks) ? hooks["SessionStart"] : undefined;
  if (!isObject(hooks)) {
    sayLost("hooks", hooks, lost);
    json.set(["hooks"], { SessionStart: [entry] });
  } else if (!Array.isArray(entries)) {
    sayLost("hooks.SessionStart", entries, lost);
    json.set(["hooks", "SessionStart"], [entry]);
  } else {
    putInto(json, entries, entry, sessionFile);
  }
  if (!hasOnce(json.value, command, sessionFile)) {
    // Of two keys of the same name the first is edited, and the second counts.
    throw configError("shared-file-unusable", "has the key hooks or SessionStart twice: take one out");
  }
  return { text: json.text, lost };
}

function sayLost(key: string, value: unknown, lost: JsonEdited["lost"][number][]): void {
  if (value === undefined || value === null) return;
  const wanted = key === "hooks" ? "no object of lists" : "no list";
  lost.push({ code: "shared-value-replaced", message: `${key} is ${shown(value)}, ${wanted}` });
}

function putInto(
  json: JsonText,
  entries: readonly unknown[],
  entry: { readonly hooks: readonly { readonly command: string }[] },
  sessionFile: string,
): void {
  const command = entry.hooks[0]?.command;
  const ours = places(entries, sessionFile);
  const [first, ...others] = ours;
  if (first === undefined) return json.append(["hooks", "SessionStart"], entry);
  const keep = ours.find((place) => commandAt(entries, place) === command);
  if (keep === undefined) json.set(["hooks", "SessionStart", first[0], "hooks", first[1], "command"], command);
  // From the end, so that what is before it keeps its index.
  const surplus = keep === undefined ? others : ours.filter((place) => place !== keep);
  for (const [at, hook] of surplus.toReversed()) {
    const hooks = (json.value["hooks"] as { SessionStart: { hooks: unknown[] }[] }).SessionStart[at]?.hooks;
    json.removeElement(["hooks", "SessionStart", at, ...(hooks?.length === 1 ? [] : ["hooks", hook])]);
  }
}

function places(entries: readonly unknown[], sessionFile: string): Place[] {
  return entries.flatMap((entry, at) => {
    const hooks = isObject(entry) ? entry["hooks"] : undefined;
    if (!Array.isArray(hooks)) return [];
    return hooks.flatMap((hook: unknown, index): Place[] =>
      isObject(hook) && isOurs(hook["command"], sessionFile) ? [[at, index]] : [],
    );
  });
}

function commandAt(entries: readonly unknown[], [at, index]: Place): unknown {
  return (entries[at] as { hooks: { command: unknown }[] }).hooks[index]?.command;
}

function hasOnce(settings: JsonObject, command: string, sessionFile: string): boolean {
  const entries = isObject(settings["hooks"]) ? settings["hooks"]["SessionStart"] : undefined;
  if (!Array.isArray(entries)) return false;
  const ours = places(entries, sessionFile);
  return ours.length === 1 && ours[0] !== undefined && commandAt(entries, ours[0]) === command;
}
