import type { Cursors } from "../../client/cursors.ts";
import type { RunUpdate } from "../../client/watch-run.ts";
import { watchRun as watch } from "../../client/watch-run.ts";
import type { WatchOptions } from "../../client/watch.ts";
import type { Cli } from "../cli.ts";

/** Follows a run to its end, and says on stderr when the coordinator is away. Ends earlier only when `signal` aborts. */
export function watchRun(
  cli: Cli,
  runId: string,
  signal: AbortSignal,
  cursors?: Cursors,
): AsyncGenerator<RunUpdate, void> {
  return watch(cli, runId, { signal, ...(cursors && { cursors }), ...awayTalk(cli) });
}

/** Says on stderr that the coordinator is away, and that it is back. */
export function awayTalk(cli: Cli): Required<Pick<WatchOptions<never>, "onAway" | "onBack">> {
  return {
    onAway: (error) =>
      cli.say(
        cli.paintTalk(
          "yellow",
          `… the coordinator is away${cli.options.verbose && error ? ` (${error.message})` : ""}; waiting for it`,
        ),
      ),
    onBack: () => cli.say(cli.paintTalk("yellow", "… the coordinator is back")),
  };
}
