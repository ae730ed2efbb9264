import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import type { JsonObject } from "@bufbuild/protobuf";
import { AgentError } from "../lib/agent/agent-error.ts";
import { numberOf, objectOf, textOf } from "../lib/agent/json-of.ts";
import { writePrivate } from "../lib/roster/private-home.ts";
import type { Used } from "./turn-usage.ts";

/** What is remembered of a conversation between its runs, in the private folder of the session. */
export interface Notes {
  /** The agent's id of the conversation. */
  readonly conversation: string;
  /** Directory in which it began. */
  readonly cwd: string;
  /** Whether the agent has done anything in it: before, it has nothing that it could resume. */
  readonly begun: boolean;
  /** What it had used at the end of its last run. */
  readonly used: Used;
}

const FILE = "acp-state.json";

/** Undefined for the first run, and for a file that a full disk cut off: the directory of the run is taken then. */
export function readNotes(sessionDir: string): Notes | undefined {
  try {
    const notes = objectOf(JSON.parse(readFileSync(join(sessionDir, FILE), "utf8")));
    const [conversation, cwd] = [textOf(notes["conversation"]), textOf(notes["cwd"])];
    if (conversation === "" || cwd === "") return undefined;
    return { conversation, cwd, begun: notes["begun"] === true, used: usedIn(objectOf(notes["used"])) };
  } catch {
    return undefined;
  }
}

export function writeNotes(sessionDir: string, notes: Notes): void {
  writePrivate(join(sessionDir, FILE), JSON.stringify(notes));
}

function usedIn({ inputTokens, outputTokens, costUsd }: JsonObject): Used {
  return {
    inputTokens: numberOf(inputTokens) ?? 0,
    outputTokens: numberOf(outputTokens) ?? 0,
    costUsd: numberOf(costUsd) ?? 0,
  };
}

/**
 * The directory that the conversation is held in: that where it began, since many agents find it nowhere else.
 * @throws AgentError PROJECT_DIR_GONE
 */
export function directoryOf(notes: Notes | undefined, projectDir: string): string {
  if (notes === undefined || notes.cwd === projectDir) return projectDir;
  if (statSync(notes.cwd, { throwIfNoEntry: false })?.isDirectory() === true) return notes.cwd;
  const message = `${notes.cwd}, where the conversation began, does not exist any more; create it again, or start a new session`;
  throw new AgentError("PROJECT_DIR_GONE", message);
}
