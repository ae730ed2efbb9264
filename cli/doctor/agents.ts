import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { programOutput } from "../../lib/program-output.ts";
import type { ProgramAnswer } from "../../lib/program-output.ts";
import { compareVersions, versionIn } from "../../lib/version-numbers.ts";
import type { ExecutorList, ListedAgent } from "../programs.ts";
import type { Check } from "./check.ts";

/** Longest time that an agent may take to say its version. */
const VERSION_MAX_MS = 20_000;

const OUTPUT_MAX_BYTES = 16 * 1024;

type Env = Readonly<Record<string, string | undefined>>;
type InstalledAgent = ListedAgent & { readonly ask: NonNullable<ListedAgent["ask"]> };

/** The version of every agent that is installed; agents that share a program are asked once. */
export async function* agentChecks({ executors }: ExecutorList, env: Env): AsyncGenerator<Check, void> {
  const installed = executors.flatMap(({ name, agent }) => (isInstalled(agent) ? [{ name, agent }] : []));
  if (installed.length === 0) {
    const detail = "none of the known agents is installed: `agent-runner --executor-list` names them";
    yield { name: "agents", status: "skip", detail };
  }
  const byProgram = Map.groupBy(installed, ({ agent }) => JSON.stringify([agent.ask.program, agent.ask.args]));
  for (const same of byProgram.values()) {
    const agent = same[0]!.agent;
    yield agentCheck(agent, same.map(({ name }) => name).join(", "), await asked(agent, env));
  }
}

function isInstalled(agent: ListedAgent | undefined): agent is InstalledAgent {
  return agent?.ask !== undefined;
}

/** Some make folders in their home even for this: they get one that goes again. */
async function asked({ ask }: InstalledAgent, env: Env): Promise<ProgramAnswer> {
  const home = mkdtempSync(join(tmpdir(), "ao-doctor-"));
  try {
    const { PATH, LANG, TMPDIR } = env;
    return await programOutput({
      program: ask.program,
      args: ask.args,
      env: { PATH, LANG, TMPDIR, ...ask.env, HOME: home },
      timeoutMs: VERSION_MAX_MS,
      maxBytes: OUTPUT_MAX_BYTES,
    });
  } finally {
    rmSync(home, { recursive: true, force: true });
  }
}

/** What the answer means. @param names of the agents, as `-x` takes them. */
export function agentCheck(
  { label, program = "", version, atLeast, install }: ListedAgent,
  names: string,
  answer: ProgramAnswer,
): Check {
  const name = "agents";
  const help = install;
  if (answer.type === "not-started") {
    return { name, status: "fail", detail: `${names}: ${program} cannot be started: ${answer.message}`, help };
  }
  if (answer.type === "too-slow") {
    const detail = `${names}: ${program} did not say its version in ${VERSION_MAX_MS / 1000} s`;
    return { name, status: "warn", detail, help: "start it by hand; the machine may be busy" };
  }
  const found = versionIn(answer.output);
  if (answer.code !== 0 || found === undefined) {
    const end = answer.code === null ? `signal ${answer.signal}` : `exit code ${answer.code}`;
    const said = answer.output.trim().slice(0, 200) || "nothing";
    return { name, status: "fail", detail: `${names}: ${program} does not say its version: ${end}, ${said}`, help };
  }
  const here = `${names}: ${label} ${found} at ${program}`;
  if (atLeast !== undefined && compareVersions(found, atLeast) < 0) {
    return { name, status: "fail", detail: `${here} is too old: at least ${atLeast} can be driven`, help };
  }
  if (compareVersions(found, version) !== 0) {
    return { name, status: "warn", detail: `${here}, and what is known of it was seen with ${version}`, help };
  }
  return { name, status: "pass", detail: `${here}, as known` };
}
