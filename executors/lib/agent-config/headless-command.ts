import { CONTAINER_PATHS } from "./container-paths.ts";
import type { ContainerPaths } from "./container-paths.ts";
import type { AgentProvider } from "./provider.ts";
import { shellQuote } from "./shell-quote.ts";

export interface HeadlessOptions {
  /** Seconds; 0 for no limit. */
  readonly timeout: number;
  readonly model?: string | null;
  readonly maxTurns?: number | null;
  readonly paths?: ContainerPaths;
}

/**
 * What `bash -lc` is given in the container of a task without a terminal. It calls the function of `terok-executor.sh`. The
 * prompt comes from `prompt.txt` on stdin: it may be of any length, begin with `-`, and is in no process list.
 */
export function buildHeadlessCommand(provider: AgentProvider, options: HeadlessOptions): string {
  const { timeout, model, maxTurns, paths = CONTAINER_PATHS } = options;
  const words = [
    provider.binary,
    "--terok-timeout",
    String(timeout),
    ...(provider.headlessSubcommand === null ? [] : [provider.headlessSubcommand]),
    ...(model && provider.modelFlag !== null ? [provider.modelFlag, model] : []),
    ...(maxTurns && provider.maxTurnsFlag !== null ? [provider.maxTurnsFlag, String(maxTurns)] : []),
    ...provider.outputFormatFlags,
    ...(provider.verboseFlag === null ? [] : [provider.verboseFlag]),
    ...provider.stdinPromptArgs,
  ];
  return `init-ssh-and-repo.sh && ${words.map(shellQuote).join(" ")} < ${shellQuote(`${paths.config}/prompt.txt`)}`;
}
