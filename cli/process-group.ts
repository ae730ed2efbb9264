import { EXIT } from "../lib/exit-codes.ts";
import { onEndSignals } from "../lib/signals.ts";
import type { Child } from "./children.ts";
import { endChild } from "./children.ts";

/** Time that a child gets after each signal when another one has died. */
const END_GRACE_MS = 5_000;

/** The coordinator and its runners, and how signals reach them. */
export class ProcessGroup {
  coordinator: Child | undefined;
  readonly runners: Child[] = [];
  /** True once somebody asked for the end. */
  ending = false;

  /**
   * What ends us goes on to the runners, or to the coordinator when none is left. A runner that has had the signal itself,
   * as with a terminal's Ctrl+C, counts it once.
   */
  obeySignals(): () => void {
    return onEndSignals(() => {
      this.ending = true;
      const runners = this.runners.filter((runner) => runner.exitCode() === undefined);
      if (runners.length === 0) this.coordinator?.process.kill("SIGTERM");
      else for (const runner of runners) runner.process.kill("SIGTERM");
    });
  }

  /**
   * Waits until all have ended, and returns the first exit code that is not 0. One that fails ends the others; a runner that
   * was drained leaves them.
   */
  async end(): Promise<number> {
    const { coordinator, runners } = this;
    if (coordinator === undefined) throw new Error("no coordinator was started");
    const runnersGone = Promise.all(runners.map((runner) => runner.exited));
    await Promise.race([coordinator.exited, runnersGone, anyFails(runners)]);
    if (!this.ending || coordinator.exitCode() !== undefined) {
      await Promise.all(runners.map((runner) => endChild(runner, END_GRACE_MS)));
    }
    const codes = await runnersGone;
    const last = await endChild(coordinator, END_GRACE_MS);
    return [...codes, last].find((code) => code !== 0) ?? EXIT.ok;
  }

  /** Ends what was started, after a failed start. */
  async kill(): Promise<void> {
    await Promise.all(this.runners.map((runner) => endChild(runner, END_GRACE_MS)));
    if (this.coordinator !== undefined) await endChild(this.coordinator, END_GRACE_MS);
  }
}

/** Resolves when a child ends with another exit code than 0; never when none does. */
function anyFails(children: readonly Child[]): Promise<void> {
  const failed = Promise.withResolvers<void>();
  const listen = async (child: Child): Promise<void> => {
    if ((await child.exited) !== EXIT.ok) failed.resolve();
  };
  for (const child of children) void listen(child);
  return failed.promise;
}
