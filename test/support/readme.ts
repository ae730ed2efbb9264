import { readFileSync } from "node:fs";
import { inRepository } from "./paths.ts";

const README = readFileSync(inRepository("README.md"), "utf8");
const ARCHITECTURE = readFileSync(inRepository("ARCHITECTURE.md"), "utf8");

/** Port that the commands of the README name; tests put a free one in its place. */
const PORT = /\b8765\b/g;

/** The bash block that stands under `<!-- test: NAME -->`. Throws when there is none, or more than one. */
export function readmeBlock(name: string): string {
  const found = blocks().filter((block) => block.name === name);
  if (found.length !== 1) throw new Error(`there are ${found.length} blocks <!-- test: ${name} -->`);
  return found[0]?.script ?? "";
}

/** Names of all marked blocks, those of the README first, in order. */
export function readmeBlockNames(): string[] {
  return blocks().map(({ name }) => name);
}

/** The only JSON of the README, or of ARCHITECTURE.md. */
export function jsonSample(document: "README.md" | "ARCHITECTURE.md"): string {
  const [, text] = /^```json\n(.*?)^```$/ms.exec(document === "README.md" ? README : ARCHITECTURE) ?? [];
  if (text === undefined) throw new Error(`${document} has no block of json`);
  return text;
}

/** Every command line of the README, marked or not, that begins so; continued lines are joined. */
export function readmeCommands(beginning: string): string[] {
  const shell = Array.from(README.matchAll(/^```bash\n(.*?)^```$/gms), ([, text = ""]) => text).join("");
  return shell
    .replaceAll("\\\n", "")
    .split("\n")
    .filter((line) => line.startsWith(beginning));
}

/** The script for a coordinator on another port. */
export function atPort(script: string, port: number): string {
  return script.replaceAll(PORT, String(port));
}

/**
 * The script with values where it tells a person to copy them: `TOKEN=lt_…` becomes `TOKEN='…'`.
 * Throws when it names others than these.
 */
export function withValues(script: string, values: Readonly<Record<string, string>>): string {
  return script.replaceAll(/^(\w+)=\w+_…/gm, (_, name: string) => {
    const value = values[name];
    if (value === undefined) throw new Error(`README.md asks for ${name}, which no answer has given`);
    return `${name}='${value}'`;
  });
}

function blocks(): { name: string; script: string }[] {
  const marked = `${README}\n${ARCHITECTURE}`.matchAll(/^<!-- test: ([^>\n]+) -->\n\n```bash\n(.*?)^```$/gms);
  return Array.from(marked, ([, name = "", script = ""]) => ({ name, script }));
}
