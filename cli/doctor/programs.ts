import { inPackage } from "../../lib/package-root.ts";
import { CliError } from "../errors.ts";
import { listExecutors, pathOf, ProgramMissing, settingsOf, storeOf } from "../programs.ts";
import type { ExecutorList, ProgramName } from "../programs.ts";
import type { Check } from "./check.ts";

/** What the programs of this host say of themselves; undefined is what could not be asked. */
export interface ProgramFacts {
  /** Absolute path of the file that a coordinator started here would write; undefined also when it keeps nothing. */
  readonly store: string | undefined;
  /** Absolute base of the state directories of runners started here. */
  readonly stateDir: string | undefined;
  readonly executors: ExecutorList | undefined;
}

type Env = Readonly<Record<string, string | undefined>>;

/** Asks the programs of this host. A check each for one that is not here, or would not start as it is configured. */
export async function* programChecks(env: Env, inRoot = inPackage): AsyncGenerator<Check, ProgramFacts> {
  const [coordinator, runner, list] = await Promise.all([
    saidBy("coordinator", settingsOf("coordinator", [], env, inRoot)),
    saidBy("runner", settingsOf("runner", [], env, inRoot)),
    saidBy("runner", listExecutors([], env, inRoot)),
  ]);
  for (const { check } of [coordinator, runner]) if (check !== undefined) yield check;
  return {
    store: coordinator.said && storeOf(coordinator.said),
    stateDir: runner.said && pathOf(runner.said, "state-dir"),
    executors: list.said,
  };
}

async function saidBy<T>(program: ProgramName, asked: Promise<T>): Promise<{ said?: T; check?: Check }> {
  const name = "programs";
  try {
    return { said: await asked };
  } catch (error) {
    if (error instanceof ProgramMissing) return { check: { name, status: "skip", detail: error.message } };
    if (!(error instanceof CliError)) throw error;
    const help = `correct the variable or file that it names; \`agent-${program} --check-config\` repeats this`;
    return { check: { name, status: "fail", detail: error.message, help } };
  }
}
