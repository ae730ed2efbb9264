import type { Services } from "../client/connect.ts";
import type { Waits } from "./waiting.ts";

/** Longest that a waiting tool waits: MCP clients give a call up after 60 s. */
export const WAIT_MAX_MS = 45_000;

/** Who calls the tools, and with what. */
export interface ToolCaller {
  readonly services: Services;
  /** Session whose agent calls; undefined for people. It becomes the parent of what is started. */
  readonly sessionId: string | undefined;
  /** Only blueprints with all of these tags are listed. */
  readonly tags: readonly string[];
  readonly waits: Waits;
  /** Longest wait of one call, at most WAIT_MAX_MS. */
  readonly waitMs: number;
}

/** Tags of the header `X-Agent-Tags`, which separates them with commas. */
export function tagsOf(headers: Headers): string[] {
  const tags = (headers.get("x-agent-tags") ?? "").split(",").map((tag) => tag.trim());
  return [...new Set(tags)].filter((tag) => tag !== "");
}
