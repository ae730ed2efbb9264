import { homedir } from "node:os";
import { pinned } from "../../executors/lib/roster/agent-version.ts";
import { installCommand, installedProgram } from "../../executors/lib/roster/find-program.ts";
import { loginProblem } from "../../executors/lib/roster/login.ts";
import type { Roster } from "../../executors/lib/roster/load-roster.ts";
import type { RosterEntry } from "../../executors/lib/roster/roster-entry.ts";
import type { DiscoveredAgent, DiscoveredExecutor, Discovery, DiscoveryProblem } from "./discovery.ts";

type Env = Readonly<Record<string, string | undefined>>;

/**
 * The executors, and the agents of the roster among them: the name of an agent stands for its executor, told which agent it
 * is to drive. A folder of the same name wins, also one that cannot be used. No process is started.
 */
export function withAgents({ executors, problems }: Discovery, roster: Roster, env: Env): Discovery {
  const folders = new Set([...executors, ...problems].map(({ name }) => name));
  const agents: DiscoveredExecutor[] = [];
  const absent: DiscoveryProblem[] = [];
  for (const entry of roster.entries.filter(({ name }) => !folders.has(name))) {
    const { name } = entry;
    const executor = executors.find(({ name }) => name === entry.executor);
    if (executor === undefined) {
      absent.push({ name, message: `agent ${name} needs the executor "${entry.executor}", which is not here` });
    } else {
      agents.push({ name, path: executor.path, source: executor.source, agent: agentOf(entry, env) });
    }
  }
  return {
    executors: [...executors.map((one) => driving(one, roster)), ...agents].sort((a, b) => (a.name < b.name ? -1 : 1)),
    problems: [...problems, ...roster.problems.filter(({ name }) => !folders.has(name))],
    absent,
  };
}

function driving(executor: DiscoveredExecutor, { entries }: Roster): DiscoveredExecutor {
  const driven = entries.filter((entry) => entry.executor === executor.name);
  if (driven.length === 0) return executor;
  return { ...executor, drives: Object.fromEntries(driven.map((entry) => [entry.name, variablesOf(entry)])) };
}

/** Names of the runner's variables that the agent needs: keys, addresses, models. */
function variablesOf({ endpoint }: RosterEntry): string[] {
  const { keys, env, url, model } = endpoint;
  return [...new Set([...keys, ...env, url, model].filter((name) => name !== undefined))];
}

function agentOf(entry: RosterEntry, env: Env): DiscoveredAgent {
  const found = installedProgram(entry, env);
  return {
    label: entry.label,
    program: found?.path,
    ask: found && {
      program: found.program,
      args: [...found.args, ...entry.program.versionArgs],
      env: { ...entry.start.env },
    },
    version: pinned(entry),
    atLeast: entry.install.atLeast,
    install: installCommand(entry, env),
    ready: found !== undefined && loginProblem(entry, env, env["HOME"] || homedir()) === undefined,
    env: variablesOf(entry),
  };
}

/**
 * That the agent is not here which the executor drives, with the command that installs it: a runner of it starts all the same, for
 * it may come later. Undefined when it is here, and for an executor that drives none or several.
 */
export function missingAgent(
  { executors }: Pick<Discovery, "executors">,
  { command, config }: { readonly command: string; readonly config: Readonly<Record<string, unknown>> },
): string | undefined {
  const driven = executors.filter(({ path, agent }) => agent !== undefined && path === command);
  const found = driven.find(({ name }) => name === config["agent"]) ?? (driven.length === 1 ? driven[0] : undefined);
  if (found?.agent === undefined || found.agent.program !== undefined) return undefined;
  return `${found.agent.label} is not installed, and every run will fail until it is; install it: ${found.agent.install}`;
}
