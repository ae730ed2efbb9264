import type { ModelStub } from "../../support/model-stub/index.ts";
import { installedProgram, installCommand } from "../../../executors/lib/roster/find-program.ts";
import { loadEntry, rosterDirs } from "../../../executors/lib/roster/load-roster.ts";
import { STUB_MODEL } from "../../../conformance/bench.ts";
import { skipAloud } from "../programs.ts";

/** Where tests find real agents, below AGENT_RUNNER_AGENTS_DIR alone: the user's own are never touched. */
const WHERE = {
  AGENT_RUNNER_AGENTS_DIR: process.env["AGENT_RUNNER_AGENTS_DIR"] ?? "/nonexistent",
  HOME: "/nonexistent",
};

/** Agents that CI installs; `AGENTS=codex,pi npm run test:agents` asks for others. */
export const AGENTS = process.env["AGENTS"]?.split(",") ?? ["claude", "copilot", "gemini"];

/** The variables by which an agent finds the scripted model in place of its provider. */
export function modelOf(name: string, model: ModelStub): Record<string, string> {
  const { url, keys, model: variable } = loadEntry(name, rosterDirs(WHERE)).endpoint;
  return {
    ...model.env({ urls: url === undefined ? [] : [url], keys: keys.slice(0, 1) }),
    ...(variable === undefined ? {} : { [variable]: STUB_MODEL }),
  };
}

/** Skips the test, with the reason, where the agent is not installed. Returns the variable that says where agents are. */
export function installed(name: string, skip: (reason: string) => never): { AGENT_RUNNER_AGENTS_DIR: string } {
  const entry = loadEntry(name, rosterDirs(WHERE));
  if (installedProgram(entry, WHERE) === undefined) {
    const dir = process.env["AGENT_RUNNER_AGENTS_DIR"];
    const where = dir === undefined ? "AGENT_RUNNER_AGENTS_DIR is not set" : `it is not in ${dir}`;
    skipAloud(skip, `${name} is no part of this run: ${where}; ${installCommand(entry, WHERE)}`);
  }
  return { AGENT_RUNNER_AGENTS_DIR: WHERE.AGENT_RUNNER_AGENTS_DIR };
}
