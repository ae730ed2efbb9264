import { installCommand, installedProgram } from "../executors/lib/roster/find-program.ts";
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

type Env = Readonly<Record<string, string | undefined>>;

/** The executors, and the agents that they can drive, by name. No process is started. */
export function listed(
  { executors }: Pick<Discovery, "executors">,
  agents: readonly RosterEntry[],
  packageDir: string,
  env: Env,
): Listed[] {
  return [
    ...executors.map(({ name, path, source }): Listed => {
      const isOurs = source === packageDir;
      return { name, kind: "executor", path, source: isOurs ? "package" : source, installed: true, help: "" };
    }),
    ...agents.map((entry): Listed => {
      const path = installedProgram(entry, env)?.path;
      const help = path === undefined ? `install it: ${installCommand(entry, env)}` : "";
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
