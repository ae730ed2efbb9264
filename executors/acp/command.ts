import { AgentError } from "../lib/agent/agent-error.ts";
import type { AgentCommand } from "../lib/agent/agent-process.ts";
import { installCommand } from "../lib/roster/find-program.ts";
import type { FoundProgram } from "../lib/roster/find-program.ts";
import type { RosterEntry } from "../lib/roster/roster-entry.ts";
import type { AcpConfig } from "./config.ts";
import type { PermissionPolicy } from "./permissions.ts";

type Env = Readonly<Record<string, string | undefined>>;

export interface CommandFacts {
  readonly entry: RosterEntry;
  readonly config: AcpConfig;
  readonly found: FoundProgram;
  /** Of this process, with the profile's over it. */
  readonly env: Env;
  /** Variables that name the private folder. */
  readonly homeEnv: Env;
  readonly cwd: string;
}

/** How the agent is started. @throws AgentError BAD_CONFIG when it does not speak the protocol. */
export function acpCommand({ entry, config, found, env, homeEnv, cwd }: CommandFacts): AgentCommand {
  const { acp } = entry.start;
  if (acp === undefined) {
    const instead = `use the executor ${entry.executor}`;
    throw new AgentError("BAD_CONFIG", `${entry.label} does not speak the Agent Client Protocol; ${instead}`);
  }
  const { model } = entry.endpoint;
  return {
    program: found.program,
    args: [...found.args, ...acp],
    env: {
      ...env,
      ...entry.start.env,
      ...(asksNothing(config.permissions) && entry.approval.env),
      ...homeEnv,
      ...(model !== undefined && config.model !== undefined && { [model]: config.model }),
      ...config.env,
    },
    cwd,
    installHint: `install it: ${installCommand(entry, env)}`,
  };
}

/** Whatever is asked is allowed: then it need not be asked. */
function asksNothing(policy: PermissionPolicy): boolean {
  return policy.default === "allow" && policy.deny.length === 0;
}
