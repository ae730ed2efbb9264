import { existsSync } from "node:fs";
import { AgentError } from "../agent/agent-error.ts";
import type { RosterEntry } from "./roster-entry.ts";
import { userFile } from "./user-home.ts";

/**
 * NOT_LOGGED_IN when there is neither a key nor a login: most agents then ask a terminal that is not there, and some wait for
 * ever. Undefined when there is one, or when it cannot be seen from here. Whether it is good, the provider says.
 * @param home the user's.
 */
export function loginProblem(
  { label, endpoint }: Pick<RosterEntry, "label" | "endpoint">,
  env: Readonly<Record<string, string | undefined>>,
  home: string,
  platform: NodeJS.Platform = process.platform,
): AgentError | undefined {
  const { keys, logins, keychain = false, loginHint } = endpoint;
  if (keys.some((name) => env[name])) return undefined;
  const files = logins.map((file) => userFile(file, home, env));
  if (files.some((file) => existsSync(file))) return undefined;
  if (keychain && platform === "darwin") return undefined;
  // An agent of a user may need neither: a model on this machine.
  if (keys.length === 0 && logins.length === 0) return undefined;
  const none = [...keys, ...files].join(", ");
  const [key] = keys;
  const set = key === undefined ? "" : `set ${key} where the runner is started, or `;
  return new AgentError("NOT_LOGGED_IN", `${label} has no key and no login (none of ${none}); ${set}${loginHint}`);
}
