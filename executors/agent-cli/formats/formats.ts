import type { RosterEntry } from "../../lib/roster/roster-entry.ts";
import { claude } from "./claude.ts";
import { codex } from "./codex.ts";
import { copilot } from "./copilot.ts";
import type { Format } from "./format.ts";
import { gemini } from "./gemini.ts";
import { kimi } from "./kimi.ts";
import { opencode } from "./opencode.ts";
import { pi } from "./pi.ts";
import { qwen } from "./qwen.ts";
import { vibe } from "./vibe.ts";

/** By `output.format` of the roster. */
export const FORMATS: Readonly<Record<RosterEntry["output"]["format"], Format>> = {
  ...{ claude, codex, copilot, opencode, gemini, qwen, vibe, pi, kimi },
};
