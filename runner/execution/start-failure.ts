import { isShortage } from "./shortage.ts";

/** Why nothing was spawned. */
export interface StartFailure {
  readonly message: string;
  /** The machine was short of something: the executor is not to blame, and another machine may do it. */
  readonly shortage: boolean;
}

/** What is left after the checks: too many processes or open files, too large an environment, a file system that forbids it. */
export function startFailure(command: string, error: unknown): StartFailure {
  const reason = error instanceof Error ? error.message : String(error);
  return { message: `executor ${command} could not be started: ${reason}`, shortage: isShortage(error) };
}

/** What an executor is told of the run could not be put together: no executor is to blame. */
export function handOverFailure(error: unknown): StartFailure {
  const reason = error instanceof Error ? error.message : String(error);
  const message = `the runner could not put together what the executor is told of the run: ${reason}`;
  return { message, shortage: isShortage(error) };
}
