import { readFileSync } from "node:fs";
import { join } from "node:path";
import { writePrivate } from "../roster/private-home.ts";
import type { Usage } from "./usage.ts";

/** What is remembered of a session between its runs. */
export interface SessionState {
  /** Directory in which the conversation began. */
  readonly cwd: string;
  /** The agent's id of the conversation. */
  readonly vendorSessionId: string | undefined;
  /** Whether a model has answered in it, so that the agent has it on disk. */
  readonly begun: boolean;
  /** What the conversation has used so far. */
  readonly usage: Usage;
}

/** The notes of a session: `state.json` of its private folder. */
export class SessionNotes {
  readonly #file: string;

  constructor(sessionHomeDir: string) {
    this.#file = join(sessionHomeDir, "state.json");
  }

  /** Undefined when there are none: the first run, another machine, or a file that a full disk has cut. */
  read(): SessionState | undefined {
    let value: unknown;
    try {
      value = JSON.parse(readFileSync(this.#file, "utf8"));
    } catch {
      return undefined;
    }
    if (typeof value !== "object" || value === null) return undefined;
    const { cwd, vendorSessionId, begun, usage } = value as Readonly<Record<string, unknown>>;
    if (typeof cwd !== "string") return undefined;
    return {
      cwd,
      vendorSessionId: typeof vendorSessionId === "string" ? vendorSessionId : undefined,
      begun: begun === true,
      usage: typeof usage === "object" && usage !== null ? usage : {},
    };
  }

  write(state: SessionState): void {
    writePrivate(this.#file, `${JSON.stringify(state)}\n`);
  }
}
