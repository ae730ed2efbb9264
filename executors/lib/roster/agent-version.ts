import { programOutput } from "../../../lib/program-output.ts";
import { compareVersions, versionIn } from "../../../lib/version-numbers.ts";
import { AgentError } from "../agent/agent-error.ts";
import type { FoundProgram } from "./find-program.ts";
import type { RosterEntry } from "./roster-entry.ts";

/** Longest time that a program may take to say its version: some start in 9 s on a machine that has other work. */
export const VERSION_MAX_MS = 20_000;

/** What is read of its answer. */
const OUTPUT_MAX_BYTES = 16 * 1024;

type Env = Readonly<Record<string, string | undefined>>;

/**
 * The version that the program says it has.
 * @param env with the private home, since some write into their home even for this.
 * @throws AgentError AGENT_FAILED when it does not say one.
 */
export async function installedVersion(
  entry: RosterEntry,
  found: Pick<FoundProgram, "program" | "args">,
  env: Env,
  timeoutMs = VERSION_MAX_MS,
): Promise<string> {
  const args = [...found.args, ...entry.program.versionArgs];
  const asked = [found.program, ...args].join(" ");
  const answer = await programOutput({
    program: found.program,
    args,
    env: { ...env, ...entry.start.env },
    timeoutMs,
    maxBytes: OUTPUT_MAX_BYTES,
  });
  if (answer.type === "not-started") {
    throw new AgentError("AGENT_FAILED", `${entry.label} cannot be started: ${answer.message}; see \`${asked}\``);
  }
  if (answer.type === "too-slow") {
    throw new AgentError(
      "AGENT_FAILED",
      `${entry.label} did not say its version in ${timeoutMs / 1000} s; see \`${asked}\``,
    );
  }
  const version = versionIn(answer.output);
  if (answer.code === 0 && version !== undefined) return version;
  const end = answer.code === null ? `signal ${answer.signal}` : `exit code ${answer.code}`;
  const said = answer.output.trim().slice(0, 200) || "nothing";
  throw new AgentError("AGENT_FAILED", `${entry.label} does not say its version: ${end}, ${said}; see \`${asked}\``);
}

/** AGENT_VERSION when the version is older than can be driven; the message names `install`, the command that mends it. */
export function versionProblem(entry: RosterEntry, version: string, install: string): AgentError | undefined {
  const { atLeast } = entry.install;
  if (atLeast === undefined || compareVersions(version, atLeast) >= 0) return undefined;
  return new AgentError(
    "AGENT_VERSION",
    `${entry.label} ${version} is too old: at least ${atLeast} can be driven; install ${pinned(entry)}: ${install}`,
  );
}

/** What the program says its version is, when it is the one of the roster. */
export function pinned({ program, install }: Pick<RosterEntry, "program" | "install">): string {
  return program.version ?? install.version;
}
