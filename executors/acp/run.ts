import type { McpServerJson } from "../../lib/invocation.ts";
import type { ExecutorInvocation } from "../lib/invocation.ts";
import type { RosterEntry } from "../lib/roster/roster-entry.ts";
import type { AcpConfig } from "./config.ts";
import type { AgentConnection } from "./connection.ts";
import type { Notes } from "./notes.ts";
import type { Turn } from "./turn.ts";

/** All that belongs to the run of one prompt. */
export interface Run {
  readonly invocation: ExecutorInvocation;
  readonly config: AcpConfig;
  readonly entry: RosterEntry;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly servers: Readonly<Record<string, McpServerJson>>;
  /** Of the conversation that is resumed. */
  readonly notes: Notes | undefined;
  readonly cwd: string;
  readonly sessionDir: string;
  readonly agent: AgentConnection;
  readonly turn: Turn;
  /** Aborts when the run is to stop. */
  readonly stop: AbortSignal;
}
