import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "yaml";
import type { RosterEntry } from "../executors/lib/roster/roster-entry.ts";
import { inPackage } from "../lib/package-root.ts";

/** The agents that are known, by name. */
export function rosterEntries(dir = inPackage("executors/roster")): RosterEntry[] {
  if (!existsSync(dir)) return [];
  const files = readdirSync(dir).filter((file) => file.endsWith(".yaml"));
  return files.sort().map((file) => {
    const entry = parse(readFileSync(join(dir, file), "utf8")) as RosterEntry;
    return { ...entry, name: file.slice(0, -".yaml".length) };
  });
}
