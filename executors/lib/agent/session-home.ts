import { chmodSync, mkdirSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";

/**
 * The private folder of the run's session: what an agent keeps of the conversation, its configuration of this session and
 * its secrets. Of mode 0700, outside the project, and there as long as the session.
 *
 * The runner names it in AGENT_SESSION_DIR; an executor that is started by hand has one under XDG_STATE_HOME.
 * @returns an absolute path, which exists.
 */
export function sessionHome(sessionId: string, env: Readonly<Record<string, string | undefined>>): string {
  const given = env["AGENT_SESSION_DIR"];
  const path = given ? given : join(stateHome(env), "agent-runner", "sessions", fileName(sessionId));
  mkdirSync(path, { recursive: true, mode: 0o700 });
  chmodSync(path, 0o700);
  return path;
}

function stateHome(env: Readonly<Record<string, string | undefined>>): string {
  return env["XDG_STATE_HOME"] || join(homedir(), ".local", "state");
}

/** Session ids of ours are `ses_…`; one of somebody else's coordinator must not leave the folder. */
function fileName(sessionId: string): string {
  const safe = sessionId.replaceAll(/[^A-Za-z0-9_-]/g, "_");
  return safe === "" ? "_" : safe.slice(0, 128);
}
