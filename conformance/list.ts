import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";
import type { RosterEntry } from "../executors/lib/roster/roster-entry.ts";
import type { Discovery } from "../runner/settings/discovery.ts";

/** A row of `ao executors ls`. */
export interface Listed {
  readonly name: string;
  /** `executor`: a program that runs start. `agent`: what one of them drives, as the roster says. */
  readonly kind: "executor" | "agent";
  /** Program; of an agent that is not installed, empty. */
  readonly path: string;
  /** Where it was found: a folder of executors, or the roster. */
  readonly source: string;
  readonly installed: boolean;
  /** What to do when it is not installed; empty when it is. */
  readonly help: string;
}

/** The executors, and the agents that they can drive, by name. */
export function listed(
  { executors }: Discovery,
  agents: readonly RosterEntry[],
  places: { readonly agentsDir: string; readonly path: string; readonly packageDir: string },
): Listed[] {
  return [
    ...executors.map(({ name, path, source }): Listed => {
      const isOurs = source === places.packageDir;
      return { name, kind: "executor", path, source: isOurs ? "package" : source, installed: true, help: "" };
    }),
    ...agents.map((entry): Listed => {
      const path = programOf(entry, places);
      const help =
        path === undefined ? `${entry.install.package}@${entry.install.version} of ${entry.install.registry}` : "";
      return {
        name: entry.name,
        kind: "agent",
        path: path ?? "",
        source: `roster, run by ${entry.executor}`,
        installed: path !== undefined,
        help,
      };
    }),
  ];
}

function programOf(
  { name, install, program }: RosterEntry,
  { agentsDir, path }: { readonly agentsDir: string; readonly path: string },
): string | undefined {
  const places = [
    join(agentsDir, install.folder ?? name, program.inner),
    ...path.split(delimiter).map((folder) => join(folder, program.name)),
  ];
  return places.find((place) => existsSync(place));
}
